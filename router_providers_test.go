package connectplugin_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// deadAddress is an address on which nobody listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	l := hosttest.Listen(t)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// lookAt calls the procedure without side effects, as a GET if get is set.
func lookAt(ctx context.Context, to reachable, get bool, opts ...connect.ClientOption) error {
	opts = append(opts, connect.WithIdempotency(connect.IdempotencyNoSideEffects))
	if get {
		opts = append(opts, connect.WithHTTPGet())
	}
	_, err := echo(to, echoLook, opts...).CallUnary(ctx, connect.NewRequest(wrapperspb.String("ab")))
	return err
}

// What was not sent to a provider that cannot be reached goes to another one
// where that is safe, and nowhere else.
func TestRouter_IdempotentCallsGoToAnotherProvider(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		policy         []string // of idempotent procedures
		version, path  string   // of the other provider
		get, post, all bool     // whether a GET, a POST to Look, and one to Unary succeed
	}{
		"unmarked":            {version: "1.0.0", path: echoBase, get: true},
		"marked":              {policy: []string{echoLook}, version: "1.0.0", path: echoBase, get: true, post: true},
		"all marked":          {policy: []string{"*"}, version: "1.0.0", path: echoBase, get: true, post: true, all: true},
		"of another version":  {policy: []string{"*"}, version: "1.0.1", path: echoBase},
		"under another path":  {policy: []string{"*"}, version: "1.0.0", path: "/"},
		"of no other at all":  {policy: []string{"*"}},
		"marked, another one": {policy: []string{echoUnary}, version: "1.0.0", path: echoBase, get: true, all: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rig := newEchoRig(t, echoService{}.handler(), func(cfg *connectplugin.ServeConfig) { cfg.Policy.Idempotent = c.policy })
			dead := enrolProvider(t, rig.Host, "provider")
			if err := registerEcho(t, dead, map[string]string{"base_url": "https://" + deadAddress(t)}); err != nil {
				t.Fatal(err)
			}
			rig.provider.Stop(t)
			other := &requestRecorder{next: echoService{}.handler()}
			if c.version != "" {
				rig.provide(t, "other", other, func(cfg *connectplugin.PluginServerConfig) {
					cfg.Services[0].Version, cfg.Services[0].Path = c.version, c.path
				})
			}
			to := rig.route(dead.RuntimeID())
			check := func(what string, err error, want bool) {
				t.Helper()
				if want && err != nil || !want && connect.CodeOf(err) != connect.CodeUnavailable {
					t.Errorf("%s: %v, want success: %v", what, err, want)
				}
			}
			check("GET", lookAt(t.Context(), to, true), c.get)
			for protocol, opts := range protocols {
				check(protocol+" POST", lookAt(t.Context(), to, false, opts...), c.post)
				check(protocol+" unary", callUnary(t.Context(), to, opts, nil).err, c.all)
			}
			for _, r := range other.take() {
				if got := r.Header.Get("X-Plugin-Caller-Id"); got != rig.caller.RuntimeID() {
					t.Errorf("the other provider was called by %q", got)
				}
			}
		})
	}
}

// A call that reached a provider is never sent again, marked or not.
func TestRouter_NothingIsSentTwice(t *testing.T) {
	t.Parallel()
	dying := &requestRecorder{}
	listener := &deadlyListener{Listener: hosttest.Listen(t)}
	dying.next = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { listener.kill() })
	rig := &echoRig{Host: hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = echoPolicy()
		c.Policy.Idempotent = []string{"*"}
	})}
	rig.provider = rig.provide(t, "provider", dying, func(c *connectplugin.PluginServerConfig) { c.Listener = listener })
	other := &requestRecorder{next: echoService{}.handler()}
	rig.provide(t, "other", other, nil)
	rig.caller = rig.Enrol(t, "caller", requires(echoType))
	for _, get := range []bool{true, false} {
		if err := lookAt(t.Context(), rig.toProvider(), get); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("GET %v: %v, want unavailable", get, err)
		}
		if n, m := len(dying.take()), len(other.take()); n != 1 || m != 0 {
			t.Errorf("GET %v: arrived %d times, and %d times at another", get, n, m)
		}
	}
}

// A provider that is not there fails at once; one whose address swallows
// everything lets one caller wait and not all of them.
func TestRouter_DeadProviderFailsFast(t *testing.T) {
	t.Parallel()
	const dialTimeout = 2 * time.Second
	rig := newEchoRig(t, echoService{}.handler(), func(c *connectplugin.ServeConfig) { c.Limits.DialTimeout = dialTimeout })
	hole, swallowed := newHole(t)
	for name, address := range map[string]string{"refuses": deadAddress(t), "swallows": hole} {
		dead := enrolProvider(t, rig.Host, "provider")
		if err := registerEcho(t, dead, map[string]string{"base_url": "https://" + address}); err != nil {
			t.Fatal(err)
		}
		to := rig.route(dead.RuntimeID())
		begun := time.Now()
		if out := callUnary(t.Context(), to, nil, nil); connect.CodeOf(out.err) != connect.CodeUnavailable {
			t.Errorf("%s: %v after %v", name, out.err, time.Since(begun))
		}
		for protocol, opts := range protocols {
			for kind, call := range echoKinds {
				if out := call(t.Context(), to, opts, nil); connect.CodeOf(out.err) != connect.CodeUnavailable {
					t.Errorf("%s, %s, %s: %v, want unavailable", name, protocol, kind, out.err)
				}
			}
		}
		if d, n := time.Since(begun), swallowed.Load(); name == "swallows" && n > 1+int64(d/(2*dialTimeout)) {
			// A dial takes the timeout, and as long nobody tries again.
			t.Errorf("thirteen calls dialled %d times in %v", n, d)
		} else if d > longWait/2 {
			t.Errorf("%s: thirteen calls took %v", name, d)
		}
		// Once the plugin is there it is called again.
		providerTLS, err := rig.Authority.PluginTLS("provider")
		if err != nil {
			t.Fatal(err)
		}
		if name == "refuses" {
			newTrapAt(t, address, providerTLS)
			hosttest.Eventually(t, "calls to the plugin that came up", func() bool { return callUnary(t.Context(), to, nil, nil).err == nil })
		}
		alive := newTrap(t, "127.0.0.1", providerTLS)
		if err := registerEcho(t, dead, map[string]string{"base_url": "https://" + alive.addr}); err != nil {
			t.Fatal(err)
		}
		if out := callUnary(t.Context(), to, nil, nil); out.err != nil {
			t.Errorf("%s: after it came up: %v", name, out.err)
		}
	}
}

// newHole listens and never answers. It counts the connections.
func newHole(t *testing.T) (address string, accepted *atomic.Int64) {
	t.Helper()
	l, accepted := hosttest.Listen(t), new(atomic.Int64)
	conns := make(chan net.Conn, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			conns <- conn
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
		close(conns)
		for conn := range conns {
			_ = conn.Close()
		}
	})
	return l.Addr().String(), accepted
}

// A plugin that leaves is drained: what is under way finishes, nothing new comes.
func TestRouter_ProvidersAreDrained(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	slow := hanging(func(ctx context.Context) error {
		begun <- struct{}{}
		select {
		case <-release:
			return connect.NewError(connect.CodeDataLoss, errors.New("finished"))
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	rig := newEchoRig(t, slow.handler(), nil)
	to := rig.toProvider()
	var calls []<-chan echoOutcome
	for _, opts := range protocols {
		for _, call := range echoKinds {
			ended := make(chan echoOutcome, 1)
			go func() { ended <- call(t.Context(), to, opts, nil) }()
			arrival(t, begun)
			calls = append(calls, ended)
		}
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		rig.provider.Stop(t)
	}()
	hosttest.Eventually(t, "the plugin unregistered", func() bool { return len(rig.Registry().GetAllProviders(echoType)) == 0 })
	for _, opts := range protocols {
		if out := callUnary(t.Context(), to, opts, nil); connect.CodeOf(out.err) != connect.CodeNotFound {
			t.Errorf("a new call: %v, want not_found", out.err)
		}
	}
	close(release)
	for _, ended := range calls {
		if out := arrival(t, ended); connect.CodeOf(out.err) != connect.CodeDataLoss {
			t.Errorf("a call under way: %v, want what the provider said", out.err)
		}
	}
	arrival(t, stopped)
}

// A plugin whose endpoint changes is called at the new one; calls to the old one
// finish, unless the plugin's identity ends.
func TestRouter_EndpointChanges(t *testing.T) {
	t.Parallel()
	var router *connectplugin.ServiceRouter
	rig := &echoRig{Host: hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = echoPolicy()
		router = connectplugin.NewServiceRouter(connectplugin.NewHandshakeServer(c), nil, nil)
		c.ServiceRouter = router
	})}
	rig.caller = rig.Enrol(t, "caller", requires(echoType))
	provider := enrolProvider(t, rig.Host, "provider")
	if err := registerEcho(t, provider, nil); err != nil {
		t.Fatal(err)
	}
	providerTLS, err := rig.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	to := rig.route(provider.RuntimeID())
	if out := callUnary(t.Context(), to, nil, nil); connect.CodeOf(out.err) != connect.CodeUnavailable {
		t.Errorf("without an endpoint: %v", out.err)
	}
	var servers []*trapServer
	var streams []*connect.BidiStreamForClient[echoText, echoText]
	for range 3 {
		server := newTrap(t, "127.0.0.1", providerTLS)
		servers = append(servers, server)
		router.RegisterPluginEndpoint(provider.RuntimeID(), "https://"+server.addr)
		stream := echo(to, echoBidi, connect.WithGRPC()).CallBidiStream(t.Context())
		sendWant(t, stream, "begun", "begun")
		streams = append(streams, stream)
		if n := len(server.take()); n != 1 {
			t.Errorf("%d calls reached the new endpoint", n)
		}
		if k := len(streams); k > 1 {
			sendWant(t, streams[k-2], "goes on", "goes on")
		}
	}
	// Two endpoints back is too far: nobody piles up what goes through.
	if err := streamEnd(t, streams[0]); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("the oldest stream: %v, want unavailable", err)
	}
	router.RegisterPluginEndpoint(provider.RuntimeID(), "gopher://nowhere")
	if out := callUnary(t.Context(), to, nil, nil); connect.CodeOf(out.err) != connect.CodeUnavailable {
		t.Errorf("an endpoint that is none: %v", out.err)
	}
	sendWant(t, streams[2], "goes on", "goes on")
	router.RegisterPluginEndpoint(provider.RuntimeID(), "https://"+servers[0].addr)
	if out := callUnary(t.Context(), to, nil, nil); out.err != nil {
		t.Errorf("back at the first: %v", out.err)
	}
	last := echo(to, echoBidi).CallBidiStream(t.Context())
	sendWant(t, last, "begun", "begun")
	router.RegisterPluginEndpoint(provider.RuntimeID(), "https://"+servers[1].addr)
	if out := callUnary(t.Context(), to, nil, nil); out.err != nil {
		t.Errorf("at the second again: %v", out.err)
	}
	sendWant(t, last, "goes on", "goes on")
	rig.Revoke(provider.RuntimeID())
	for _, stream := range append(streams[1:], last) {
		if err := streamEnd(t, stream); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("after the plugin's identity ended: %v, want unavailable", err)
		}
	}
}

// What the provider says of keeping an answer arrives, and what the host says
// itself is not to be kept.
func TestRouter_CacheControlIsTheProviders(t *testing.T) {
	t.Parallel()
	service := echoService{}.handler()
	rig := newEchoRig(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		service.ServeHTTP(w, r)
	}), nil)
	for want, to := range map[string]baseAt{"max-age=60": rig.toProvider(), "no-store": rig.route("unknown")} {
		client := &tapClient{next: to.client}
		_ = lookAt(t.Context(), at(to.base, client), true)
		if got := client.fields()[0]["Cache-Control"]; len(got) != 1 || got[0] != want {
			t.Errorf("Cache-Control %q, want %q", got, want)
		}
	}
}

func TestPolicy_IdempotentNamesProcedures(t *testing.T) {
	t.Parallel()
	for procedure, ok := range map[string]bool{
		"*": true, echoLook: true, "/a/b": true, "": false, "/a": false, "a/b": false, "/a/b/c": false, "/a/": false, "//a": false, "/a/../b": false, "/a/b?c": false,
	} {
		p := &connectplugin.Policy{Idempotent: []string{procedure}}
		host, err := connectplugin.NewHost(&connectplugin.ServeConfig{Authority: hosttest.NewAuthority(t), Policy: p})
		if err == nil {
			_ = host.Shutdown(t.Context())
		}
		if refused := errors.Is(err, connectplugin.ErrInvalidConfig); refused == ok {
			t.Errorf("%q: %v", procedure, err)
		}
	}
}

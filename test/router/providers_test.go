package router_test

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
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// lookAt calls the procedure without side effects, as a GET if get is set.
func lookAt(ctx context.Context, to echo.Reachable, get bool, opts ...connect.ClientOption) error {
	opts = append(opts, connect.WithIdempotency(connect.IdempotencyNoSideEffects))
	if get {
		opts = append(opts, connect.WithHTTPGet())
	}
	_, err := echo.NewClient(to, echo.Look, opts...).CallUnary(ctx, connect.NewRequest(wrapperspb.String("ab")))
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
		"unmarked":            {version: "1.0.0", path: echo.Base, get: true},
		"marked":              {policy: []string{echo.Look}, version: "1.0.0", path: echo.Base, get: true, post: true},
		"all marked":          {policy: []string{"*"}, version: "1.0.0", path: echo.Base, get: true, post: true, all: true},
		"of another version":  {policy: []string{"*"}, version: "1.0.1", path: echo.Base},
		"under another path":  {policy: []string{"*"}, version: "1.0.0", path: "/"},
		"of no other at all":  {policy: []string{"*"}},
		"marked, another one": {policy: []string{echo.Unary}, version: "1.0.0", path: echo.Base, get: true, all: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rig := echo.NewRig(t, echo.Service{}.Handler(), func(cfg *connectplugin.ServeConfig) { cfg.Policy.Idempotent = c.policy })
			dead := echo.EnrolProvider(t, rig.Host, "provider")
			if err := echo.Register(t, dead, map[string]string{"base_url": "https://" + hosttest.FreeAddr(t)}); err != nil {
				t.Fatal(err)
			}
			rig.Provider.Stop(t)
			other := &echo.Recorder{Next: echo.Service{}.Handler()}
			if c.version != "" {
				rig.Provide(t, "other", other, func(cfg *connectplugin.PluginServerConfig) {
					cfg.Services[0].Version, cfg.Services[0].Path = c.version, c.path
				})
			}
			to := rig.Route(dead.RuntimeID())
			check := func(what string, err error, want bool) {
				t.Helper()
				if want && err != nil || !want && connect.CodeOf(err) != connect.CodeUnavailable {
					t.Errorf("%s: %v, want success: %v", what, err, want)
				}
			}
			check("GET", lookAt(t.Context(), to, true), c.get)
			for protocol, opts := range hosttest.Protocols {
				check(protocol+" POST", lookAt(t.Context(), to, false, opts...), c.post)
				check(protocol+" unary", echo.CallUnary(t.Context(), to, opts, nil).Err, c.all)
			}
			for _, r := range other.Take() {
				if got := r.Header.Get("X-Plugin-Caller-Id"); got != rig.Caller.RuntimeID() {
					t.Errorf("the other provider was called by %q", got)
				}
			}
		})
	}
}

// A call that reached a provider is never sent again, marked or not.
func TestRouter_NothingIsSentTwice(t *testing.T) {
	t.Parallel()
	dying := &echo.Recorder{}
	listener := &deadlyListener{Listener: hosttest.Listen(t)}
	dying.Next = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { listener.kill() })
	rig := &echo.Rig{Host: hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = echo.Policy()
		c.Policy.Idempotent = []string{"*"}
	})}
	rig.Provider = rig.Provide(t, "provider", dying, func(c *connectplugin.PluginServerConfig) { c.Listener = listener })
	other := &echo.Recorder{Next: echo.Service{}.Handler()}
	rig.Provide(t, "other", other, nil)
	rig.Caller = rig.Enrol(t, "caller", hosttest.Requiring(echo.Type))
	for _, get := range []bool{true, false} {
		if err := lookAt(t.Context(), rig.ToProvider(), get); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("GET %v: %v, want unavailable", get, err)
		}
		if n, m := len(dying.Take()), len(other.Take()); n != 1 || m != 0 {
			t.Errorf("GET %v: arrived %d times, and %d times at another", get, n, m)
		}
	}
}

// A provider that is not there fails at once; one whose address swallows
// everything lets one caller wait and not all of them.
func TestRouter_DeadProviderFailsFast(t *testing.T) {
	t.Parallel()
	const dialTimeout = 2 * time.Second
	rig := echo.NewRig(t, echo.Service{}.Handler(), func(c *connectplugin.ServeConfig) { c.Limits.DialTimeout = dialTimeout })
	hole, swallowed := newHole(t)
	for name, address := range map[string]string{"refuses": hosttest.FreeAddr(t), "swallows": hole} {
		dead := echo.EnrolProvider(t, rig.Host, "provider")
		if err := echo.Register(t, dead, map[string]string{"base_url": "https://" + address}); err != nil {
			t.Fatal(err)
		}
		to := rig.Route(dead.RuntimeID())
		begun := time.Now()
		if out := echo.CallUnary(t.Context(), to, nil, nil); connect.CodeOf(out.Err) != connect.CodeUnavailable {
			t.Errorf("%s: %v after %v", name, out.Err, time.Since(begun))
		}
		for protocol, opts := range hosttest.Protocols {
			for kind, call := range echo.Kinds {
				if out := call(t.Context(), to, opts, nil); connect.CodeOf(out.Err) != connect.CodeUnavailable {
					t.Errorf("%s, %s, %s: %v, want unavailable", name, protocol, kind, out.Err)
				}
			}
		}
		if d, n := time.Since(begun), swallowed.Load(); name == "swallows" && n > 1+int64(d/(2*dialTimeout)) {
			// A dial takes the timeout, and as long nobody tries again.
			t.Errorf("thirteen calls dialled %d times in %v", n, d)
		} else if d > hosttest.Wait/2 {
			t.Errorf("%s: thirteen calls took %v", name, d)
		}
		// Once the plugin is there it is called again.
		providerTLS, err := rig.Authority.PluginTLS("provider")
		if err != nil {
			t.Fatal(err)
		}
		if name == "refuses" {
			echo.NewTrapAt(t, address, providerTLS)
			hosttest.Eventually(t, "calls to the plugin that came up", func() bool { return echo.CallUnary(t.Context(), to, nil, nil).Err == nil })
		}
		alive := echo.NewTrap(t, "127.0.0.1", providerTLS)
		if err := echo.Register(t, dead, map[string]string{"base_url": "https://" + alive.Addr}); err != nil {
			t.Fatal(err)
		}
		if out := echo.CallUnary(t.Context(), to, nil, nil); out.Err != nil {
			t.Errorf("%s: after it came up: %v", name, out.Err)
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
	rig := echo.NewRig(t, slow.Handler(), nil)
	to := rig.ToProvider()
	var calls []<-chan echo.Outcome
	for _, opts := range hosttest.Protocols {
		for _, call := range echo.Kinds {
			ended := make(chan echo.Outcome, 1)
			go func() { ended <- call(t.Context(), to, opts, nil) }()
			hosttest.Arrival(t, begun)
			calls = append(calls, ended)
		}
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		rig.Provider.Stop(t)
	}()
	hosttest.Eventually(t, "the plugin unregistered", func() bool { return len(rig.Registry().GetAllProviders(echo.Type)) == 0 })
	for _, opts := range hosttest.Protocols {
		if out := echo.CallUnary(t.Context(), to, opts, nil); connect.CodeOf(out.Err) != connect.CodeUnavailable {
			t.Errorf("a new call: %v, want unavailable", out.Err)
		}
	}
	close(release)
	for _, ended := range calls {
		if out := hosttest.Arrival(t, ended); connect.CodeOf(out.Err) != connect.CodeDataLoss {
			t.Errorf("a call under way: %v, want what the provider said", out.Err)
		}
	}
	hosttest.Arrival(t, stopped)
}

// A plugin whose endpoint changes is called at the new one; calls to the old one
// finish, unless the plugin's identity ends.
func TestRouter_EndpointChanges(t *testing.T) {
	t.Parallel()
	var router *connectplugin.ServiceRouter
	rig := &echo.Rig{Host: hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = echo.Policy()
		router = connectplugin.NewServiceRouter(connectplugin.NewHandshakeServer(c), nil, nil)
		c.ServiceRouter = router
	})}
	rig.Caller = rig.Enrol(t, "caller", hosttest.Requiring(echo.Type))
	provider := echo.EnrolProvider(t, rig.Host, "provider")
	if err := echo.Register(t, provider, nil); err != nil {
		t.Fatal(err)
	}
	providerTLS, err := rig.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	to := rig.Route(provider.RuntimeID())
	if out := echo.CallUnary(t.Context(), to, nil, nil); connect.CodeOf(out.Err) != connect.CodeUnavailable {
		t.Errorf("without an endpoint: %v", out.Err)
	}
	var servers []*echo.Trap
	var streams []*connect.BidiStreamForClient[echo.Text, echo.Text]
	for range 3 {
		server := echo.NewTrap(t, "127.0.0.1", providerTLS)
		servers = append(servers, server)
		router.RegisterPluginEndpoint(provider.RuntimeID(), "https://"+server.Addr)
		stream := echo.NewClient(to, echo.Bidi, connect.WithGRPC()).CallBidiStream(t.Context())
		echo.SendWant(t, stream, "begun", "begun")
		streams = append(streams, stream)
		if n := len(server.Take()); n != 1 {
			t.Errorf("%d calls reached the new endpoint", n)
		}
		if k := len(streams); k > 1 {
			echo.SendWant(t, streams[k-2], "goes on", "goes on")
		}
	}
	// Two endpoints back is too far: nobody piles up what goes through.
	if err := echo.StreamEnd(t, streams[0]); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("the oldest stream: %v, want unavailable", err)
	}
	router.RegisterPluginEndpoint(provider.RuntimeID(), "gopher://nowhere")
	if out := echo.CallUnary(t.Context(), to, nil, nil); connect.CodeOf(out.Err) != connect.CodeUnavailable {
		t.Errorf("an endpoint that is none: %v", out.Err)
	}
	echo.SendWant(t, streams[2], "goes on", "goes on")
	router.RegisterPluginEndpoint(provider.RuntimeID(), "https://"+servers[0].Addr)
	if out := echo.CallUnary(t.Context(), to, nil, nil); out.Err != nil {
		t.Errorf("back at the first: %v", out.Err)
	}
	last := echo.NewClient(to, echo.Bidi).CallBidiStream(t.Context())
	echo.SendWant(t, last, "begun", "begun")
	router.RegisterPluginEndpoint(provider.RuntimeID(), "https://"+servers[1].Addr)
	if out := echo.CallUnary(t.Context(), to, nil, nil); out.Err != nil {
		t.Errorf("at the second again: %v", out.Err)
	}
	echo.SendWant(t, last, "goes on", "goes on")
	rig.Revoke(provider.RuntimeID())
	for _, stream := range append(streams[1:], last) {
		if err := echo.StreamEnd(t, stream); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("after the plugin's identity ended: %v, want unavailable", err)
		}
	}
}

// What the provider says of keeping an answer arrives, and what the host says
// itself is not to be kept.
func TestRouter_CacheControlIsTheProviders(t *testing.T) {
	t.Parallel()
	service := echo.Service{}.Handler()
	rig := echo.NewRig(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		service.ServeHTTP(w, r)
	}), nil)
	for want, to := range map[string]echo.Endpoint{"max-age=60": rig.ToProvider(), "no-store": rig.Route("unknown")} {
		client := &tapClient{next: to.Client}
		_ = lookAt(t.Context(), echo.At(to.Base, client), true)
		if got := client.fields()[0]["Cache-Control"]; len(got) != 1 || got[0] != want {
			t.Errorf("Cache-Control %q, want %q", got, want)
		}
	}
}

func TestPolicy_IdempotentNamesProcedures(t *testing.T) {
	t.Parallel()
	for procedure, ok := range map[string]bool{
		"*": true, echo.Look: true, "/a/b": true, "": false, "/a": false, "a/b": false, "/a/b/c": false, "/a/": false, "//a": false, "/a/../b": false, "/a/b?c": false,
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

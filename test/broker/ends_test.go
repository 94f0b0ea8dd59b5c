package broker_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

const hold = "/hold/Hold"

// holding serves a stream that goes on until its context, or one made of it, says that it is over.
type holding struct{ derived bool }

func (h holding) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	connect.NewServerStreamHandler(hold, func(ctx context.Context, _ *connect.Request[emptypb.Empty], stream *connect.ServerStream[emptypb.Empty]) error {
		if h.derived {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, hosttest.Wait)
			defer cancel()
		}
		if err := stream.Send(&emptypb.Empty{}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}).ServeHTTP(w, r)
}

// holdingPlugin is a plugin of the host's that serves it.
type holdingPlugin struct{ hosttest.LoggerPlugin }

func (holdingPlugin) Metadata() connectplugin.PluginMetadata {
	return connectplugin.PluginMetadata{Name: "holding", Path: "/hold/", Version: "1.0.0"}
}

func (holdingPlugin) ConnectServer(impl any) (string, http.Handler, error) {
	return "/hold/", impl.(http.Handler), nil
}

// A stream that the host ends, because a right was taken, says so to its caller, and is no cancellation by anybody.
func TestCallsThatTheHostEnds_SayWhy(t *testing.T) {
	t.Parallel()
	taken := func(e *endRig) {
		hosttest.SetPolicy(t, e.Host, &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"api": hosttest.Allow(nil)}})
	}
	revoked := func(e *endRig) { e.Revoke(e.client.RuntimeID()) }
	for name, c := range map[string]struct {
		plugin bool // of the host's; else a capability
		end    func(*endRig)
		code   connect.Code
		text   string
	}{
		"capability, Revoke":      {false, revoked, connect.CodeUnauthenticated, "identity ended"},
		"capability, RevokeGrant": {false, func(e *endRig) { e.broker.RevokeGrant(e.grantID()) }, connect.CodeUnauthenticated, "grant revoked"},
		"capability, SetPolicy":   {false, taken, connect.CodeUnauthenticated, "grant revoked"},
		"plugin, Revoke":          {true, revoked, connect.CodeUnauthenticated, "identity ended"},
		"plugin, SetPolicy":       {true, taken, connect.CodeNotFound, "not available"},
		"plugin, Shutdown":        {true, func(e *endRig) { e.Stop(t) }, connect.CodeUnavailable, "host is shutting down"},
	} {
		for protocol, opts := range hosttest.Protocols {
			for _, derived := range []bool{false, true} {
				t.Run(name+" "+protocol, func(t *testing.T) {
					t.Parallel()
					e := newEndRig(t, derived)
					stream := e.open(t, c.plugin, opts)
					c.end(e)
					if stream.Receive() {
						t.Fatal("the stream goes on")
					}
					if err := stream.Err(); connect.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.text) {
						t.Errorf("derived %v: the stream ended with %v, want %v, %s", derived, err, c.code, c.text)
					}
				})
			}
		}
	}
}

// endRig is a host that has the stream as a capability and as a plugin of its own.
type endRig struct {
	*hosttest.Host

	broker *connectplugin.CapabilityBroker
	client *connectplugin.Client
	conn   *connectplugin.CapabilityConn
}

func newEndRig(t *testing.T, derived bool) *endRig {
	t.Helper()
	e := &endRig{broker: connectplugin.NewCapabilityBroker("")}
	e.broker.RegisterCapability(hosttest.NewCapability(holding{derived}, "hold", "1.0.0"))
	e.Host = hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.CapabilityBroker, c.GracefulShutdownTimeout = e.broker, 4*time.Second
		c.Plugins, c.Impls = connectplugin.PluginSet{"holding": holdingPlugin{}}, map[string]any{"holding": holding{derived}}
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"api": hosttest.Allow(func(p *connectplugin.PluginPolicy) {
			p.Capabilities, p.HostPlugins = []string{"hold"}, []string{"holding"}
		})}}
	})
	e.client = e.Enrol(t, "api", nil)
	var err error
	if e.conn, err = e.client.Capability(t.Context(), "hold", ""); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *endRig) open(t *testing.T, plugin bool, opts []connect.ClientOption) *connect.ServerStreamForClient[emptypb.Empty] {
	t.Helper()
	via, base := e.conn.HTTPClient(), e.conn.BaseURL()
	if plugin {
		via, base = e.client.HTTPClient(), e.URL
	}
	stream, err := connect.NewClient[emptypb.Empty, emptypb.Empty](via, base+hold, opts...).CallServerStream(t.Context(), connect.NewRequest(&emptypb.Empty{}))
	if err != nil || !stream.Receive() {
		t.Fatalf("the stream: %v", err)
	}
	t.Cleanup(func() { _ = stream.Close() })
	return stream
}

// grantID is that of the one grant.
func (e *endRig) grantID() string {
	ids := map[string]bool{}
	for _, event := range e.Audit.Events() {
		if event.Kind == connectplugin.AuditGranted {
			ids[event.Grant] = true
		}
	}
	for id := range maps.Keys(ids) {
		return id
	}
	return ""
}

// The first call after policy took a capability says so, as the next ones do.
func TestCapabilityConn_TheFirstCallAfterPolicyTookIt(t *testing.T) {
	t.Parallel()
	e := newEndRig(t, false)
	e.broker.RegisterCapability(hosttest.LoggerCapability(&hosttest.RecordingLogger{}))
	allow := func(capabilities ...string) {
		hosttest.SetPolicy(t, e.Host, &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"api": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Capabilities = capabilities }),
		}})
	}
	allow("logger")
	conn, err := e.client.Capability(t.Context(), "logger", "")
	if err != nil {
		t.Fatal(err)
	}
	logger := loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL())
	allow()
	for call := range 3 {
		if _, err := logger.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{})); connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("call %d: %v", call, err)
		}
	}
}

// A handler finds what a server of the user's puts into the context, whatever that is.
func TestCallsThatTheHostEnds_KeepTheirContext(t *testing.T) {
	t.Parallel()
	type key struct{}
	own, cancel := context.WithCancel(t.Context())
	defer cancel()
	found := make(chan any, 1)
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { found <- r.Context().Value(key{}) })
	authority := hosttest.NewAuthority(t)
	secured, err := authority.HostTLS("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: authority, Hosts: []string{"127.0.0.1"}, Logger: hosttest.Logger(t),
		Plugins: connectplugin.PluginSet{"holding": holdingPlugin{}}, Impls: map[string]any{"holding": handler},
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"api": {HostPlugins: []string{"holding"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	l := hosttest.Listen(t)
	server := &http.Server{
		Handler: host.Handler(), TLSConfig: secured, ReadHeaderTimeout: hosttest.Wait,
		BaseContext: func(net.Listener) context.Context { return context.WithValue(context.Background(), key{}, own) },
	}
	go func() { _ = server.ServeTLS(l, "", "") }()
	at := &hosttest.Host{Host: host, Authority: authority, URL: "https://" + l.Addr().String()}
	tlsConfig, err := authority.PluginTLS("api")
	if err != nil {
		t.Fatal(err)
	}
	client := at.Enrol(t, "api", func(c *connectplugin.ClientConfig) { c.TLS, c.Secret = tlsConfig, nil })
	_, _ = connect.NewClient[emptypb.Empty, emptypb.Empty](client.HTTPClient(), at.URL+hold).CallUnary(t.Context(), connect.NewRequest(&emptypb.Empty{}))
	select {
	case got := <-found:
		if got != own {
			t.Errorf("the handler finds %v", got)
		}
	default:
		t.Error("the handler did not run")
	}
	if err := errors.Join(client.Leave(t.Context()), host.Shutdown(t.Context()), server.Shutdown(t.Context())); err != nil {
		t.Errorf("the end: %v", err)
	}
}

// below makes so many contexts of a handler's, each with a value and a deadline, says how many goroutines its part of the
// program has then, and how they ended: none is to end otherwise than the handler's own.
func below(ctx context.Context, name string, told chan<- string) {
	type key struct{}
	const label, children = "below", 100
	pprof.Do(ctx, pprof.Labels(label, name), func(under context.Context) {
		made, cancels := []context.Context{ctx}, []context.CancelFunc(nil)
		child := func(i int) (ctx context.Context) {
			ctx, cancel := context.WithTimeout(context.WithValue(under, key{}, i), hosttest.Wait)
			cancels = append(cancels, cancel)
			return ctx
		}
		for i := range children {
			made = append(made, child(i))
		}
		defer func() {
			for _, cancel := range cancels {
				cancel()
			}
		}()
		var all strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&all, 1)
		n := 0
		for group := range strings.SplitSeq(all.String(), "\n\n") {
			if strings.Contains(group, strconv.Quote(label)+":"+strconv.Quote(name)) {
				of, _, _ := strings.Cut(group, " @")
				some, _ := strconv.Atoi(strings.TrimSpace(of[strings.LastIndexByte(of, '\n')+1:]))
				n += some
			}
		}
		told <- strconv.Itoa(n)
		<-ctx.Done()
		ends := map[string]bool{}
		for _, child := range made {
			<-child.Done()
			ends[fmt.Sprint(child.Err(), "; ", context.Cause(child), "; ", errors.Is(child.Err(), context.Canceled))] = true
		}
		told <- strings.Join(slices.Collect(maps.Keys(ends)), ", ")
	})
}

// What is made of a handler's context with a value between costs no goroutine, and ends as that does.
func TestCallsThatTheHostEnds_ContextsBelowCostNoGoroutine(t *testing.T) {
	t.Parallel()
	told := make(chan string, 2)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		below(r.Context(), t.Name(), told)
	})
	broker := connectplugin.NewCapabilityBroker("")
	broker.RegisterCapability(hosttest.NewCapability(handler, "hold", "1.0.0"))
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.CapabilityBroker = broker
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"api": hosttest.Allow(func(p *connectplugin.PluginPolicy) {
			p.Capabilities = []string{"hold"}
		})}}
	})
	client := host.Enrol(t, "api", nil)
	conn, err := client.Capability(t.Context(), "hold", "")
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, conn.BaseURL()+hold, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := conn.HTTPClient().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if n := <-told; n != "1" {
		t.Errorf("%s goroutines", n)
	}
	host.Revoke(client.RuntimeID())
	const want = "unauthenticated: identity ended; unauthenticated: identity ended; true"
	if got := <-told; got != want {
		t.Errorf("they end as %s, want %s", got, want)
	}
}

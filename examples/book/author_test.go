package book_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	greeterv1 "github.com/masegraye/connect-plugin-go/examples/greeter/gen/greeter/v1"
	"github.com/masegraye/connect-plugin-go/examples/greeter/gen/greeter/v1/greeterv1connect"
	kvv1 "github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1connect"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1plugin"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// wait is how long anything may take here.
const wait = time.Minute

// bookHost is a host with an authority of its own.
type bookHost struct {
	*connectplugin.Host

	authority *connectplugin.Authority
	base      string // its base URL, where that is known before it serves
}

var errNotYours = errors.New("that key is another plugin's")

// store is what the plugin author's guide shows of a service.
type store struct {
	kvv1connect.UnimplementedKVServiceHandler

	full    atomic.Bool
	greeter greeterv1connect.GreeterServiceClient
}

// Put is what the guide shows of callers.
//
//docs:region caller
func (s *store) Put(ctx context.Context, req *kvv1.PutRequest) (*kvv1.PutResponse, error) {
	caller, ok := connectplugin.CallerFromContext(ctx)
	if !ok || caller.SelfID != req.GetKey() {
		return nil, connect.NewError(connect.CodePermissionDenied, errNotYours)
	}

	s.full.Store(true)

	return &kvv1.PutResponse{}, nil
}

//docs:end

// Get calls another plugin.
func (s *store) Get(ctx context.Context, req *kvv1.GetRequest) (*kvv1.GetResponse, error) {
	resp, err := s.greeter.Greet(ctx, &greeterv1.GreetRequest{Name: req.GetKey()})
	if err != nil {
		return nil, err
	}

	return &kvv1.GetResponse{Value: []byte(resp.GetGreeting())}, nil
}

// greeter is the plugin that is called.
type greeter struct{}

func (greeter) Greet(_ context.Context, req *greeterv1.GreetRequest) (*greeterv1.GreetResponse, error) {
	return &greeterv1.GreetResponse{Greeting: "Hello, " + req.GetName() + "!"}, nil
}

// List is what the guide shows of streams.
//
//docs:region stopping
func (s *store) List(ctx context.Context, _ *kvv1.ListRequest, stream *connect.ServerStream[kvv1.ListResponse]) error {
	if err := stream.Send(&kvv1.ListResponse{Key: "a"}); err != nil {
		return err
	}

	select {
	case <-connectplugin.Stopping(ctx): // the plugin ends: let the caller go to another one
		return connect.NewError(connect.CodeUnavailable, nil)
	case <-ctx.Done():
		return ctx.Err()
	}
}

//docs:end

// health is what the guide shows of health.
//
//docs:region health
func (s *store) health() (connectpluginv1.HealthState, string) {
	if s.full.Load() {
		return connectpluginv1.HealthState_HEALTH_STATE_DEGRADED, "there is no room left"
	}

	return connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, ""
}

//docs:end

// servePlugin is what the guide shows of a plugin with all that it can say.
func servePlugin(ctx context.Context, client connectplugin.ClientConfig, s *store) error {
	//docs:region plugin
	// What it calls: it does not start without "greeter", and is degraded while "logger" is away.
	client.Metadata.Requires = []connectplugin.ServiceDependency{
		{Type: "greeter", MinVersion: ">=1.2, <2", RequiredForStartup: true},
		{Type: "logger", WatchForChanges: true},
	}

	return connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
		Client:   client,
		Services: []connectplugin.PluginService{kvv1plugin.ProvideKVService(s)},
		Health:   s.health,
		OnConnected: func(ctx context.Context, c *connectplugin.Client) error { // before it is called for the first time
			greeter, err := c.Service(ctx, "greeter", ">=1.2, <2") // with which it calls others, for as long as it lives
			if err != nil {
				return err
			}

			s.greeter = greeterv1connect.NewGreeterServiceClient(greeter.HTTPClient(), greeter.BaseURL())

			return nil
		},
	})
	//docs:end
}

// follow is what the guide shows of watches.
func follow(ctx context.Context, client *connectplugin.Client, seen func(available bool)) error {
	//docs:region watch
	for event, err := range client.WatchService(ctx, "kv") {
		if err != nil {
			return err // refused, or ctx ended: everything else it survives
		}

		seen(event.State != connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE) // available, or degraded
	}
	//docs:end

	return nil
}

// patient is what the guide shows of repeated calls.
func patient(conn *connectplugin.ServiceConn) kvv1connect.KVServiceClient {
	//docs:region retry
	retry := connectplugin.RetryInterceptor(connectplugin.DefaultRetryPolicy())

	return kvv1connect.NewKVServiceClient(conn.HTTPClient(), conn.BaseURL(), connect.WithInterceptors(retry))
	//docs:end
}

// foreign is what the guide shows of providers in other languages.
func foreign(conn *connectplugin.ServiceConn) kvv1connect.KVServiceClient {
	//docs:region grpc
	return kvv1connect.NewKVServiceClient(conn.HTTPClient(), conn.BaseURL(), connect.WithGRPC())
	//docs:end
}

//docs:region withcaller
func TestPut_OfAnothersKey(t *testing.T) {
	t.Parallel()

	mux := http.NewServeMux()
	mux.Handle(kvv1connect.NewKVServiceHandler(&store{}))

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller := connectplugin.Caller{RuntimeID: "app-1", SelfID: "app"}
		mux.ServeHTTP(w, r.WithContext(connectplugin.WithCaller(r.Context(), caller)))
	}))
	defer server.Close()

	kv := kvv1connect.NewKVServiceClient(server.Client(), server.URL)
	if _, err := kv.Put(t.Context(), &kvv1.PutRequest{Key: "store"}); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Error("another's key:", err)
	}
}

//docs:end

// startHost is what the guide shows of a host for a test: it is there when it returns, and ends with the test.
//
//docs:region testhost
func startHost(t *testing.T, policy *connectplugin.Policy) (url string, authority *connectplugin.Authority) {
	t.Helper()

	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{}) // in memory
	if err != nil {
		t.Fatal(err)
	}

	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{Authority: authority, Policy: policy, Logger: slog.Default()})
	if err != nil {
		t.Fatal(err)
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0") // who comes before the host serves waits here
	if err != nil {
		t.Fatal(err)
	}

	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- host.Serve(ctx, listener) }()

	t.Cleanup(func() { // after that of the plugins, which come later
		stop()

		if err := <-served; err != nil {
			t.Error(err)
		}
	})

	return "https://" + listener.Addr().String(), authority
}

//docs:end

func TestAuthor(t *testing.T) {
	t.Parallel()

	requires := []string{"greeter", "logger", "kv"}
	url, authority := startHost(t, &connectplugin.Policy{
		Plugins: map[string]connectplugin.PluginPolicy{
			"store":   {Provides: []string{"kv"}, Requires: requires, AllowOwnAddress: true},
			"greeter": {Provides: []string{"greeter"}, AllowOwnAddress: true},
			"app":     {Requires: requires},
		},
	})
	h := &bookHost{authority: authority, base: url}

	stop := run(t, func(ctx context.Context) error { return servePlugin(ctx, h.config(t, "store"), &store{}) })
	run(t, func(ctx context.Context) error {
		path, handler := greeterv1connect.NewGreeterServiceHandler(greeter{})

		return connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
			Client:   h.config(t, "greeter"),
			Services: []connectplugin.PluginService{{Type: "greeter", Version: "1.2.0", Path: path, Handler: handler}},
		})
	})

	cfg := h.config(t, "app")
	cfg.Metadata.Requires = []connectplugin.ServiceDependency{{Type: "kv"}}

	app, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = app.Close() })

	if err := app.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}

	await(t, app, true)

	conn, err := app.Service(t.Context(), "kv", "1")
	if err != nil {
		t.Fatal(err)
	}

	if _, err := foreign(conn).Put(t.Context(), &kvv1.PutRequest{Key: "app"}); err != nil {
		t.Error("in gRPC:", err)
	}

	use(t, patient(conn), stop)
	await(t, app, false)
}

// use calls the store, and ends it while it streams.
func use(t *testing.T, kv kvv1connect.KVServiceClient, stop func()) {
	t.Helper()

	if _, err := kv.Put(t.Context(), &kvv1.PutRequest{Key: "app"}); err != nil {
		t.Error(err)
	}

	if _, err := kv.Put(t.Context(), &kvv1.PutRequest{Key: "store"}); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Error("another's key:", err)
	}

	if got, err := kv.Get(t.Context(), &kvv1.GetRequest{Key: "Ada"}); err != nil || string(got.GetValue()) != "Hello, Ada!" {
		t.Error("through another plugin:", got, err)
	}

	stream, err := kv.List(t.Context(), &kvv1.ListRequest{})
	if err != nil || !stream.Receive() {
		t.Fatal("no stream:", err)
	}

	stop()

	if stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodeUnavailable {
		t.Error("at the end of the plugin:", stream.Err())
	}

	_ = stream.Close()
}

// await waits until the service "kv" is there, or is not.
func await(t *testing.T, client *connectplugin.Client, available bool) {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()

	last := !available
	err := follow(ctx, client, func(now bool) {
		if last = now; last == available {
			cancel()
		}
	})

	if last != available {
		t.Fatalf("kv is available: %t, %v", last, err)
	}
}

// config is what a plugin reaches the host with.
func (h *bookHost) config(t *testing.T, selfID string) connectplugin.ClientConfig {
	t.Helper()

	tls, err := h.authority.PluginTLS(selfID)
	if err != nil {
		t.Fatal(err)
	}

	return connectplugin.ClientConfig{HostURL: h.url(t), SelfID: selfID, TLS: tls}
}

// run runs what ends with its context, and ends it with the test.
func run(t *testing.T, serve func(ctx context.Context) error) (stop func()) {
	t.Helper()

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})

	go func() {
		defer close(done)

		if err := serve(ctx); err != nil {
			t.Error(err)
		}
	}()

	t.Cleanup(func() {
		cancel()
		<-done
	})

	return cancel
}

func newHost(t *testing.T, cfg *connectplugin.ServeConfig) *bookHost {
	t.Helper()

	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{})
	if err != nil {
		t.Fatal(err)
	}

	cfg.Authority = authority

	host, err := connectplugin.NewHost(cfg)
	if err != nil {
		t.Fatal(err)
	}

	return &bookHost{Host: host, authority: authority}
}

// url returns the host's base URL, once it listens.
func (h *bookHost) url(t *testing.T) string {
	t.Helper()

	if h.base != "" {
		return h.base
	}

	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()

	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()

	for h.Addr() == "" {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the host does not listen")
		}
	}

	return "https://" + h.Addr()
}

package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// asking is a discovery that does what a test says.
type asking struct {
	connectplugin.StaticDiscovery

	ask func() ([]connectplugin.Endpoint, error)
}

// Discover implements connectplugin.DiscoveryService.
func (a *asking) Discover(context.Context, string) ([]connectplugin.Endpoint, error) { return a.ask() }

// sending is an HTTP client that does what a test says.
type sending func(*http.Request) (*http.Response, error)

// Do implements connect.HTTPClient.
func (s sending) Do(r *http.Request) (*http.Response, error) { return s(r) }

// around is an interceptor that does what a test says.
type around struct {
	unary  func()                             // before each unary call
	stream func() connect.StreamingClientConn // in the place of each stream; nil for the stream itself
	wrap   func()                             // when it is put around a call
}

func (a around) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	if a.wrap != nil {
		a.wrap()
	}
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if a.unary != nil {
			a.unary()
		}
		return next(ctx, req)
	}
}

func (a around) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	if a.stream == nil {
		return next
	}
	return func(context.Context, connect.Spec) connect.StreamingClientConn { return a.stream() }
}

func (a around) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// panicking is a stream whose every method panics but those that say what it is.
type panicking struct{ connect.StreamingClientConn }

func (panicking) RequestHeader() http.Header { return http.Header{} }
func (panicking) Spec() connect.Spec         { return connect.Spec{} }
func (panicking) Peer() connect.Peer         { return connect.Peer{} }
func (panicking) Send(any) error             { panic("boom") }
func (panicking) CloseRequest() error        { panic("boom") }

// A panic of what a client calls of the user's is the error of the call, and names it. It ended the process.
func TestPanicOfWhatAClientCalls(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	boom := func() { panic("boom") }
	for name, tt := range map[string]struct {
		edit func(*connectplugin.ClientConfig)
		want string
	}{
		"Discovery": {func(c *connectplugin.ClientConfig) {
			c.HostURL, c.Discovery = "", &asking{ask: func() ([]connectplugin.Endpoint, error) { panic("boom") }}
		}, "ClientConfig.Discovery: Discover panicked: boom (at guest_test.go:"},
		"HTTPClient": {func(c *connectplugin.ClientConfig) {
			c.TLS, c.HTTPClient = nil, sending(func(*http.Request) (*http.Response, error) { panic("boom") })
		}, "ClientConfig.HTTPClient panicked: boom"},
		"HTTPClient without an answer": {func(c *connectplugin.ClientConfig) {
			c.TLS, c.HTTPClient = nil, sending(func(*http.Request) (*http.Response, error) {
				return nil, nil //nolint:nilnil // the fault
			})
		}, "ClientConfig.HTTPClient returned neither a response nor an error"},
		"an interceptor": {func(c *connectplugin.ClientConfig) {
			c.Interceptors = []connect.Interceptor{around{}, around{unary: boom}}
		}, "ClientConfig.Interceptors[1] panicked: boom"},
		"an interceptor that is put around": {func(c *connectplugin.ClientConfig) {
			c.Interceptors = []connect.Interceptor{around{wrap: boom}}
		}, "ClientConfig.Interceptors[0] panicked: boom"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := host.ClientConfig(t, "logger")
			tt.edit(&cfg)
			c, err := connectplugin.NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			if err := c.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// A panic of an interceptor's stream is the error of the watch, in a goroutine that is not the caller's.
func TestPanicOfAnInterceptorOfStreams(t *testing.T) {
	t.Parallel()
	policy := hosttest.LoggerPolicy()
	rules := policy.Plugins["logger"]
	rules.Requires = []string{"logger"}
	policy.Plugins["logger"] = rules
	host := hosttest.Start(t, hosttest.WithPolicy(policy))
	for name, stream := range map[string]func() connect.StreamingClientConn{
		"makes none": func() connect.StreamingClientConn { return nil },
		"panics":     func() connect.StreamingClientConn { panic("boom") },
		"its stream": func() connect.StreamingClientConn { return panicking{} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := host.ClientConfig(t, "logger")
			cfg.Metadata.Requires = []connectplugin.ServiceDependency{{Type: "logger"}}
			cfg.Interceptors = []connect.Interceptor{around{stream: stream}}
			c, err := connectplugin.NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if conn, err := c.Service(ctx, "logger", ""); err == nil {
				conn.Close()
				t.Error("the watch works")
			}
		})
	}
}

// A call whose context ends has the code of that. Code of the user's is blamed for it where it does not heed the context, and not
// where it does.
func TestCodeThatHeedsItsContext(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	cfg := host.ClientConfig(t, "logger")
	foreign := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg.TLS, ForceAttemptHTTP2: true}}
	defer foreign.CloseIdleConnections()
	gate, blocks := make(chan struct{}), new(atomic.Bool)
	cfg.Interceptors = []connect.Interceptor{around{unary: func() {
		if blocks.Load() {
			<-gate
		}
	}}}
	cfg.TLS, cfg.HTTPClient = nil, sending(func(r *http.Request) (*http.Response, error) {
		if strings.HasSuffix(r.URL.Path, "/ReportHealth") {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		return foreign.Do(r)
	})
	c, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, blamed := range []bool{false, true} {
		blocks.Store(blamed)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err := c.ReportHealth(ctx, connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil)
		cancel()
		if connect.CodeOf(err) != connect.CodeDeadlineExceeded || strings.Contains(err.Error(), "ClientConfig.Interceptors[0] has not returned") != blamed {
			t.Errorf("blamed %t: got %v", blamed, err)
		}
	}
	blocks.Store(false)
	close(gate)
}

// Close waits for nothing of the user's that does not return.
func TestCloseWhileTheUsersCodeBlocks(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	for name, edit := range map[string]func(c *connectplugin.ClientConfig, block func()){
		"Discovery": func(c *connectplugin.ClientConfig, block func()) {
			c.HostURL, c.Discovery = "", &asking{ask: func() ([]connectplugin.Endpoint, error) { block(); return nil, io.EOF }}
		},
		"HTTPClient": func(c *connectplugin.ClientConfig, block func()) {
			c.TLS, c.HTTPClient = nil, sending(func(*http.Request) (*http.Response, error) { block(); return nil, io.EOF })
		},
		"an interceptor": func(c *connectplugin.ClientConfig, block func()) {
			c.Interceptors = []connect.Interceptor{around{unary: block}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began, gate, over := make(chan struct{}), make(chan struct{}), make(chan struct{})
			cfg := host.ClientConfig(t, "logger")
			edit(&cfg, func() {
				close(began)
				<-gate
				close(over)
			})
			c, err := connectplugin.NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			failed := make(chan error, 1)
			go func() { failed <- c.Connect(t.Context()) }()
			<-began
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if err := <-failed; !errors.Is(err, connectplugin.ErrClientClosed) {
				t.Errorf("got %v", err)
			}
			close(gate)
			<-over
		})
	}
}

// A Client that NewClient did not make says so.
func TestClientThatWasNotMade(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for name, use := range map[string]func(c *connectplugin.Client) error{
		"Connect": func(c *connectplugin.Client) error { return c.Connect(ctx) },
		"Leave":   func(c *connectplugin.Client) error { return c.Leave(ctx) },
		"ReportHealth": func(c *connectplugin.Client) error {
			return c.ReportHealth(ctx, connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil)
		},
		"Dispense":   func(c *connectplugin.Client) error { _, err := c.Dispense("logger"); return err },
		"Service":    func(c *connectplugin.Client) error { _, err := c.Service(ctx, "logger", ""); return err },
		"Provider":   func(c *connectplugin.Client) error { _, err := c.Provider(ctx, "logger", "id"); return err },
		"Capability": func(c *connectplugin.Client) error { _, err := c.Capability(ctx, "logger", ""); return err },
		"WatchService": func(c *connectplugin.Client) error {
			for _, err := range c.WatchService(ctx, "logger") {
				return err
			}
			return nil
		},
		"RegistryClient": func(c *connectplugin.Client) error {
			_, err := c.RegistryClient().DiscoverService(ctx, connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{}))
			return err
		},
		"HTTPClient": func(c *connectplugin.Client) error {
			r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://host.example", http.NoBody)
			resp, err := c.HTTPClient().Do(r)
			if err == nil {
				_ = resp.Body.Close()
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &connectplugin.Client{}
			if err := use(c); !errors.Is(err, connectplugin.ErrClientNotConnected) || !strings.Contains(err.Error(), "NewClient") {
				t.Errorf("got %v", err)
			}
			c.SetRuntimeIdentity("id", "token", "https://host.example")
			_, _, _ = c.Config(), c.RuntimeID(), c.Warnings()
			if err := errors.Join(c.Close(), c.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// What holds a nil pointer is refused with the name of its field.
func TestClientConfigWithNilPointers(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*connectplugin.ClientConfig){
		"HTTPClient":      func(c *connectplugin.ClientConfig) { c.HTTPClient = (*http.Client)(nil) },
		"Discovery":       func(c *connectplugin.ClientConfig) { c.Discovery = (*asking)(nil) },
		"Interceptors[1]": func(c *connectplugin.ClientConfig) { c.Interceptors = []connect.Interceptor{around{}, nil} },
		"Interceptors[0]": func(c *connectplugin.ClientConfig) {
			c.Interceptors = []connect.Interceptor{connect.UnaryInterceptorFunc(nil)}
		},
	} {
		cfg := connectplugin.ClientConfig{HostURL: "https://host.example"}
		edit(&cfg)
		if _, err := connectplugin.NewClient(cfg); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), name+": ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

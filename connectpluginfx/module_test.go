package connectpluginfx_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/fx"
	"go.uber.org/fx/fxtest"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/connectpluginfx"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	"github.com/masegraye/connect-plugin-go/gen/loggerv1plugin"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// logger counts what it is told.
type logger struct{ entries atomic.Int64 }

func (l *logger) Log(context.Context, *connect.Request[loggerv1.LogRequest]) (*connect.Response[loggerv1.LogResponse], error) {
	l.entries.Add(1)
	return connect.NewResponse(&loggerv1.LogResponse{}), nil
}

var plugins = connectplugin.PluginSet{loggerv1plugin.LoggerType: &loggerv1plugin.LoggerPlugin{}}

// startHost starts a host with a logger of its own.
func startHost(t *testing.T, edit func(*connectplugin.ServeConfig)) (*hosttest.Host, *logger) {
	t.Helper()
	impl := &logger{}
	return hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Plugins, c.Impls = plugins, map[string]any{loggerv1plugin.LoggerType: impl}
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"app":      hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.HostPlugins = []string{loggerv1plugin.LoggerType} }),
			"stranger": hosttest.Allow(nil),
		}}
		if edit != nil {
			edit(c)
		}
	}), impl
}

func config(t *testing.T, h *hosttest.Host) connectplugin.ClientConfig {
	t.Helper()
	cfg := h.ClientConfig(t, "app")
	cfg.Plugins = plugins
	return cfg
}

// recorded counts the events of a kind in the host's audit.
func recorded(h *hosttest.Host, kind connectplugin.AuditKind) int {
	n := 0
	for _, e := range h.Audit.Events() {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

func TestTypedPlugin(t *testing.T) {
	t.Parallel()
	host, impl := startHost(t, nil)
	var client *connectplugin.Client
	var typed loggerv1connect.LoggerClient
	app := fxtest.New(t,
		connectpluginfx.PluginModule(config(t, host)),
		connectpluginfx.ProvideTypedPlugin[loggerv1connect.LoggerClient](loggerv1plugin.LoggerType),
		fx.Populate(&client, &typed),
	)
	if _, err := typed.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{})); !errors.Is(err, connectplugin.ErrClientNotConnected) {
		t.Errorf("call before the start: %v", err)
	}
	app.RequireStart()
	if client.RuntimeID() == "" {
		t.Error("the client has no identity")
	}
	if _, err := typed.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{})); err != nil || impl.entries.Load() != 1 {
		t.Errorf("call: %v, the host's logger has %d entries", err, impl.entries.Load())
	}
	app.RequireStop()
	if recorded(host, connectplugin.AuditEnded) != 1 {
		t.Error("the identity was not given back")
	}
	if err := client.Connect(t.Context()); !errors.Is(err, connectplugin.ErrClientClosed) {
		t.Errorf("connect after the stop: %v", err)
	}
}

// A client that nobody asks for connects too.
func TestModuleAlone(t *testing.T) {
	t.Parallel()
	host, _ := startHost(t, nil)
	app := fxtest.New(t, connectpluginfx.PluginModule(config(t, host)))
	app.RequireStart()
	app.RequireStop()
	if recorded(host, connectplugin.AuditEnded) != 1 {
		t.Error("no identity came and went")
	}
}

func TestDiscovery(t *testing.T) {
	t.Parallel()
	host, impl := startHost(t, nil)
	cfg := config(t, host)
	cfg.Discovery = connectplugin.NewStaticDiscovery(map[string][]connectplugin.Endpoint{"plugin-host": {{URL: cfg.HostURL}}})
	cfg.HostURL = ""
	app := fxtest.New(t,
		connectpluginfx.PluginModule(cfg),
		connectpluginfx.ProvideTypedPlugin[loggerv1connect.LoggerClient](loggerv1plugin.LoggerType),
		fx.Invoke(func(lc fx.Lifecycle, l loggerv1connect.LoggerClient) {
			lc.Append(fx.Hook{OnStart: func(ctx context.Context) error {
				_, err := l.Log(ctx, connect.NewRequest(&loggerv1.LogRequest{}))
				return err
			}})
		}),
	)
	app.RequireStart()
	app.RequireStop()
	if impl.entries.Load() != 1 || recorded(host, connectplugin.AuditEnded) != 1 {
		t.Errorf("%d entries, %d identities ended", impl.entries.Load(), recorded(host, connectplugin.AuditEnded))
	}
}

// A client that was injected goes along to the host that discovery has when the first one has ended.
func TestDiscovery_InjectedClientsFollowTheHost(t *testing.T) {
	t.Parallel()
	first, _ := startHost(t, nil)
	second, impl := startHost(t, func(c *connectplugin.ServeConfig) { c.Authority = first.Authority })
	cfg := config(t, first)
	cfg.HostURL, cfg.Discovery = "", connectplugin.NewStaticDiscovery(map[string][]connectplugin.Endpoint{
		"plugin-host": {{URL: first.URL}, {URL: second.URL}},
	})
	var client *connectplugin.Client
	var typed loggerv1connect.LoggerClient
	app := fxtest.New(t,
		connectpluginfx.PluginModule(cfg),
		connectpluginfx.ProvideTypedPlugin[loggerv1connect.LoggerClient](loggerv1plugin.LoggerType),
		fx.Populate(&client, &typed),
	)
	app.RequireStart()
	if _, err := typed.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{})); err != nil || impl.entries.Load() != 0 {
		t.Fatalf("%v, and %d entries at the second host", err, impl.entries.Load())
	}
	if err := first.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	hosttest.Eventually(t, "the client is at the second host", func() bool {
		return client.Connect(t.Context()) == nil && client.Config().Endpoint == second.URL
	})
	if _, err := typed.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{})); err != nil || impl.entries.Load() != 1 {
		t.Errorf("%v, and %d entries at the second host", err, impl.entries.Load())
	}
	app.RequireStop()
}

func TestWhatCannotBeBuilt(t *testing.T) {
	t.Parallel()
	valid := connectplugin.ClientConfig{HostURL: "https://127.0.0.1:1", Plugins: plugins}
	for name, tt := range map[string]struct {
		options []fx.Option
		is      error
		says    string
	}{
		"configuration": {
			options: []fx.Option{connectpluginfx.PluginModule(connectplugin.ClientConfig{HostURL: "http://127.0.0.1:1"})},
			is:      connectplugin.ErrInvalidConfig, says: "HostURL",
		},
		"name": {
			options: []fx.Option{
				connectpluginfx.PluginModule(valid),
				connectpluginfx.ProvideTypedPlugin[loggerv1connect.LoggerClient]("lager"),
				fx.Invoke(func(loggerv1connect.LoggerClient) {}),
			},
			is: connectplugin.ErrPluginNotFound, says: `"lager"`,
		},
		"type": {
			options: []fx.Option{
				connectpluginfx.PluginModule(valid),
				connectpluginfx.ProvideTypedPlugin[net.Conn](loggerv1plugin.LoggerType),
				fx.Invoke(func(net.Conn) {}),
			},
			says: "not a net.Conn",
		},
		"no module": {
			options: []fx.Option{
				connectpluginfx.ProvideTypedPlugin[loggerv1connect.LoggerClient](loggerv1plugin.LoggerType),
				fx.Invoke(func(loggerv1connect.LoggerClient) {}),
			},
			says: "missing type",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := fx.New(append(tt.options, fx.NopLogger)...).Err()
			if err == nil || !strings.Contains(err.Error(), tt.says) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// What the host refuses ends the start at once; what it does not offer, too.
func TestStartIsRefused(t *testing.T) {
	t.Parallel()
	host, _ := startHost(t, nil)
	for name, tt := range map[string]struct {
		edit func(*connectplugin.ClientConfig)
		is   error
	}{
		"unknown":     {func(c *connectplugin.ClientConfig) { c.SelfID = "nobody" }, connectplugin.ErrHandshakeRefused},
		"not offered": {func(c *connectplugin.ClientConfig) { c.SelfID = "stranger" }, connectplugin.ErrPluginNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, host)
			tt.edit(&cfg)
			app := fx.New(
				connectpluginfx.PluginModule(cfg), fx.NopLogger,
				connectpluginfx.ProvideTypedPlugin[loggerv1connect.LoggerClient](loggerv1plugin.LoggerType),
				fx.Invoke(func(loggerv1connect.LoggerClient) {}),
			)
			if err := app.Start(t.Context()); !errors.Is(err, tt.is) {
				t.Errorf("start: %v", err)
			}
		})
	}
}

// The start waits for a host that is not there, as long as its context lives.
func TestStartWaitsForTheHost(t *testing.T) {
	t.Parallel()
	l := hosttest.Listen(t) // accepts nothing: whoever connects waits
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	app := fx.New(fx.NopLogger, connectpluginfx.PluginModule(connectplugin.ClientConfig{HostURL: "https://" + l.Addr().String()}))
	if err := app.Start(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("start without a host: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}

	host, _ := startHost(t, nil)
	refusing := atomic.Int64{}
	cfg := config(t, host)
	tlsConfig := cfg.TLS
	cfg.TLS = nil
	cfg.HTTPClient = refuseFirst{hosttest.HTTPClient(t, tlsConfig), &refusing}
	late := fxtest.New(t, connectpluginfx.PluginModule(cfg))
	late.RequireStart()
	late.RequireStop()
	if n := refusing.Load(); n < 3 {
		t.Errorf("connected at attempt %d", n)
	}
}

// The stop ends with its context, however long the host takes to answer.
func TestStopHonoursItsContext(t *testing.T) {
	t.Parallel()
	host, _ := startHost(t, nil)
	var stuck atomic.Int64
	cfg := config(t, host)
	tlsConfig := cfg.TLS
	cfg.TLS, cfg.Timeout = nil, time.Hour
	cfg.HTTPClient = hangLater{hosttest.HTTPClient(t, tlsConfig), &stuck}
	var client *connectplugin.Client
	app := fx.New(fx.NopLogger, connectpluginfx.PluginModule(cfg), fx.Populate(&client))
	if err := app.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	stuck.Store(1)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := app.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stop: %v", err)
	}
	// fx leaves a hook alone that takes longer. This one has ended.
	hosttest.Eventually(t, "the client is closed", func() bool {
		return errors.Is(client.Connect(t.Context()), connectplugin.ErrClientClosed)
	})
}

// fx calls no hook once the time of the stop is over; those of what was started before the
// client are called, also where the host does not answer any more.
func TestStopLeavesTimeToOthers(t *testing.T) {
	t.Parallel()
	wire.InBubble(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"app": hosttest.Allow(nil)}}
	}, func(t *testing.T, h *wire.BubbleHost) {
		t.Helper()
		var stuck atomic.Int64
		var left time.Duration
		before := fx.Module("before", fx.Invoke(func(lc fx.Lifecycle) {
			lc.Append(fx.StopHook(func(ctx context.Context) {
				end, _ := ctx.Deadline()
				left = time.Until(end)
			}))
		}))
		app := fx.New(fx.NopLogger, before, connectpluginfx.PluginModule(connectplugin.ClientConfig{
			HostURL: wire.BubbleURL, SelfID: "app", Secret: hosttest.Secret, HTTPClient: hangLater{h.HTTPClient(t), &stuck},
		}))
		if err := app.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		stuck.Store(1)
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		if err := app.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stop: %v", err)
		}
		if left != 4*time.Second {
			t.Errorf("left for what was started before: %v of 8s", left)
		}
	})
}

// An application that did not start, with its handshake on the way, leaves no plugin at the host.
func TestWhatDoesNotStartLeavesNothing(t *testing.T) {
	t.Parallel()
	asked, answer, answered := make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	host, _ := startHost(t, func(c *connectplugin.ServeConfig) {
		c.Interceptors = []connect.Interceptor{connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
			return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
				if strings.HasSuffix(r.Spec().Procedure, "/Handshake") {
					asked <- struct{}{}
					select {
					case <-answer:
					case <-ctx.Done(): // the client has gone
					}
					defer close(answered)
				}
				return next(ctx, r)
			}
		})}
	})
	var client *connectplugin.Client
	app := fx.New(fx.NopLogger, connectpluginfx.PluginModule(config(t, host)), fx.Populate(&client))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if err := app.Start(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("start: %v", err)
	}
	if err := client.Connect(t.Context()); !errors.Is(err, connectplugin.ErrClientClosed) {
		t.Errorf("connect after a start that failed: %v", err)
	}
	select {
	case <-answered:
	case <-time.After(time.Minute):
		close(answer)
		<-answered
	}
	hosttest.Eventually(t, "nobody is at the host", func() bool { return host.Usage().Identities == 0 })
}

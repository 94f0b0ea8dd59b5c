package client_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// A plugin whose OnConnected does not return says that it waits for it, and ends when it is told to: with its context, and
// whether or not the code heeds that.
func TestServePlugin_OnConnectedHoldsUpNoEnd(t *testing.T) {
	t.Parallel()
	for name, heeds := range map[string]bool{"it heeds its context": true, "it heeds nothing": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				log, forever := new(hosttest.Buffer), make(chan struct{})
				defer close(forever)
				ctx, end := context.WithTimeout(t.Context(), 20*time.Second)
				defer end()
				began, after := time.Now(), 5*time.Second // what leaving may take, too
				err := connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
					Listener: &nobodyKnocks{done: make(chan struct{})},
					Client: connectplugin.ClientConfig{
						HostURL: "http://127.0.0.1", SelfID: "api", HTTPClient: &pouring{}, AllowInsecure: true, ProtocolVersion: 2,
						Logger: slog.New(slog.NewTextHandler(log, nil)),
					},
					OnConnected: func(ctx context.Context, _ *connectplugin.Client) error {
						if heeds {
							<-ctx.Done()
							return ctx.Err()
						}
						<-forever
						return nil
					},
				})
				if took := time.Since(began); err != nil || took > 20*time.Second+after {
					t.Errorf("it ended after %v: %v", took, err)
				}
				said := log.String()
				if !strings.Contains(said, "PluginServerConfig.OnConnected has not returned for 10s") {
					t.Errorf("it does not say what it waits for: %s", said)
				}
				if ends := strings.Contains(said, "the plugin ends without waiting for it"); ends == heeds {
					t.Errorf("that it does not wait for it: %v", ends)
				}
			})
		})
	}
}

// ServePlugin returns nil where the calls in flight ended in time, and an error that says so where they had to be cut off.
func TestServePlugin_SaysThatCallsWereCutOff(t *testing.T) {
	t.Parallel()
	for name, heeds := range map[string]bool{"the call ends when it should": true, "it heeds nothing": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, hosttest.WithPolicy(echo.Policy()))
			tls, err := host.Authority.PluginTLS("provider")
			if err != nil {
				t.Fatal(err)
			}
			entered, forever := make(chan struct{}, 1), make(chan struct{})
			defer close(forever)
			cfg := &connectplugin.PluginServerConfig{
				Client: host.ClientConfig(t, "provider"), GracefulShutdownTimeout: hosttest.Moment,
				Services: []connectplugin.PluginService{{
					Type: echo.Type, Version: "1.0.0", Path: echo.Base, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
						entered <- struct{}{}
						if heeds {
							<-connectplugin.Stopping(r.Context())
							return
						}
						<-forever
					}),
				}},
			}
			cfg.Client.TLS = tls
			if heeds {
				cfg.GracefulShutdownTimeout = hosttest.Wait
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			served := make(chan error, 1)
			go func() { served <- connectplugin.ServePlugin(ctx, cfg) }()
			c := host.Enrol(t, "caller", hosttest.Requiring(echo.Type))
			conn, err := c.Service(t.Context(), echo.Type, "")
			if err != nil {
				t.Fatal(err)
			}
			hosttest.Eventually(t, "it is provided", func() bool { return conn.State() == hosttest.Available })
			called := make(chan struct{})
			go func() {
				defer close(called)
				_ = echo.CallUnary(t.Context(), conn, nil, nil)
			}()
			hosttest.Arrival(t, entered)
			cancel()
			err = hosttest.Arrival(t, served)
			if cut := err != nil && strings.Contains(err.Error(), "calls in flight were cut off"); cut == heeds || heeds && err != nil {
				t.Errorf("ServePlugin returned %v", err)
			}
			<-called
		})
	}
}

// A plugin that ends by itself while it follows what it requires returns, whatever ended it: a process that hangs there is
// started again by nobody.
func TestServePlugin_EndsByItselfWhileItWatches(t *testing.T) {
	t.Parallel()
	errOwn := errors.New("no database")
	for name, c := range map[string]struct {
		edit func(*connectplugin.PluginServerConfig)
		once func(*hosttest.Host) // it is connected
		want error
	}{
		"OnConnected fails": {
			edit: func(c *connectplugin.PluginServerConfig) {
				c.OnConnected = func(context.Context, *connectplugin.Client) error { return errOwn }
			},
			want: errOwn,
		},
		"it may not provide": {
			edit: func(c *connectplugin.PluginServerConfig) { c.Services[0].Type = "other" },
			want: connectplugin.ErrHandshakeRefused,
		},
		"its type is taken": {
			edit: func(c *connectplugin.PluginServerConfig) { c.Services[0].Type = "taken" },
			want: connectplugin.ErrServiceTaken,
		},
		"it is revoked": {
			once: func(h *hosttest.Host) { h.RevokeSelf("one") },
			want: connectplugin.ErrHandshakeRefused,
		},
	} {
		for _, how := range []connectplugin.ServiceDependency{
			{Type: "needed", WatchForChanges: true}, {Type: "needed", RequiredForStartup: true},
		} {
			t.Run(fmt.Sprintf("%s, required for its start %t", name, how.RequiredForStartup), func(t *testing.T) {
				t.Parallel()
				host := hosttest.Start(t, hosttest.WithPolicy(&connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
					"one": hosttest.Allow(func(p *connectplugin.PluginPolicy) {
						p.Provides, p.Requires = []string{"own", "taken"}, []string{"needed"}
					}),
					"two": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = []string{"taken", "needed"} }),
				}}))
				host.StartPlugin(t, "two", func(c *connectplugin.PluginServerConfig) { c.Services = servicesOf("taken", "needed") })
				tlsConfig, err := host.Authority.PluginTLS("one")
				if err != nil {
					t.Fatal(err)
				}
				cfg := &connectplugin.PluginServerConfig{Client: host.ClientConfig(t, "one"), Services: servicesOf("own"), HealthInterval: 10 * time.Millisecond}
				cfg.Client.TLS, cfg.Client.Metadata.Requires = tlsConfig, []connectplugin.ServiceDependency{how}
				if c.edit != nil {
					c.edit(cfg)
				}
				served := make(chan error, 1)
				go func() { served <- connectplugin.ServePlugin(t.Context(), cfg) }()
				if c.once != nil {
					hosttest.Eventually(t, "it serves", func() bool { return len(host.Registry().GetAllProviders("own")) > 0 })
					c.once(host)
				}
				if err := hosttest.Arrival(t, served); !errors.Is(err, c.want) {
					t.Errorf("ServePlugin returned %v, want %v", err, c.want)
				}
			})
		}
	}
}

// servicesOf are services that serve nothing, one of each type.
func servicesOf(types ...string) []connectplugin.PluginService {
	var out []connectplugin.PluginService
	for _, of := range types {
		out = append(out, connectplugin.PluginService{Type: of, Version: "1.0.0", Path: "/" + of + "/", Handler: http.NotFoundHandler()})
	}
	return out
}

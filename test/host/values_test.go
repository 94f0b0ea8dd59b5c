package host_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// What nobody can mean is refused with the name of its field: durations that end before they are of use, nil pointers,
// names without letters.
func TestServeConfigThatNobodyCanMean(t *testing.T) {
	t.Parallel()
	for field, edit := range map[string]func(*connectplugin.ServeConfig){
		"RuntimeTokenTTL: 1ns is too short; write 1s or more": func(c *connectplugin.ServeConfig) { c.RuntimeTokenTTL = 1 },
		"CapabilityGrantTTL: 1ms is too short":                func(c *connectplugin.ServeConfig) { c.CapabilityGrantTTL = time.Millisecond },
		"HealthProbe.Interval: 1ns is too short; write 10ms":  func(c *connectplugin.ServeConfig) { c.HealthProbe.Interval = 1 },
		"GracefulShutdownTimeout: 30ns is too short; write 1ms or more, or 0 for the default (a bare number counts nanoseconds: write 30 * time.Second)": func(c *connectplugin.ServeConfig) {
			c.GracefulShutdownTimeout = 30
		},
		"HealthProbe.Timeout: 3ns is too short; write 1ms or more": func(c *connectplugin.ServeConfig) { c.HealthProbe.Timeout = 3 },
		"HandshakeAuth.MaxClockSkew: 2ns is too short; write 1ms":  func(c *connectplugin.ServeConfig) { c.HandshakeAuth.MaxClockSkew = 2 },
		"Limits.KeepAliveTimeout: 10ns is too short; write 1µs":    func(c *connectplugin.ServeConfig) { c.Limits.KeepAliveTimeout = 10 },
		"Metrics: holds a nil pointer; write nil itself": func(c *connectplugin.ServeConfig) {
			c.MetricsAddr, c.Metrics = "127.0.0.1:0", (*http.ServeMux)(nil)
		},
		"MagicCookieValue: has 257 bytes, and a handshake takes 256": func(c *connectplugin.ServeConfig) { c.MagicCookieValue = strings.Repeat("x", 257) },
		`Hosts[0]: "bücher.example" has other letters than those of ASCII`: func(c *connectplugin.ServeConfig) {
			c.Hosts = []string{"bücher.example"}
		},
		`AuthProviders[0]: accepts nobody: no request has a header named "X API Key"`: func(c *connectplugin.ServeConfig) {
			c.AuthProviders = []connectplugin.AuthProvider{&connectplugin.TokenAuth{Token: "a-token", Header: "X API Key"}}
		},
		"RateLimiter: holds a nil pointer": func(c *connectplugin.ServeConfig) { c.RateLimiter = (*connectplugin.TokenBucketLimiter)(nil) },
		`Policy.Plugins["x"].HostPlugins[0]: is empty; write a nam`: func(c *connectplugin.ServeConfig) {
			c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"x": {HostPlugins: []string{""}}}}
		},
	} {
		cfg := &connectplugin.ServeConfig{Authority: hosttest.NewAuthority(t)}
		edit(cfg)
		if _, err := connectplugin.NewHost(cfg); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), field) {
			t.Errorf("got %v, want %q", err, field)
		}
	}
}

// The same of a plugin: a handler that is a nil pointer, and a path that no host passes calls on to.
func TestPluginServerConfigThatNobodyCanMean(t *testing.T) {
	t.Parallel()
	for field, edit := range map[string]func(*connectplugin.PluginServerConfig){
		"Services[0].Path: \"/connectplugin.v1.PluginControl/\" is one of this library's own services": func(c *connectplugin.PluginServerConfig) {
			c.Services[0].Path = "/connectplugin.v1.PluginControl/"
		},
		"Services[0]: needs Path and Handler":                            func(c *connectplugin.PluginServerConfig) { c.Services[0].Handler = (*http.ServeMux)(nil) },
		"HealthInterval: 1ns is too short":                               func(c *connectplugin.PluginServerConfig) { c.HealthInterval = 1 },
		"GracefulShutdownTimeout: 10ns is too short; write 1ms or more":  func(c *connectplugin.PluginServerConfig) { c.GracefulShutdownTimeout = 10 },
		`HostURL: is no URL; write for example "https://127.0.0.1:8443"`: func(c *connectplugin.PluginServerConfig) { c.Client.HostURL = "localhost:8443" },
		"Timeout: 10ns is too short; write 1ms or more":                  func(c *connectplugin.PluginServerConfig) { c.Client.Timeout = 10 },
		"MagicCookieKey: has 257 bytes, and a handshake takes 256":       func(c *connectplugin.PluginServerConfig) { c.Client.MagicCookieKey = strings.Repeat("x", 257) },
	} {
		cfg := &connectplugin.PluginServerConfig{
			Client:   connectplugin.ClientConfig{HostURL: "http://127.0.0.1:1", SelfID: "x", AllowInsecure: true},
			Services: []connectplugin.PluginService{{Type: "x", Version: "1.0.0", Path: "/x/", Handler: http.NotFoundHandler()}},
		}
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		edit(cfg)
		if err := cfg.Validate(); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), field) {
			t.Errorf("got %v, want %q", err, field)
		}
	}
}

// A host that was shut down takes no other policy.
func TestSetPolicyAfterShutdown(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, nil)
	if err := host.Shutdown(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := host.SetPolicy(hosttest.LoggerPolicy()); !errors.Is(err, connectplugin.ErrHostClosed) {
		t.Errorf("got %v", err)
	}
}

// A listener that somebody else closed, as whoever served on it before did, is told of by its field.
func TestAListenerThatIsClosed(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	cfg := &connectplugin.PluginServerConfig{
		Client:   host.ClientConfig(t, "other"),
		Services: []connectplugin.PluginService{{Type: "x", Version: "1.0.0", Path: "/x/", Handler: http.NotFoundHandler()}},
	}
	own, err := host.Authority.PluginTLS("other")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Client.TLS, cfg.Listener = own, hosttest.Listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	cfg.OnConnected = func(context.Context, *connectplugin.Client) error {
		cancel()
		return nil
	}
	if err := connectplugin.ServePlugin(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	cfg.OnConnected = nil
	if err := connectplugin.ServePlugin(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "PluginServerConfig.Listener was closed") {
		t.Errorf("a plugin: %v", err)
	}
	for name, insecure := range map[string]bool{"TLS": false, "plaintext": true} {
		l := hosttest.Listen(t)
		another := idleHost(t, func(c *connectplugin.ServeConfig) {
			if insecure {
				c.Authority, c.AllowInsecure = nil, true
			}
		})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := another.Serve(t.Context(), l); err == nil || !strings.Contains(err.Error(), "the listener was closed meanwhile") {
			t.Errorf("a host, %s: %v", name, err)
		}
	}
}

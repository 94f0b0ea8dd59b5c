package recovery_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// echoServices are the services of a provider.
func echoServices() []connectplugin.PluginService {
	return []connectplugin.PluginService{{Type: echoType, Version: "1.0.0", Path: "/echo.v1.Echo/", Handler: echoHandler()}}
}

// startAt starts a host that listens on an address of loopback.
func startAt(t *testing.T, ip string) *hosttest.Host {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Skipf("this machine has no %s: %v", ip, err)
	}
	authority := hosttest.NewAuthority(t)
	inner, err := connectplugin.NewHost(&connectplugin.ServeConfig{Authority: authority, Policy: policy(), Logger: hosttest.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- inner.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("host: %v", err)
		}
	})
	return &hosttest.Host{Host: inner, URL: "https://" + l.Addr().String(), Authority: authority, Audit: &hosttest.Audit{}}
}

// A plugin that was told nothing listens where it reaches its host from: on another
// loopback address, and on IPv6.
func TestAudit_USE33_APluginListensWhereItReachesItsHost(t *testing.T) {
	t.Parallel()
	for _, ip := range []string{"127.0.0.1", "::1"} {
		t.Run(ip, func(t *testing.T) {
			t.Parallel()
			host := startAt(t, ip)
			host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) { c.Services = echoServices() })
			c := host.Enrol(t, "api", func(c *connectplugin.ClientConfig) { c.Metadata.Requires = hosttest.Requires(echoType) })
			if err := once(t.Context(), service(t, c)); err != nil {
				t.Errorf("%v", err)
			}
		})
	}
}

// A plugin that listens on every address and names none is told so before it registers.
func TestAudit_USE32_AListenerOnEveryAddressNeedsABaseURL(t *testing.T) {
	t.Parallel()
	host := start(t, nil)
	tls, err := host.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	config := func() *connectplugin.PluginServerConfig {
		cfg := &connectplugin.PluginServerConfig{Client: host.ClientConfig(t, "provider"), Services: echoServices()}
		cfg.Client.TLS = tls
		return cfg
	}
	for name, edit := range map[string]func(*connectplugin.PluginServerConfig){
		"IPv4":        func(c *connectplugin.PluginServerConfig) { c.Addr = "0.0.0.0:0" },
		"IPv6":        func(c *connectplugin.PluginServerConfig) { c.Addr = "[::]:0" },
		"mapped":      func(c *connectplugin.PluginServerConfig) { c.Addr = "[::ffff:0.0.0.0]:0" },
		"a zone":      func(c *connectplugin.PluginServerConfig) { c.Addr = "[::%lo]:0" },
		"no address":  func(c *connectplugin.PluginServerConfig) { c.Addr = ":0" },
		"as the name": func(c *connectplugin.PluginServerConfig) { c.BaseURL = "https://0.0.0.0:8443" },
		"link-local":  func(c *connectplugin.PluginServerConfig) { c.Addr = "[fe80::1]:0" },
		"its name":    func(c *connectplugin.PluginServerConfig) { c.BaseURL = "https://169.254.7.7:8443" },
		"IPv6 name":   func(c *connectplugin.PluginServerConfig) { c.BaseURL = "https://[::]:8443" },
	} {
		cfg := config()
		cfg.OnConnected = func(context.Context, *connectplugin.Client) error { return errors.New("it serves") }
		edit(cfg)
		err := connectplugin.ServePlugin(t.Context(), cfg)
		if !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), "BaseURL") {
			t.Errorf("%s: %v, want ErrInvalidConfig about BaseURL", name, err)
		}
	}
	if n := count(host, connectplugin.AuditRegistered, ""); n != 0 {
		t.Errorf("%d registrations", n)
	}
	// Policy may name the endpoint of one that brings its own listener: it is warned.
	var log journal
	ctx, cancel := context.WithCancel(t.Context())
	cfg := config()
	cfg.Listener, cfg.Client.Logger = anywhere(t), log.logger()
	cfg.OnConnected = func(context.Context, *connectplugin.Client) error {
		if n := log.warnings("listens on every address"); n != 1 {
			t.Errorf("%d warnings before it registers, want 1", n)
		}
		return nil
	}
	ended := make(chan error, 1)
	go func() { ended <- connectplugin.ServePlugin(ctx, cfg) }()
	hosttest.Eventually(t, "it is registered, at no address", func() bool { return count(host, connectplugin.AuditRegistered, "provider") == 1 })
	cancel()
	if err := hosttest.Arrival(t, ended); err != nil {
		t.Errorf("a listener: %v", err)
	}
	l := anywhere(t)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) {
		c.Services, c.Listener, c.BaseURL = echoServices(), l, "https://127.0.0.1:"+port
	})
	if err := once(t.Context(), service(t, caller(t, host))); err != nil {
		t.Errorf("with a BaseURL: %v", err)
	}
}

func anywhere(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

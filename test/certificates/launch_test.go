package certificates_test

import (
	"errors"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A plugin that holds the certificate of its launch enrols and is dialled with
// no PKI of the operator's. Another process, even one with a certificate of the
// same authority, is refused by the host and by the plugin, and the certificate
// is of no use once the launch is over.
func TestAudit_GAPAUTOMTLS_LaunchedPluginAndHost(t *testing.T) {
	t.Parallel()
	logger := &hosttest.RecordingLogger{}
	var launch *connectplugin.LaunchTLS
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		var err error
		if launch, err = c.Authority.LaunchTLS(connectplugin.LaunchTLSConfig{ID: "logger-1"}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(launch.Close)
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"logger": {Certificates: []string{launch.Identity()}, Provides: []string{"logger"}, AllowOwnAddress: true},
			"api":    hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires = []string{"logger"} }),
		}}
	})
	plugin := host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Client.TLS, c.Client.Secret = launch.PluginTLS(), nil
		c.Services = []connectplugin.PluginService{hosttest.LoggerService(logger)}
	})
	api := host.Enrol(t, "api", hosttest.Requiring("logger"))
	conn, err := api.Service(t.Context(), "logger", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL()).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{})); err != nil {
		t.Fatalf("the honest call: %v", err)
	}
	// The third process: another plugin of the same authority.
	thief, err := host.Authority.PluginTLS("api")
	if err != nil {
		t.Fatal(err)
	}
	cfg := host.ClientConfig(t, "logger")
	cfg.TLS, cfg.Secret = thief, nil
	asLogger, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = asLogger.Close() })
	if err := asLogger.Connect(t.Context()); !errors.Is(err, connectplugin.ErrHandshakeRefused) {
		t.Errorf("another certificate enrols as the launched plugin: %v", err)
	}
	provider, err := host.Registry().GetProviderByRuntimeID(plugin.Client.RuntimeID())
	if err != nil {
		t.Fatal(err)
	}
	base := provider.Metadata["base_url"]
	for name, client := range map[string]connect.HTTPClient{
		"another plugin": hosttest.HTTPClient(t, thief), "a stranger": host.Stranger(t),
	} {
		_, err := connectpluginv1connect.NewPluginControlClient(client, base).Shutdown(t.Context(), connect.NewRequest(&connectpluginv1.ShutdownRequest{}))
		if err == nil {
			t.Errorf("%s called the launched plugin directly", name)
		}
	}
	// After the launch its certificate is worth nothing.
	launch.Close()
	cfg = host.ClientConfig(t, "logger")
	cfg.TLS, cfg.Secret = launch.PluginTLS(), nil
	late, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = late.Close() })
	if err := late.Connect(t.Context()); err == nil {
		t.Error("the certificate outlived its launch")
	}
}

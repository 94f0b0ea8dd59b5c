package handshake_test

import (
	"errors"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// The cookie is known to everybody and gives nothing.
func TestAudit_H04_CookieAloneGivesNothing(t *testing.T) {
	t.Parallel()
	logger := &hosttest.RecordingLogger{}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.LoggerPolicy()
		all := []string{"*"}
		// It may do everything, and nothing says how it proves who it is.
		c.Policy.Plugins["bare"] = connectplugin.PluginPolicy{Provides: all, Requires: all, Capabilities: all, HostPlugins: all}
		c.Plugins = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}
		c.Impls = map[string]any{"logger": logger}
	})
	for _, selfID := range []string{"api", "logger", "bare", "unknown", "host"} {
		resp, err := hosttest.HandshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest(selfID)))
		if connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("self id %q: %v, %v, want unauthenticated", selfID, resp, err)
		}
	}
	resp, err := hosttest.HandshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("")))
	if err != nil {
		t.Fatalf("handshake without identity: %v", err)
	}
	if m := resp.Msg; m.GetRuntimeId() != "" || m.GetRuntimeToken() != "" || len(m.GetPlugins()) != 0 {
		t.Errorf("a client without identity got %v", m)
	}
	for name, opts := range hosttest.Protocols {
		_, err := loggerv1connect.NewLoggerClient(host.Stranger(t), host.URL, opts...).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{}))
		if connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("the host's plugin over %s: %v, want unauthenticated", name, err)
		}
	}
	if lines, _, _ := logger.Got(); len(lines) != 0 {
		t.Errorf("the plugin was called: %q", lines)
	}
}

// An identity that policy does not let call a host plugin gets nothing; one that
// it does is served, and the plugin knows who calls.
func TestAudit_H04_HostPluginsFollowPolicy(t *testing.T) {
	t.Parallel()
	logger := &hosttest.RecordingLogger{}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.LoggerPolicy()
		c.Policy.Plugins["friend"] = hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.HostPlugins = []string{"logger"} })
		c.Plugins = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}
		c.Impls = map[string]any{"logger": logger}
	})
	withPlugin := func(c *connectplugin.ClientConfig) {
		c.Plugins = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}
	}
	friend := host.Enrol(t, "friend", withPlugin)
	client, err := connectplugin.DispenseTyped[loggerv1connect.LoggerClient](friend, "logger")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{})); err != nil {
		t.Errorf("the friend: %v", err)
	}
	if _, callers, _ := logger.Got(); len(callers) != 1 || callers[0] != "friend" {
		t.Errorf("callers %q", callers)
	}
	other := host.Enrol(t, "other", withPlugin)
	if _, err := other.Dispense("logger"); !errors.Is(err, connectplugin.ErrPluginNotFound) {
		t.Errorf("Dispense for another: %v", err)
	}
	_, err = loggerv1connect.NewLoggerClient(other.HTTPClient(), host.URL).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{}))
	if connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("the other's call: %v, want not_found", err)
	}
}

func TestAudit_AUTH013_HandshakesAndIdentitiesAreBounded(t *testing.T) {
	t.Parallel()
	t.Run("rate", func(t *testing.T) {
		t.Parallel()
		host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
			c.Policy = hosttest.Unproven("plugin")
			c.Limits.HandshakesPerSecond, c.Limits.HandshakeBurst = 0.001, 3
		})
		var limited int
		for range 10 {
			if _, err := hosttest.HandshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("plugin"))); connect.CodeOf(err) == connect.CodeResourceExhausted {
				limited++
			}
		}
		if limited != 7 || !host.Audit.Has(connectplugin.AuditLimited) {
			t.Errorf("%d of 10 handshakes were limited, want 7", limited)
		}
	})
	for name, edit := range map[string]func(*connectplugin.ServeConfig){
		"total":            func(c *connectplugin.ServeConfig) { c.Limits.MaxIdentities = 3 },
		"per self id":      func(c *connectplugin.ServeConfig) { c.Limits.MaxIdentitiesPerSelfID = 3 },
		"per peer":         func(c *connectplugin.ServeConfig) { c.Limits.MaxIdentitiesPerPeer = 3 },
		"policy instances": func(c *connectplugin.ServeConfig) { hosttest.SetInstances(c.Policy, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy = hosttest.Unproven("plugin")
				edit(c)
			})
			var first *connectpluginv1.HandshakeResponse
			for i := range 5 {
				resp, err := hosttest.HandshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("plugin")))
				switch {
				case i < 3 && err != nil:
					t.Fatal(err)
				case i >= 3 && connect.CodeOf(err) != connect.CodeResourceExhausted:
					t.Errorf("identity %d: %v, want resource_exhausted", i+1, err)
				case i == 0:
					first = resp.Msg
				}
			}
			// Nobody alive was evicted, and one that ends makes room.
			if code := hosttest.ReportAs(t, host, first.GetRuntimeId(), first.GetRuntimeToken()); code != 0 {
				t.Errorf("the first identity: %v", code)
			}
			host.Revoke(first.GetRuntimeId())
			if _, err := hosttest.HandshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("plugin"))); err != nil {
				t.Errorf("after one ended: %v", err)
			}
		})
	}
}

// What policy cuts off a plugin's declarations, the plugin is told.
func TestHandshake_WarnsOfWhatPolicyCuts(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	c := host.Enrol(t, "api", func(c *connectplugin.ClientConfig) {
		c.Metadata.Requires = hosttest.Requires("logger", "storage")
		c.Metadata.Provides = hosttest.Provides("logger")
	})
	got := strings.Join(c.Warnings(), "\n")
	if len(c.Warnings()) != 2 || !strings.Contains(got, `provides "logger"`) || !strings.Contains(got, `requires "storage"`) {
		t.Errorf("warnings %q", c.Warnings())
	}
}

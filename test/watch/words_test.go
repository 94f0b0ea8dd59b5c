package watch_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// A plugin that ends says nothing of services that go on; that one came it says in words.
func TestPlugin_EndsWithoutAWordOfServices(t *testing.T) {
	t.Parallel()
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"logger": {{"logger"}, nil}, "api": {nil, {"logger"}}})
	})
	h.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{hosttest.LoggerService(&hosttest.RecordingLogger{})}
	})
	var log hosttest.Buffer
	api := h.StartPlugin(t, "api", func(c *connectplugin.PluginServerConfig) {
		c.Client.Logger = slog.New(slog.NewTextHandler(&log, nil))
		c.Client.Metadata.Requires = []connectplugin.ServiceDependency{{Type: "logger", WatchForChanges: true}}
	})
	hosttest.Eventually(t, "it sees the service", func() bool { return strings.Contains(log.String(), "service=logger reason=available") })
	api.Stop(t)
	if strings.Contains(log.String(), "unavailable") || strings.Contains(log.String(), "SERVICE_STATE") {
		t.Errorf("it logged: %s", log.String())
	}
}

// Rights are checked at each delivery, and those are what the plugin declares now: one that renews its
// identity and requires a type no more hears nothing more of it, though policy is the same.
func TestAudit_REG3_ARenewalThatGivesUpATypeEndsItsWatch(t *testing.T) {
	t.Parallel()
	for name, waits := range map[string]bool{"at rest": false, "waiting": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, f := watchHost(t, func(c *connectplugin.ServeConfig) {
				attended(waits)(c)
				rules := c.Policy.Plugins["c"]
				rules.Secret, rules.AllowUnproven = nil, true
				c.Policy.Plugins["c"] = rules
			})
			c := host.Enrol(t, "c", func(c *connectplugin.ClientConfig) {
				c.Secret, c.Metadata.Requires = nil, hosttest.Requires("a")
			})
			w := onA(t, host, c, nil)
			w.Next(t)
			token := c.RuntimeToken()
			renew := func(types ...string) {
				t.Helper()
				m := wire.FreshRequest("c")
				for _, serviceType := range types {
					m.Requires = append(m.Requires, &connectpluginv1.ServiceDependency{Type: serviceType})
				}
				resp, err := hosttest.HandshakeClient(t, host).Handshake(t.Context(), hosttest.WithCredentials(m, c.RuntimeID(), token))
				if err != nil || resp.Msg.GetRuntimeId() != c.RuntimeID() {
					t.Fatalf("renewal: %v, %v", resp, err)
				}
				token = resp.Msg.GetRuntimeToken()
			}
			renew("a", "b")
			f.flap(1)
			if e := w.Next(t); e.GetState() != f.state() {
				t.Errorf("who still requires it is told %v", e)
			}
			renew("b")
			f.flap(1)
			if code := w.Code(hosttest.Wait); code != connect.CodeNotFound || len(w.Events) > 0 {
				t.Errorf("who requires it no more: %v, %d events", code, len(w.Events))
			}
		})
	}
}

// A Service beyond what the host has room for ends with what the host says, also where its caller set no deadline, and is
// there once there is room.
func TestService_WithoutRoomAndWithoutADeadline(t *testing.T) {
	t.Parallel()
	wire.InBubble(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Limits.MaxWatchesPerPlugin = hosttest.Unproven("api"), 2
	}, func(t *testing.T, h *wire.BubbleHost) {
		t.Helper()
		client, err := connectplugin.NewClient(connectplugin.ClientConfig{
			HostURL: wire.BubbleURL, SelfID: "api", HTTPClient: h.HTTPClient(t),
			Metadata: connectplugin.PluginMetadata{Requires: hosttest.Requires("storage")},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		if err := client.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		var conns []*connectplugin.ServiceConn
		for range 2 {
			conn, err := client.Service(context.WithoutCancel(t.Context()), "storage", "")
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
		}
		began := time.Now()
		_, err = client.Service(context.Background(), "storage", "")
		if connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(err.Error(), "Limits.MaxWatchesPerPlugin") {
			t.Errorf("without room: %v", err)
		}
		if took := time.Since(began); took < 10*time.Second || took > time.Minute {
			t.Errorf("that took %v", took)
		}
		conns[0].Close()
		again, err := client.Service(context.Background(), "storage", "")
		if err != nil {
			t.Fatalf("with room: %v", err)
		}
		again.Close()
		conns[1].Close()
	})
}

package host_test

import (
	"crypto/tls"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Nor do changes that are allowed fill the audit, however often a plugin makes them, nor
// connections that are cut off: the first are told one by one.
func TestAudit_H32_RepeatedEventsAreCounted(t *testing.T) {
	t.Parallel()
	const times, burst, most = 60, 20, 30
	all := []string{"*"}
	register := func(t *testing.T, _ *hosttest.Host, c *connectplugin.Client) {
		t.Helper()
		id, err := hosttest.Register(t, c, "logger", "1.0.0")
		if err = errors.Join(err, hosttest.Unregister(t, c, id)); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		kind connectplugin.AuditKind
		does func(t *testing.T, host *hosttest.Host, c *connectplugin.Client)
	}{
		"registrations": {connectplugin.AuditRegistered, register},
		"withdrawals":   {connectplugin.AuditUnregistered, register},
		"grants": {connectplugin.AuditGranted, func(t *testing.T, host *hosttest.Host, c *connectplugin.Client) {
			t.Helper()
			_, err := connectpluginv1connect.NewCapabilityBrokerClient(c.HTTPClient(), host.URL).RequestCapability(t.Context(),
				connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"}))
			if err != nil {
				t.Fatal(err)
			}
		}},
		"connections that are cut off": {connectplugin.AuditLimited, func(t *testing.T, host *hosttest.Host, _ *connectplugin.Client) {
			t.Helper()
			flooded(t, host)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
					"api": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides, p.Capabilities = all, all }),
				}}
				c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
				c.CapabilityBroker.RegisterCapability(hosttest.NewCapability(nil, "logger", "1.0.0"))
				c.Logger = nil
				c.Limits = connectplugin.Limits{HandshakesPerSecond: 0.01, HandshakeBurst: burst, ChangesPerSecond: 1e9, ChangeBurst: burst}
			})
			c := host.Enrol(t, "api", hosttest.Providing("logger"))
			for range times {
				test.does(t, host, c)
			}
			told := func() (n int) {
				for _, e := range host.Audit.Events() {
					if e.Kind == test.kind {
						n++
					}
				}
				return n
			}
			hosttest.Eventually(t, "the first are told", func() bool { return told() >= burst/2 })
			if n := told(); n > most {
				t.Errorf("%d of %d are told one by one", n, times)
			}
		})
	}
}

// flooded is a connection that is cut off for its PINGs.
func flooded(t *testing.T, host *hosttest.Host) {
	t.Helper()
	cfg := host.StrangerTLS()
	cfg.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", host.Addr(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	var out strings.Builder
	out.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&out, nil)
	_ = f.WriteSettings()
	for range 300 {
		_ = f.WritePing(false, [8]byte{})
	}
	if _, err := io.WriteString(conn, out.String()); err != nil {
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(hosttest.Wait))
	_, _ = io.Copy(io.Discard, conn)
}

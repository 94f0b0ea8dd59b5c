package host_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Who is refused, for whatever reason, fills no log: a flood of refusals makes a
// few events, of which the first say what it is about.
func TestAudit_REGREC11_FloodsOfRefusalsFillNoLog(t *testing.T) {
	t.Parallel()
	const requests, most = 600, 150
	start := func(t *testing.T, limited bool) *hosttest.Host {
		t.Helper()
		return hosttest.Start(t, func(c *connectplugin.ServeConfig) {
			c.Policy = hosttest.LoggerPolicy()
			c.Logger = nil
			// Bursts as by default. What comes back with time is next to nothing, so
			// that the count does not depend on how long the test takes.
			c.Limits = connectplugin.Limits{HandshakesPerSecond: 0.01, HandshakeBurst: 50}
			if limited {
				c.Limits.RequestsPerSecond, c.Limits.RequestBurst = 0.01, 20
			}
		})
	}
	for name, prepare := range floods() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := start(t, strings.HasPrefix(name, "too many"))
			kind, send := prepare(t, host)
			client := host.Stranger(t)
			for range requests {
				if err := send(t.Context(), client); err != nil {
					t.Fatal(err)
				}
			}
			if n := len(host.Audit.Events()); n > most {
				t.Errorf("%d requests made %d events", requests, n)
			}
			if !host.Audit.Has(kind) {
				t.Errorf("no event %s tells of the flood", kind)
			}
		})
	}
}

// flood sends one of many requests that are refused.
type flood func(context.Context, *http.Client) error

// post floods a path with empty messages.
func post(host *hosttest.Host, path string, header http.Header) flood {
	return func(ctx context.Context, client *http.Client) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, host.URL+path, strings.NewReader(""))
		if err != nil {
			return err
		}
		req.Header = header.Clone()
		req.Header.Set("Content-Type", "application/proto")
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
}

// floods prepares each flood on a host, and says what its audit tells of it.
func floods() map[string]func(*testing.T, *hosttest.Host) (connectplugin.AuditKind, flood) {
	wrong := hosttest.IdentityHeader("somebody", "something")
	return map[string]func(*testing.T, *hosttest.Host) (connectplugin.AuditKind, flood){
		"bad tokens": func(_ *testing.T, h *hosttest.Host) (connectplugin.AuditKind, flood) {
			return connectplugin.AuditAuthFailed, post(h, connectpluginv1connect.PluginLifecycleReportHealthProcedure, wrong)
		},
		"bad routes": func(_ *testing.T, h *hosttest.Host) (connectplugin.AuditKind, flood) {
			return connectplugin.AuditAuthFailed, post(h, "/services/logger/x/", wrong)
		},
		"bad grants": func(_ *testing.T, h *hosttest.Host) (connectplugin.AuditKind, flood) {
			return connectplugin.AuditAuthFailed, post(h, "/capabilities/logger/x/", hosttest.BearerHeader("something"))
		},
		"bad renewals": func(_ *testing.T, h *hosttest.Host) (connectplugin.AuditKind, flood) {
			return connectplugin.AuditAuthFailed, post(h, hosttest.HandshakePath, wrong)
		},
		"unknown self ids": func(_ *testing.T, h *hosttest.Host) (connectplugin.AuditKind, flood) {
			return connectplugin.AuditAuthFailed, func(ctx context.Context, client *http.Client) error {
				_, _ = connectpluginv1connect.NewHandshakeServiceClient(client, h.URL).Handshake(ctx, connect.NewRequest(hosttest.OldRequest("nobody")))
				return nil
			}
		},
		"foreign hosts": func(_ *testing.T, h *hosttest.Host) (connectplugin.AuditKind, flood) {
			return connectplugin.AuditDenied, post(h, "/", http.Header{"Origin": {"https://elsewhere.example"}})
		},
		"unclean paths": func(_ *testing.T, h *hosttest.Host) (connectplugin.AuditKind, flood) {
			return connectplugin.AuditDenied, post(h, "/services//x", http.Header{})
		},
		"forbidden routes": func(t *testing.T, h *hosttest.Host) (connectplugin.AuditKind, flood) {
			t.Helper()
			c := h.Enrol(t, "api", nil)
			return connectplugin.AuditDenied, post(h, "/services/storage/x/", hosttest.IdentityHeader(c.RuntimeID(), c.RuntimeToken()))
		},
		"forbidden types": func(t *testing.T, h *hosttest.Host) (connectplugin.AuditKind, flood) {
			t.Helper()
			c := h.Enrol(t, "api", nil)
			return connectplugin.AuditDenied, func(ctx context.Context, _ *http.Client) error {
				_, _ = c.RegistryClient().DiscoverService(ctx, connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{ServiceType: "storage"}))
				return nil
			}
		},
		"forbidden capabilities": func(t *testing.T, h *hosttest.Host) (connectplugin.AuditKind, flood) {
			t.Helper()
			c := h.Enrol(t, "api", nil)
			return connectplugin.AuditDenied, func(ctx context.Context, _ *http.Client) error {
				_, _ = c.Capability(ctx, "vault", "")
				return nil
			}
		},
		"too many handshakes": func(_ *testing.T, h *hosttest.Host) (connectplugin.AuditKind, flood) {
			return connectplugin.AuditLimited, post(h, hosttest.HandshakePath, http.Header{})
		},
		"too many calls": func(t *testing.T, h *hosttest.Host) (connectplugin.AuditKind, flood) {
			t.Helper()
			c := h.Enrol(t, "api", nil)
			return connectplugin.AuditLimited, post(h, connectpluginv1connect.HealthServiceCheckProcedure, hosttest.IdentityHeader(c.RuntimeID(), c.RuntimeToken()))
		},
	}
}

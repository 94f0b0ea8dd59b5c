package handshake_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

func TestAudit_PROTO12_HighestCommonVersion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name             string
		hostMin, hostMax int
		min, max, exact  int
		want             int // zero: refused
	}{
		{"same", 1, 1, 0, 0, 1, 1},
		{"highest of both", 1, 5, 2, 9, 0, 5},
		{"client is behind", 1, 5, 1, 3, 0, 3},
		{"client too old", 3, 5, 1, 2, 0, 0},
		{"client too new", 1, 3, 4, 6, 0, 0},
		{"exact within", 1, 5, 0, 0, 2, 2},
		{"exact below the minimum", 3, 5, 0, 0, 2, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(cfg *connectplugin.ServeConfig) {
				cfg.Policy, cfg.ProtocolVersion, cfg.MinProtocolVersion = hosttest.LoggerPolicy(), c.hostMax, c.hostMin
			})
			cfg := host.ClientConfig(t, "api")
			cfg.MinProtocolVersion, cfg.MaxProtocolVersion, cfg.ProtocolVersion = c.min, c.max, c.exact
			client, err := connectplugin.NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = client.Close() })
			err = client.Connect(t.Context())
			if (err == nil) != (c.want != 0) || client.ProtocolVersion() != c.want {
				t.Errorf("agreed on %d, %v; want %d", client.ProtocolVersion(), err, c.want)
			}
			if err != nil && !errors.Is(err, connectplugin.ErrHandshakeRefused) {
				t.Errorf("%v does not wrap ErrHandshakeRefused", err)
			}
			if said := saysWhy(host, "application version: ", fmt.Sprintf("%d to %d are spoken here", c.hostMin, c.hostMax)); said != (err != nil) {
				t.Errorf("the audit tells of versions: %t; the handshake: %v", said, err)
			}
			// A peer of the first wire version knows the exact field only.
			req := hosttest.OldRequest("")
			req.AppProtocolVersion = int32(c.exact)
			if c.exact != 0 {
				resp, err := hosttest.HandshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(req))
				if (err == nil) != (c.want != 0) || resp != nil && int(resp.Msg.GetAppProtocolVersion()) != c.want {
					t.Errorf("old peer: %v, %v", resp, err)
				}
			}
		})
	}
}

// saysWhy reports whether the audit has a refused handshake with a reason that begins and ends so.
func saysWhy(host *hosttest.Host, begins, ends string) bool {
	return slices.ContainsFunc(host.Audit.Events(), func(e connectplugin.AuditEvent) bool {
		return e.Kind == connectplugin.AuditAuthFailed && e.SelfID == "api" &&
			strings.HasPrefix(e.Reason, begins) && strings.HasSuffix(e.Reason, ends)
	})
}

// A plugin that was made for another host is told so, and so is who looks into the audit.
func TestAudit_PROTO12_AnotherHostsCookieIsInTheAudit(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	host.Enrol(t, "api", nil)
	if saysWhy(host, "magic cookie", "") {
		t.Error("an honest handshake is in the audit")
	}
	cfg := host.ClientConfig(t, "api")
	cfg.MagicCookieValue = "another"
	if _, err := hosttest.EnrolOnce(t.Context(), cfg); !errors.Is(err, connectplugin.ErrHandshakeRefused) || !saysWhy(host, "magic cookie", "") {
		t.Errorf("%v; the audit has %v", err, host.Audit.Events())
	}
}

func TestAudit_PROTO13_DeprecationIsSurfaced(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.ProtocolVersion, c.MinProtocolVersion, c.DeprecatedBelow = hosttest.LoggerPolicy(), 3, 1, 3
	})
	old := host.Enrol(t, "api", func(c *connectplugin.ClientConfig) { c.ProtocolVersion = 2 })
	if w := old.Warnings(); len(w) != 1 || !strings.Contains(w[0], "deprecated") {
		t.Errorf("warnings %q", w)
	}
	if w := host.Enrol(t, "api", func(c *connectplugin.ClientConfig) { c.ProtocolVersion = 3 }).Warnings(); len(w) != 0 {
		t.Errorf("warnings for the current version: %q", w)
	}
}

package identity_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// wantAlive presents a token to every procedure in every protocol.
func wantAlive(t *testing.T, client *http.Client, what, runtimeID, token string, alive bool) {
	t.Helper()
	for _, p := range hosttest.Procedures() {
		if p.IsHandshake() && alive {
			continue // would be refused for its empty message, or renew
		}
		for protocol, opts := range hosttest.Protocols {
			err := p.Call(t.Context(), client, wire.BubbleURL, hosttest.IdentityHeader(runtimeID, token), nil, opts...)
			if refused := connect.CodeOf(err) == connect.CodeUnauthenticated; refused == alive {
				t.Errorf("%s, %s over %s: %v, want it alive: %t", what, p.Path, protocol, err, alive)
			}
		}
	}
}

// A renewal puts a new token in the place of the old one, which lives for its grace
// and no longer; of three at most two live; and a revocation ends all of them, for
// every procedure, unary or not, in every protocol.
func TestAudit_AUTH012_REGTOKEN3_RotatedTokensDie(t *testing.T) {
	t.Parallel()
	const grace = time.Minute
	wire.InBubble(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Limits.TokenGrace = hosttest.Unproven("api"), grace
	}, func(t *testing.T, h *wire.BubbleHost) {
		t.Helper()
		client := h.HTTPClient(t)
		tokens := []string{}
		var id string
		renew := func() {
			var header http.Header
			if id != "" {
				header = hosttest.IdentityHeader(id, tokens[len(tokens)-1])
			}
			m := h.Enrol(t, header)
			if id != "" && m.GetRuntimeId() != id {
				t.Fatalf("a renewal of %s gave %s", id, m.GetRuntimeId())
			}
			id, tokens = m.GetRuntimeId(), append(tokens, m.GetRuntimeToken())
		}
		want := func(when string, alive ...bool) {
			for i, a := range alive {
				wantAlive(t, client, when, id, tokens[i], a)
			}
		}
		renew()
		want("enrolled", true)
		renew()
		<-time.After(grace - time.Second)
		want("within the grace", true, true)
		<-time.After(2 * time.Second)
		want("after the grace", false, true)
		renew()
		renew()
		want("renewed twice", false, false, true, true)
		h.Revoke(id)
		want("revoked", false, false, false, false)
	})
}

// Self ids that look alike once they are fit to be shown, and handshakes at the same
// time, still get ids of their own, and end nobody's.
func TestAudit_REG11_AUTH002_NoHandshakeMeetsAnIDInUse(t *testing.T) {
	t.Parallel()
	selfIDs := []string{"plug-in", "Plug-In", "plug.in", "plug_in", "PLUG--IN"}
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.Unproven(selfIDs...)))
	const each = 20
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		seen  = map[string]string{}
	)
	for _, selfID := range selfIDs {
		client := hosttest.HandshakeClient(t, host)
		group.Go(func() {
			for range each {
				resp, err := client.Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest(selfID)))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if _, known := seen[resp.Msg.GetRuntimeId()]; known {
					t.Errorf("%s was issued twice", resp.Msg.GetRuntimeId())
				}
				seen[resp.Msg.GetRuntimeId()] = resp.Msg.GetRuntimeToken()
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if len(seen) != each*len(selfIDs) {
		t.Errorf("%d identities, want %d", len(seen), each*len(selfIDs))
	}
	lifecycle := connectpluginv1connect.NewPluginLifecycleClient(host.Stranger(t), host.URL)
	for id, token := range seen {
		_, err := lifecycle.ReportHealth(t.Context(),
			hosttest.WithCredentials(&connectpluginv1.ReportHealthRequest{State: connectpluginv1.HealthState_HEALTH_STATE_HEALTHY}, id, token))
		if err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

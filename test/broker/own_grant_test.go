package broker_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// refusedGrant is what a caller does with a grant by hand, and what the host's audit says of it.
type refusedGrant struct {
	url    string
	header http.Header
	reason string
}

// refusedGrants are the ways in which a caller shows what is no good grant, below the endpoint of a capability.
func refusedGrants(t *testing.T, rig *capabilityRig, c *connectplugin.Client) map[string]refusedGrant {
	t.Helper()
	revoked, live := rig.mustGrant(t, c, echo.Type), rig.mustGrant(t, c, echo.Type)
	other := rig.Enrol(t, "thief", nil)
	others, ended := rig.mustGrant(t, other, echo.Type), rig.mustGrant(t, rig.Enrol(t, "thief", nil), echo.Type)
	if !rig.broker.RevokeGrant(revoked.GetGrantId()) {
		t.Fatal("there was nothing to revoke")
	}
	for _, p := range rig.Plugins() {
		if p.SelfID == "thief" && p.RuntimeID != other.RuntimeID() && !rig.Revoke(p.RuntimeID) {
			t.Fatal("no identity ended")
		}
	}
	nowhere := rig.URL + "/capabilities/echo/nothing"
	elsewhere := strings.Replace(live.GetEndpointUrl(), "/echo/", "/different/", 1)
	return map[string]refusedGrant{
		"revoked":            {revoked.GetEndpointUrl(), bearerOf(revoked), "the grant was revoked"},
		"its plugin ended":   {ended.GetEndpointUrl(), bearerOf(ended), "the grant ended with its plugin's identity"},
		"of another":         {others.GetEndpointUrl(), bearerOf(others), "the grant is of another plugin"},
		"of another kind":    {elsewhere, bearerOf(live), "the grant is for another capability"},
		"with another's":     {live.GetEndpointUrl(), bearerOf(others), "the bearer is not the token of this grant"},
		"without a bearer":   {live.GetEndpointUrl(), nil, "no bearer"},
		"never given":        {nowhere, bearerOf(live), "the host knows no such grant"},
		"nothing of a grant": {nowhere, nil, "no bearer"},
	}
}

// expiredGrant is one of a host whose grants last for a second.
func expiredGrant(t *testing.T, rig *capabilityRig, c *connectplugin.Client) map[string]refusedGrant {
	t.Helper()
	expired := rig.mustGrant(t, c, echo.Type)
	hosttest.Eventually(t, "the grant has expired", func() bool { return time.Now().After(expired.GetExpiresAt().AsTime()) })
	return map[string]refusedGrant{"expired": {expired.GetEndpointUrl(), bearerOf(expired), "the grant has expired"}}
}

// A grant that a caller holds by hand and that is over, or none at all, is refused to that caller alone: the identity of the
// client whose HTTPClient it calls with is as good as before. The audit says what was wrong with it.
func TestClient_ARefusedGrantIsNotTheLossOfItsIdentity(t *testing.T) {
	t.Parallel()
	for name, hold := range map[string]struct {
		ttl  time.Duration // of grants
		ways func(*testing.T, *capabilityRig, *connectplugin.Client) map[string]refusedGrant
	}{"over": {time.Second, expiredGrant}, "others": {time.Hour, refusedGrants}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rig := newCapabilityRig(t, echo.Service{}.Handler(), func(c *connectplugin.ServeConfig) { c.CapabilityGrantTTL = hold.ttl })
			c := rig.Enrol(t, "both", nil)
			id := c.RuntimeID()
			for name, way := range hold.ways(t, rig, c) {
				refuseAll(t, rig, c, name, way)
			}
			if now := c.RuntimeID(); now != id {
				t.Errorf("the client is %s, and was %s", now, id)
			}
			if n := issuedTo(rig, "both"); n != 1 {
				t.Errorf("the client enrolled %d times", n)
			}
			if !rig.Revoke(id) {
				t.Fatal("no identity ended")
			}
			healthy := connectpluginv1.HealthState_HEALTH_STATE_HEALTHY
			if err := c.ReportHealth(t.Context(), healthy, "", nil); err != nil || c.RuntimeID() == id {
				t.Errorf("where the identity is gone: %v, as %s", err, c.RuntimeID())
			}
		})
	}
}

func issuedTo(rig *capabilityRig, selfID string) (n int) {
	for _, e := range rig.Audit.Events() {
		if e.SelfID == selfID && e.Kind == connectplugin.AuditIssued {
			n++
		}
	}
	return n
}

func refuseAll(t *testing.T, rig *capabilityRig, c *connectplugin.Client, name string, way refusedGrant) {
	t.Helper()
	for protocol, opts := range hosttest.Protocols {
		for kind, call := range echo.Kinds {
			out := call(t.Context(), echo.At(way.url, c.HTTPClient()), opts, way.header)
			if connect.CodeOf(out.Err) != connect.CodeUnauthenticated {
				t.Errorf("%s, %s, %s: %v, want unauthenticated", name, protocol, kind, out.Err)
			}
		}
	}
	said := false
	for _, e := range rig.Audit.Events() {
		said = said || strings.Contains(e.Reason, way.reason)
	}
	if !said {
		t.Errorf("%s: the audit does not say %q", name, way.reason)
	}
}

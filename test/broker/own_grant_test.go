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
	expired, revoked, live := rig.mustGrant(t, c, echo.Type), rig.mustGrant(t, c, echo.Type), rig.mustGrant(t, c, echo.Type)
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
		"expired":            {expired.GetEndpointUrl(), bearerOf(expired), "the grant has expired"},
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

// A grant that a caller holds by hand and that is over, or none at all, is refused to that caller alone: the identity of the
// client whose HTTPClient it calls with is as good as before. The audit says what was wrong with it.
func TestClient_ARefusedGrantIsNotTheLossOfItsIdentity(t *testing.T) {
	t.Parallel()
	rig := newCapabilityRig(t, echo.Service{}.Handler(), func(c *connectplugin.ServeConfig) { c.CapabilityGrantTTL = 2 * time.Second })
	c := rig.Enrol(t, "both", nil)
	id, since := c.RuntimeID(), time.Now()
	ways := refusedGrants(t, rig, c)
	for name, way := range ways {
		if name == "expired" {
			continue
		}
		refuseAll(t, rig, c, name, way)
	}
	if time.Since(since) < 2*time.Second { // else the others have said it already
		hosttest.Eventually(t, "the grant has expired", func() bool { return time.Since(since) > 2*time.Second })
	}
	refuseAll(t, rig, c, "expired", ways["expired"])
	if now := c.RuntimeID(); now != id {
		t.Errorf("the client is %s, and was %s", now, id)
	}
	issued := 0
	for _, e := range rig.Audit.Events() {
		if e.SelfID == "both" && e.Kind == connectplugin.AuditIssued {
			issued++
		}
	}
	if issued != 1 {
		t.Errorf("the client enrolled %d times", issued)
	}
	if !rig.Revoke(id) {
		t.Fatal("no identity ended")
	}
	healthy := connectpluginv1.HealthState_HEALTH_STATE_HEALTHY
	if err := c.ReportHealth(t.Context(), healthy, "", nil); err != nil || c.RuntimeID() == id {
		t.Errorf("where the identity is gone: %v, as %s", err, c.RuntimeID())
	}
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

package broker_test

import (
	"context"
	"maps"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// A grant is good for its type, its version, its owner and nobody else.
func TestAudit_H21_GrantIsBoundToTypeVersionAndOwner(t *testing.T) {
	t.Parallel()
	rig := newCapabilityRig(t, echo.Service{}.Handler(), nil)
	owner, thief := rig.Enrol(t, "both", nil), rig.Enrol(t, "thief", nil)
	grant, other := rig.mustGrant(t, owner, echo.Type), rig.mustGrant(t, owner, "different")
	stranger := rig.Stranger(t)
	base := rig.URL + "/capabilities/"
	honest := echo.At(base+"echo/"+grant.GetGrantId(), stranger)
	for name, wrong := range map[string]struct {
		to     echo.Endpoint
		header http.Header
	}{
		"grant for another type":    {echo.At(base+"different/"+grant.GetGrantId(), stranger), bearerOf(grant)},
		"token of another grant":    {honest, bearerOf(other)},
		"id of another grant":       {echo.At(base+"echo/"+other.GetGrantId(), stranger), bearerOf(grant)},
		"another runtime id":        {honest, bearerOf(grant, "X-Plugin-Runtime-Id", thief.RuntimeID())},
		"two runtime ids":           {honest, bearerOf(grant, "X-Plugin-Runtime-Id", owner.RuntimeID(), "X-Plugin-Runtime-Id", thief.RuntimeID())},
		"empty runtime id":          {honest, bearerOf(grant, "X-Plugin-Runtime-Id", "")},
		"made-up token":             {honest, http.Header{"Authorization": {"Bearer AAAA"}}},
		"no token":                  {honest, nil},
		"token twice":               {honest, bearerOf(grant, "Authorization", "Bearer "+grant.GetBearerToken())},
		"token in a cookie":         {honest, http.Header{"Cookie": {"token=" + grant.GetBearerToken()}}},
		"runtime token for a grant": {honest, http.Header{"Authorization": {"Bearer " + owner.RuntimeToken()}, "X-Plugin-Runtime-Id": {owner.RuntimeID()}}},
		"unknown grant":             {echo.At(base+"echo/unknown", stranger), bearerOf(grant)},
		"runtime id for a grant id": {echo.At(base+"echo/"+owner.RuntimeID(), stranger), bearerOf(grant)},
		"no grant":                  {echo.At(base+"echo", stranger), bearerOf(grant)},
		"type in upper case":        {echo.At(base+"ECHO/"+grant.GetGrantId(), stranger), bearerOf(grant)},
	} {
		t.Run(name, func(t *testing.T) {
			for protocol, opts := range hosttest.Protocols {
				for kind, call := range echo.Kinds {
					if out := call(t.Context(), wrong.to, opts, wrong.header); connect.CodeOf(out.Err) != connect.CodeUnauthenticated {
						t.Errorf("%s, %s: %v %v, want unauthenticated", protocol, kind, out.Messages, out.Err)
					}
				}
			}
		})
	}
	if n := len(rig.seen.Take()); n != 0 {
		t.Errorf("%d stolen calls reached the capability", n)
	}
	for protocol, opts := range hosttest.Protocols {
		for kind, call := range echo.Kinds {
			header := bearerOf(grant, "X-Plugin-Runtime-Id", owner.RuntimeID())
			out := call(t.Context(), honest, opts, header)
			if echo.Want(t, kind, out); out.Err != nil {
				t.Errorf("%s: %v", protocol, out.Err)
			}
		}
	}
}

// The grant of a plugin with a certificate is good on that certificate's
// connections only.
func TestAudit_H23_GrantIsBoundToTheOwnersCertificate(t *testing.T) {
	t.Parallel()
	rig := newCapabilityRig(t, echo.Service{}.Handler(), nil)
	withCertificate := func(selfID string) (func(*connectplugin.ClientConfig), *http.Client) {
		cfg, err := rig.Authority.PluginTLS(selfID)
		if err != nil {
			t.Fatal(err)
		}
		return func(c *connectplugin.ClientConfig) { c.TLS = cfg }, hosttest.HTTPClient(t, cfg)
	}
	asOwner, ownClient := withCertificate("both")
	_, thiefClient := withCertificate("thief")
	owner := rig.Enrol(t, "both", asOwner)
	grant := rig.mustGrant(t, owner, echo.Type)
	for name, stolen := range map[string]*http.Client{"no certificate": rig.Stranger(t), "another certificate": thiefClient} {
		for protocol, opts := range hosttest.Protocols {
			out := echo.CallUnary(t.Context(), echo.At(grant.GetEndpointUrl(), stolen), opts, bearerOf(grant))
			if connect.CodeOf(out.Err) != connect.CodeUnauthenticated {
				t.Errorf("%s, %s: %v, want unauthenticated", name, protocol, out.Err)
			}
		}
	}
	for protocol, opts := range hosttest.Protocols {
		if out := echo.CallUnary(t.Context(), echo.At(grant.GetEndpointUrl(), ownClient), opts, bearerOf(grant)); out.Err != nil {
			t.Errorf("the owner, %s: %v", protocol, out.Err)
		}
	}
}

// A capability that was registered again in another version does not serve the
// grants of the one before; the same version goes on.
func TestAudit_H26_GrantIsBoundToTheVersion(t *testing.T) {
	t.Parallel()
	rig := newCapabilityRig(t, echo.Service{}.Handler(), nil)
	owner := rig.Enrol(t, "both", nil)
	grant := rig.mustGrant(t, owner, echo.Type)
	to := echo.At(grant.GetEndpointUrl(), rig.Stranger(t))
	rig.broker.RegisterCapability(hosttest.NewCapability(rig.seen, echo.Type, "1.2.0"))
	if out := echo.CallUnary(t.Context(), to, nil, bearerOf(grant)); out.Err != nil {
		t.Errorf("the same version again: %v", out.Err)
	}
	rig.seen.Take()
	for _, version := range []string{"1.2.1", "2.0.0", "1.1.0"} {
		rig.broker.RegisterCapability(hosttest.NewCapability(rig.seen, echo.Type, version))
		for protocol, opts := range hosttest.Protocols {
			for kind, call := range echo.Kinds {
				if out := call(t.Context(), to, opts, bearerOf(grant)); connect.CodeOf(out.Err) != connect.CodeNotFound {
					t.Errorf("version %s, %s, %s: %v, want not_found", version, protocol, kind, out.Err)
				}
			}
		}
		if n := len(rig.seen.Take()); n != 0 {
			t.Errorf("%d calls reached version %s", n, version)
		}
		if fresh, err := rig.grant(t.Context(), owner, echo.Type, ">="+version); err != nil || fresh.GetVersion() != version {
			t.Errorf("a grant for version %s: %v, %v", version, fresh, err)
		}
	}
}

// What policy forbids and what there is not look alike.
func TestAudit_H23_ForbiddenAndUnknownCapabilitiesLookAlike(t *testing.T) {
	t.Parallel()
	rig := newCapabilityRig(t, echo.Service{}.Handler(), nil)
	none, both := rig.Enrol(t, "none", nil), rig.Enrol(t, "both", nil)
	var seen []string
	for _, c := range []struct {
		client        *connectplugin.Client
		kind, version string
	}{{none, echo.Type, ""}, {none, "unknown", ""}, {both, "unknown", ""}, {both, echo.Type, ">=9"}} {
		_, err := rig.grant(t.Context(), c.client, c.kind, c.version)
		if connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("%s %s: %v", c.kind, c.version, err)
			continue
		}
		seen = append(seen, err.Error())
	}
	for _, s := range seen {
		if s != seen[0] {
			t.Errorf("%q and %q tell what exists", s, seen[0])
		}
	}
	rig.mustGrant(t, both, echo.Type)
}

// One grant can be revoked, with what goes on under it and nothing else.
func TestAudit_H21_GrantsAreRevokedOneByOne(t *testing.T) {
	t.Parallel()
	rig := newCapabilityRig(t, echo.Service{}.Handler(), nil)
	owner := rig.Enrol(t, "both", nil)
	echo.EachOption(t, func(t *testing.T, opts []connect.ClientOption) {
		doomed, kept := rig.mustGrant(t, owner, echo.Type), rig.mustGrant(t, owner, echo.Type)
		open := func(grant *connectpluginv1.CapabilityGrant) *connect.BidiStreamForClient[echo.Text, echo.Text] {
			stream := echo.NewClient(echo.At(grant.GetEndpointUrl(), rig.Stranger(t)), echo.Bidi, opts...).CallBidiStream(t.Context())
			maps.Copy(stream.RequestHeader(), bearerOf(grant))
			echo.SendWant(t, stream, "before", "before")
			t.Cleanup(func() { _ = stream.CloseRequest(); _ = stream.CloseResponse() })
			return stream
		}
		ends, goesOn := open(doomed), open(kept)
		if !rig.broker.RevokeGrant(doomed.GetGrantId()) {
			t.Fatal("no such grant")
		}
		if rig.broker.RevokeGrant(doomed.GetGrantId()) || rig.broker.RevokeGrant("unknown") {
			t.Error("revoked twice")
		}
		if err := echo.StreamEnd(t, ends); connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("the stream of the revoked grant: %v, want unauthenticated", err)
		}
		out := echo.CallUnary(t.Context(), echo.At(doomed.GetEndpointUrl(), rig.Stranger(t)), opts, bearerOf(doomed))
		if connect.CodeOf(out.Err) != connect.CodeUnauthenticated {
			t.Errorf("a call with the revoked grant: %v", out.Err)
		}
		echo.SendWant(t, goesOn, "after", "after")
		if out := echo.CallUnary(t.Context(), echo.At(kept.GetEndpointUrl(), rig.Stranger(t)), opts, bearerOf(kept)); out.Err != nil {
			t.Errorf("a call with the other grant: %v", out.Err)
		}
		named := false
		for _, e := range rig.Audit.Events() {
			named = named || e.Kind == connectplugin.AuditRevoked && e.Grant == doomed.GetGrantId() && e.Subject == ""
		}
		if !named {
			t.Error("the revocation was not audited")
		}
	})
}

// The end of the owner ends what goes on under its grants.
func TestAudit_PROTO31_EndOfTheOwnerEndsCapabilityStreams(t *testing.T) {
	t.Parallel()
	rig := newCapabilityRig(t, echo.Service{}.Handler(), nil)
	echo.EachOption(t, func(t *testing.T, opts []connect.ClientOption) {
		owner, other := rig.Enrol(t, "both", nil), rig.Enrol(t, "both", nil)
		open := func(c *connectplugin.Client) *connect.BidiStreamForClient[echo.Text, echo.Text] {
			conn, err := c.Capability(t.Context(), echo.Type, "")
			if err != nil {
				t.Fatal(err)
			}
			stream := echo.NewClient(conn, echo.Bidi, opts...).CallBidiStream(t.Context())
			echo.SendWant(t, stream, "before", "before")
			t.Cleanup(func() { _ = stream.CloseRequest(); _ = stream.CloseResponse() })
			return stream
		}
		ends, goesOn := open(owner), open(other)
		rig.Revoke(owner.RuntimeID())
		if err := echo.StreamEnd(t, ends); connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("the owner's stream: %v, want unauthenticated", err)
		}
		echo.SendWant(t, goesOn, "after", "after")
	})
}

// A connection to a capability obtains a new grant when the old one is refused,
// and is not misled by a capability that refuses a call by itself.
func TestCapabilityConn_RenewsItsGrant(t *testing.T) {
	t.Parallel()
	refuses := func(context.Context, *connect.Request[echo.Text], *connect.ServerStream[echo.Text]) error {
		return connect.NewError(connect.CodeUnauthenticated, nil)
	}
	rig := newCapabilityRig(t, echo.Service{Server: refuses}.Handler(), nil)
	owner := rig.Enrol(t, "both", nil)
	grants := func() (ids []string) {
		for _, e := range rig.Audit.Events() {
			if e.Kind == connectplugin.AuditGranted {
				ids = append(ids, e.Grant)
			}
		}
		return ids
	}
	echo.EachOption(t, func(t *testing.T, opts []connect.ClientOption) {
		conn, err := owner.Capability(t.Context(), echo.Type, "")
		if err != nil {
			t.Fatal(err)
		}
		before := len(grants())
		for range 5 {
			if out := echo.CallServer(t.Context(), conn, opts, nil); connect.CodeOf(out.Err) != connect.CodeUnauthenticated {
				t.Errorf("%v", out.Err)
			}
		}
		if n := len(grants()); n != before {
			t.Errorf("%d grants for calls that the capability refused", n-before)
		}
		all := grants()
		if !rig.broker.RevokeGrant(all[len(all)-1]) {
			t.Fatalf("no grant %q", all[len(all)-1])
		}
		if out := echo.CallUnary(t.Context(), conn, opts, nil); connect.CodeOf(out.Err) != connect.CodeUnauthenticated {
			t.Errorf("with the revoked grant: %v", out.Err)
		}
		for range 3 {
			if _, err := echo.NewClient(conn, echo.Unary, opts...).CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x"))); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		}
		if n := len(grants()); n != before+1 {
			t.Errorf("%d new grants, want 1", n-before)
		}
	})
}

// A connection to a capability asks for a grant of its own after the plugin was given
// a new identity, before the host refuses the one of the old.
func TestCapabilityConn_FollowsANewIdentity(t *testing.T) {
	t.Parallel()
	rig := newCapabilityRig(t, echo.Service{}.Handler(), nil)
	owner := rig.Enrol(t, "both", nil)
	conn, err := owner.Capability(t.Context(), echo.Type, "")
	if err != nil {
		t.Fatal(err)
	}
	echo.EachCall(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
		rig.Revoke(owner.RuntimeID())
		if err := owner.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		echo.Want(t, kind, echo.Kinds[kind](t.Context(), conn, opts, nil))
		for _, r := range rig.seen.Take() {
			if got := r.Header.Get("X-Plugin-Caller-Id"); got != owner.RuntimeID() {
				t.Errorf("the capability was called by %q, want the new identity %q", got, owner.RuntimeID())
			}
		}
	})
}

// A refused grant is not worth a line of the audit each time, and costs nobody
// else's budget.
func TestAudit_H50_BogusGrantsCostNobodyElse(t *testing.T) {
	t.Parallel()
	const burst = 30
	rig := newCapabilityRig(t, echo.Service{}.Handler(), func(c *connectplugin.ServeConfig) {
		c.Limits.RequestsPerSecond, c.Limits.RequestBurst = 1e-9, burst
		c.Limits.HandshakesPerSecond, c.Limits.HandshakeBurst = 1e-9, burst
	})
	owner := rig.Enrol(t, "both", nil)
	grant := rig.mustGrant(t, owner, echo.Type)
	to, stranger := grant.GetEndpointUrl(), rig.Stranger(t)
	refused := map[connect.Code]int{}
	for range 3 * burst {
		out := echo.CallUnary(t.Context(), echo.At(to, stranger), nil, http.Header{"Authorization": {"Bearer AAAA"}})
		refused[connect.CodeOf(out.Err)]++
	}
	if refused[connect.CodeUnauthenticated] != 3*burst {
		t.Errorf("refused with %v", refused)
	}
	audited := 0
	for _, e := range rig.Audit.Events() {
		if e.Kind == connectplugin.AuditAuthFailed {
			audited++
		}
	}
	if audited == 0 || audited > burst {
		t.Errorf("%d audit events", audited)
	}
	for i := range burst / 2 {
		if out := echo.CallUnary(t.Context(), echo.At(to, stranger), nil, bearerOf(grant)); out.Err != nil {
			t.Fatalf("honest call %d: %v", i, out.Err)
		}
	}
	// The owner's own budget is one for all that it does.
	code := connect.Code(0)
	for range 2 * burst {
		if out := echo.CallUnary(t.Context(), echo.At(to, stranger), nil, bearerOf(grant)); out.Err != nil {
			code = connect.CodeOf(out.Err)
		}
	}
	if code != connect.CodeResourceExhausted {
		t.Errorf("beyond the owner's budget: %v, want resource_exhausted", code)
	}
}

package connectplugin_test

import (
	"context"
	"maps"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// capabilityRig is a host with the capabilities "echo" and "different".
type capabilityRig struct {
	*hosttest.Host

	broker *connectplugin.CapabilityBroker
	seen   *requestRecorder
}

func capabilityPolicy() *connectplugin.Policy {
	return &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
		"both":  hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Capabilities = []string{echoType, "different"} }),
		"thief": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Capabilities = []string{echoType, "different"} }),
		"none":  hosttest.Allow(nil),
	}}
}

func newCapabilityRig(t *testing.T, service http.Handler, edit func(*connectplugin.ServeConfig)) *capabilityRig {
	t.Helper()
	r := &capabilityRig{broker: connectplugin.NewCapabilityBroker(""), seen: &requestRecorder{next: service}}
	r.broker.RegisterCapability(capability(r.seen, echoType, "1.2.0"))
	r.broker.RegisterCapability(capability(r.seen, "different", "1.2.0"))
	r.Host = hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.CapabilityBroker = capabilityPolicy(), r.broker
		if edit != nil {
			edit(c)
		}
	})
	return r
}

// grant asks for a grant.
func (r *capabilityRig) grant(ctx context.Context, c *connectplugin.Client, kind, minVersion string) (*connectpluginv1.CapabilityGrant, error) {
	client := connectpluginv1connect.NewCapabilityBrokerClient(c.HTTPClient(), r.URL)
	resp, err := client.RequestCapability(ctx, connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{
		CapabilityType: kind, MinVersion: minVersion, Reason: "test",
	}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetGrant(), nil
}

func (r *capabilityRig) mustGrant(t *testing.T, c *connectplugin.Client, kind string) *connectpluginv1.CapabilityGrant {
	t.Helper()
	grant, err := r.grant(t.Context(), c, kind, "")
	if err != nil {
		t.Fatalf("RequestCapability(%s): %v", kind, err)
	}
	return grant
}

// bearerOf are the fields that come with a grant.
func bearerOf(grant *connectpluginv1.CapabilityGrant, more ...string) http.Header {
	h := http.Header{"Authorization": {"Bearer " + grant.GetBearerToken()}}
	for i := 0; i < len(more); i += 2 {
		h.Add(more[i], more[i+1])
	}
	return h
}

// A grant is good for its type, its version, its owner and nobody else.
func TestAudit_H21_GrantIsBoundToTypeVersionAndOwner(t *testing.T) {
	t.Parallel()
	rig := newCapabilityRig(t, echoService{}.handler(), nil)
	owner, thief := rig.Enrol(t, "both", nil), rig.Enrol(t, "thief", nil)
	grant, other := rig.mustGrant(t, owner, echoType), rig.mustGrant(t, owner, "different")
	stranger := rig.Stranger(t)
	base := rig.URL + "/capabilities/"
	honest := at(base+"echo/"+grant.GetGrantId(), stranger)
	for name, wrong := range map[string]struct {
		to     baseAt
		header http.Header
	}{
		"grant for another type":    {at(base+"different/"+grant.GetGrantId(), stranger), bearerOf(grant)},
		"token of another grant":    {honest, bearerOf(other)},
		"id of another grant":       {at(base+"echo/"+other.GetGrantId(), stranger), bearerOf(grant)},
		"another runtime id":        {honest, bearerOf(grant, "X-Plugin-Runtime-Id", thief.RuntimeID())},
		"two runtime ids":           {honest, bearerOf(grant, "X-Plugin-Runtime-Id", owner.RuntimeID(), "X-Plugin-Runtime-Id", thief.RuntimeID())},
		"empty runtime id":          {honest, bearerOf(grant, "X-Plugin-Runtime-Id", "")},
		"made-up token":             {honest, http.Header{"Authorization": {"Bearer AAAA"}}},
		"no token":                  {honest, nil},
		"token twice":               {honest, bearerOf(grant, "Authorization", "Bearer "+grant.GetBearerToken())},
		"token in a cookie":         {honest, http.Header{"Cookie": {"token=" + grant.GetBearerToken()}}},
		"runtime token for a grant": {honest, http.Header{"Authorization": {"Bearer " + owner.RuntimeToken()}, "X-Plugin-Runtime-Id": {owner.RuntimeID()}}},
		"unknown grant":             {at(base+"echo/unknown", stranger), bearerOf(grant)},
		"runtime id for a grant id": {at(base+"echo/"+owner.RuntimeID(), stranger), bearerOf(grant)},
		"no grant":                  {at(base+"echo", stranger), bearerOf(grant)},
		"type in upper case":        {at(base+"ECHO/"+grant.GetGrantId(), stranger), bearerOf(grant)},
	} {
		t.Run(name, func(t *testing.T) {
			for protocol, opts := range protocols {
				for kind, call := range echoKinds {
					if out := call(t.Context(), wrong.to, opts, wrong.header); connect.CodeOf(out.err) != connect.CodeUnauthenticated {
						t.Errorf("%s, %s: %v %v, want unauthenticated", protocol, kind, out.messages, out.err)
					}
				}
			}
		})
	}
	if n := len(rig.seen.take()); n != 0 {
		t.Errorf("%d stolen calls reached the capability", n)
	}
	for protocol, opts := range protocols {
		for kind, call := range echoKinds {
			header := bearerOf(grant, "X-Plugin-Runtime-Id", owner.RuntimeID())
			out := call(t.Context(), honest, opts, header)
			if wantEcho(t, kind, out); out.err != nil {
				t.Errorf("%s: %v", protocol, out.err)
			}
		}
	}
}

// The grant of a plugin with a certificate is good on that certificate's
// connections only.
func TestAudit_H23_GrantIsBoundToTheOwnersCertificate(t *testing.T) {
	t.Parallel()
	rig := newCapabilityRig(t, echoService{}.handler(), nil)
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
	grant := rig.mustGrant(t, owner, echoType)
	for name, stolen := range map[string]*http.Client{"no certificate": rig.Stranger(t), "another certificate": thiefClient} {
		for protocol, opts := range protocols {
			out := callUnary(t.Context(), at(grant.GetEndpointUrl(), stolen), opts, bearerOf(grant))
			if connect.CodeOf(out.err) != connect.CodeUnauthenticated {
				t.Errorf("%s, %s: %v, want unauthenticated", name, protocol, out.err)
			}
		}
	}
	for protocol, opts := range protocols {
		if out := callUnary(t.Context(), at(grant.GetEndpointUrl(), ownClient), opts, bearerOf(grant)); out.err != nil {
			t.Errorf("the owner, %s: %v", protocol, out.err)
		}
	}
}

// A capability that was registered again in another version does not serve the
// grants of the one before; the same version goes on.
func TestAudit_H26_GrantIsBoundToTheVersion(t *testing.T) {
	t.Parallel()
	rig := newCapabilityRig(t, echoService{}.handler(), nil)
	owner := rig.Enrol(t, "both", nil)
	grant := rig.mustGrant(t, owner, echoType)
	to := at(grant.GetEndpointUrl(), rig.Stranger(t))
	rig.broker.RegisterCapability(capability(rig.seen, echoType, "1.2.0"))
	if out := callUnary(t.Context(), to, nil, bearerOf(grant)); out.err != nil {
		t.Errorf("the same version again: %v", out.err)
	}
	rig.seen.take()
	for _, version := range []string{"1.2.1", "2.0.0", "1.1.0"} {
		rig.broker.RegisterCapability(capability(rig.seen, echoType, version))
		for protocol, opts := range protocols {
			for kind, call := range echoKinds {
				if out := call(t.Context(), to, opts, bearerOf(grant)); connect.CodeOf(out.err) != connect.CodeNotFound {
					t.Errorf("version %s, %s, %s: %v, want not_found", version, protocol, kind, out.err)
				}
			}
		}
		if n := len(rig.seen.take()); n != 0 {
			t.Errorf("%d calls reached version %s", n, version)
		}
		if fresh, err := rig.grant(t.Context(), owner, echoType, ">="+version); err != nil || fresh.GetVersion() != version {
			t.Errorf("a grant for version %s: %v, %v", version, fresh, err)
		}
	}
}

// What policy forbids and what there is not look alike.
func TestAudit_H23_ForbiddenAndUnknownCapabilitiesLookAlike(t *testing.T) {
	t.Parallel()
	rig := newCapabilityRig(t, echoService{}.handler(), nil)
	none, both := rig.Enrol(t, "none", nil), rig.Enrol(t, "both", nil)
	var seen []string
	for _, c := range []struct {
		client        *connectplugin.Client
		kind, version string
	}{{none, echoType, ""}, {none, "unknown", ""}, {both, "unknown", ""}, {both, echoType, ">=9"}} {
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
	rig.mustGrant(t, both, echoType)
}

// One grant can be revoked, with what goes on under it and nothing else.
func TestAudit_H21_GrantsAreRevokedOneByOne(t *testing.T) {
	t.Parallel()
	rig := newCapabilityRig(t, echoService{}.handler(), nil)
	owner := rig.Enrol(t, "both", nil)
	eachOption(t, func(t *testing.T, opts []connect.ClientOption) {
		doomed, kept := rig.mustGrant(t, owner, echoType), rig.mustGrant(t, owner, echoType)
		open := func(grant *connectpluginv1.CapabilityGrant) *connect.BidiStreamForClient[echoText, echoText] {
			stream := echo(at(grant.GetEndpointUrl(), rig.Stranger(t)), echoBidi, opts...).CallBidiStream(t.Context())
			maps.Copy(stream.RequestHeader(), bearerOf(grant))
			sendWant(t, stream, "before", "before")
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
		if err := streamEnd(t, ends); connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("the stream of the revoked grant: %v, want unauthenticated", err)
		}
		out := callUnary(t.Context(), at(doomed.GetEndpointUrl(), rig.Stranger(t)), opts, bearerOf(doomed))
		if connect.CodeOf(out.err) != connect.CodeUnauthenticated {
			t.Errorf("a call with the revoked grant: %v", out.err)
		}
		sendWant(t, goesOn, "after", "after")
		if out := callUnary(t.Context(), at(kept.GetEndpointUrl(), rig.Stranger(t)), opts, bearerOf(kept)); out.err != nil {
			t.Errorf("a call with the other grant: %v", out.err)
		}
		named := false
		for _, e := range rig.Audit.Events() {
			named = named || e.Kind == connectplugin.AuditRevoked && e.Subject == doomed.GetGrantId()
		}
		if !named {
			t.Error("the revocation was not audited")
		}
	})
}

// The end of the owner ends what goes on under its grants.
func TestAudit_PROTO31_EndOfTheOwnerEndsCapabilityStreams(t *testing.T) {
	t.Parallel()
	rig := newCapabilityRig(t, echoService{}.handler(), nil)
	eachOption(t, func(t *testing.T, opts []connect.ClientOption) {
		owner, other := rig.Enrol(t, "both", nil), rig.Enrol(t, "both", nil)
		open := func(c *connectplugin.Client) *connect.BidiStreamForClient[echoText, echoText] {
			conn, err := c.Capability(t.Context(), echoType, "")
			if err != nil {
				t.Fatal(err)
			}
			stream := echo(conn, echoBidi, opts...).CallBidiStream(t.Context())
			sendWant(t, stream, "before", "before")
			t.Cleanup(func() { _ = stream.CloseRequest(); _ = stream.CloseResponse() })
			return stream
		}
		ends, goesOn := open(owner), open(other)
		rig.Revoke(owner.RuntimeID())
		if err := streamEnd(t, ends); connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("the owner's stream: %v, want unauthenticated", err)
		}
		sendWant(t, goesOn, "after", "after")
	})
}

// A connection to a capability obtains a new grant when the old one is refused,
// and is not misled by a capability that refuses a call by itself.
func TestCapabilityConn_RenewsItsGrant(t *testing.T) {
	t.Parallel()
	refuses := func(context.Context, *connect.Request[echoText], *connect.ServerStream[echoText]) error {
		return connect.NewError(connect.CodeUnauthenticated, nil)
	}
	rig := newCapabilityRig(t, echoService{server: refuses}.handler(), nil)
	owner := rig.Enrol(t, "both", nil)
	grants := func() (ids []string) {
		for _, e := range rig.Audit.Events() {
			if e.Kind == connectplugin.AuditGranted {
				ids = append(ids, e.Reason[len("grant "):len(e.Reason)-len(": ")])
			}
		}
		return ids
	}
	eachOption(t, func(t *testing.T, opts []connect.ClientOption) {
		conn, err := owner.Capability(t.Context(), echoType, "")
		if err != nil {
			t.Fatal(err)
		}
		before := len(grants())
		for range 5 {
			if out := callServer(t.Context(), conn, opts, nil); connect.CodeOf(out.err) != connect.CodeUnauthenticated {
				t.Errorf("%v", out.err)
			}
		}
		if n := len(grants()); n != before {
			t.Errorf("%d grants for calls that the capability refused", n-before)
		}
		all := grants()
		if !rig.broker.RevokeGrant(all[len(all)-1]) {
			t.Fatalf("no grant %q", all[len(all)-1])
		}
		if out := callUnary(t.Context(), conn, opts, nil); connect.CodeOf(out.err) != connect.CodeUnauthenticated {
			t.Errorf("with the revoked grant: %v", out.err)
		}
		for range 3 {
			if _, err := echo(conn, echoUnary, opts...).CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x"))); err != nil {
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
	rig := newCapabilityRig(t, echoService{}.handler(), nil)
	owner := rig.Enrol(t, "both", nil)
	conn, err := owner.Capability(t.Context(), echoType, "")
	if err != nil {
		t.Fatal(err)
	}
	eachCall(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
		rig.Revoke(owner.RuntimeID())
		if err := owner.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantEcho(t, kind, echoKinds[kind](t.Context(), conn, opts, nil))
		for _, r := range rig.seen.take() {
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
	rig := newCapabilityRig(t, echoService{}.handler(), func(c *connectplugin.ServeConfig) {
		c.Limits.RequestsPerSecond, c.Limits.RequestBurst = 1e-9, burst
		c.Limits.HandshakesPerSecond, c.Limits.HandshakeBurst = 1e-9, burst
	})
	owner := rig.Enrol(t, "both", nil)
	grant := rig.mustGrant(t, owner, echoType)
	to, stranger := grant.GetEndpointUrl(), rig.Stranger(t)
	refused := map[connect.Code]int{}
	for range 3 * burst {
		out := callUnary(t.Context(), at(to, stranger), nil, http.Header{"Authorization": {"Bearer AAAA"}})
		refused[connect.CodeOf(out.err)]++
	}
	if refused[connect.CodeUnauthenticated] > burst || refused[connect.CodeResourceExhausted] < burst {
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
		if out := callUnary(t.Context(), at(to, stranger), nil, bearerOf(grant)); out.err != nil {
			t.Fatalf("honest call %d: %v", i, out.err)
		}
	}
	// The owner's own budget is one for all that it does.
	code := connect.Code(0)
	for range 2 * burst {
		if out := callUnary(t.Context(), at(to, stranger), nil, bearerOf(grant)); out.err != nil {
			code = connect.CodeOf(out.err)
		}
	}
	if code != connect.CodeResourceExhausted {
		t.Errorf("beyond the owner's budget: %v, want resource_exhausted", code)
	}
}

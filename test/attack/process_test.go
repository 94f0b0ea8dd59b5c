package attack_test

import (
	"slices"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// lives are ways to prove who a process is, the same after each crash.
func (s *street) lives(t *testing.T) map[string]func(*connectplugin.ClientConfig) {
	t.Helper()
	cert := s.ca.Certify(t, hosttest.DNS("loose.example"), hosttest.Loopback)
	bare := s.ca.Certify(t, hosttest.Loopback)
	return map[string]func(*connectplugin.ClientConfig){
		"a secret":      func(c *connectplugin.ClientConfig) { c.SelfID = "storage" },
		"a certificate": func(c *connectplugin.ClientConfig) { c.SelfID, c.Secret, c.TLS = "loose", nil, s.ca.TLS(cert) },
		"a key":         func(c *connectplugin.ClientConfig) { c.SelfID, c.Secret, c.TLS = "loose", nil, s.ca.TLS(bare) },
		"nothing":       func(c *connectplugin.ClientConfig) { c.SelfID, c.Secret = "loose", nil },
	}
}

// A process that crashed and came back is one provider, however often; what it was before
// has ended. Another instance, elsewhere, is another provider.
func TestAudit_USE26_AProcessIsOneProviderHoweverOftenItCrashed(t *testing.T) {
	t.Parallel()
	for name := range newStreet(t, "").lives(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStreet(t, "")
			proof := s.lives(t)[name]
			second := s.enrol(t, "", "echo", proof)
			if err := s.move(t, second, "echo", s.house(t, &echo{})); err != nil {
				t.Fatal(err)
			}
			at := s.house(t, &echo{})
			var before []*connectplugin.Client
			for life := range 6 {
				c := s.enrol(t, "", "echo", proof)
				if err := s.move(t, c, "echo", at); err != nil {
					t.Fatalf("life %d: %v", life, err)
				}
				s.wantProviders(t, "echo", c, second)
				for _, gone := range before {
					s.wantEnded(t, gone)
				}
				before = append(before, c)
			}
			last := before[len(before)-1]
			if err := s.move(t, last, "echo", at+"/"); err != nil {
				t.Errorf("again: %v", err)
			}
			s.wantProviders(t, "echo", last, second)
			api := s.enrol(t, "api", "echo", nil)
			wantServed(t, "the process", s.through(t, api, "echo", last.RuntimeID()))
			wantServed(t, "the other one", s.through(t, api, "echo", second.RuntimeID()))
		})
	}
}

// Who names a self id without the proof that another gave ends nobody.
func TestAudit_USE26_OnlyTheSameProofComesBack(t *testing.T) {
	t.Parallel()
	s := newStreet(t, "")
	proofs, api := s.lives(t), s.enrol(t, "api", "echo", nil)
	delete(proofs, "a secret")
	for name, proof := range proofs {
		first := s.enrol(t, "", "echo", proof)
		at := s.house(t, &echo{})
		if err := s.move(t, first, "echo", at); err != nil {
			t.Fatal(err)
		}
		for other, otherProof := range proofs {
			if other == name {
				continue
			}
			liar := s.enrol(t, "", "echo", otherProof)
			for spelling, endpoint := range spellings(at) {
				if err := register(t, liar, "echo", endpoint); connect.CodeOf(err) != connect.CodePermissionDenied {
					t.Errorf("%s after %s, %s: %v", other, name, spelling, err)
				}
			}
			if !s.conflict(liar.RuntimeID(), "loose") {
				t.Errorf("%s after %s: no conflict in the audit", other, name)
			}
		}
		wantServed(t, name, s.through(t, api, "echo", first.RuntimeID()))
	}
}

// wantProviders checks who provides a type.
func (s *street) wantProviders(t *testing.T, serviceType string, want ...*connectplugin.Client) {
	t.Helper()
	var got, ids []string
	for _, p := range s.host.Registry().GetAllProviders(serviceType) {
		got = append(got, p.RuntimeID)
	}
	for _, c := range want {
		ids = append(ids, c.RuntimeID())
	}
	slices.Sort(got)
	slices.Sort(ids)
	if !slices.Equal(got, ids) {
		t.Errorf("%s is provided by %q, want %q", serviceType, got, ids)
	}
}

// wantEnded checks that an identity ended because its process came back.
func (s *street) wantEnded(t *testing.T, c *connectplugin.Client) {
	t.Helper()
	if code := hosttest.ReportWith(t, hosttest.HTTPClient(t, s.ca.TLS(nil)), s.host.URL, c.RuntimeID(), c.RuntimeToken()); code != connect.CodeUnauthenticated {
		t.Errorf("an identity of before: %v, want unauthenticated", code)
	}
	if !slices.ContainsFunc(s.host.Audit.Events(), func(e connectplugin.AuditEvent) bool {
		return e.Kind == connectplugin.AuditEnded && e.RuntimeID == c.RuntimeID() && e.Reason == "its process enrolled anew"
	}) {
		t.Error("the audit does not say why it ended")
	}
}

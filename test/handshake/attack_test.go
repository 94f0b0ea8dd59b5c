package handshake_test

import (
	"crypto/rand"
	"errors"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/alter"
)

// refusedByEither reports whether a handshake failed because the host refused it
// or because the client did not believe the answer, and not by accident.
func refusedByEither(err error) bool {
	return errors.Is(err, connectplugin.ErrHandshakeRefused) || errors.Is(err, connectplugin.ErrHostNotTrusted)
}

// requireApplied fails unless something was done to every field of a message.
func requireApplied(t *testing.T, d protoreflect.MessageDescriptor, applied map[string]bool) {
	t.Helper()
	fields := d.Fields()
	for i := range fields.Len() {
		if name := fields.Get(i).TextName(); !applied[name] {
			t.Errorf("field %s of %s was never altered", name, d.Name())
		}
	}
}

// tamper returns what the man in the middle does to a message.
func tamper[M proto.Message](t *testing.T, m M, a alter.Alteration, applied *bool) func([]byte) []byte {
	t.Helper()
	return func(body []byte) []byte {
		msg := hosttest.MustParse(t, body, m)
		before := proto.Clone(msg)
		*applied = a.Apply(msg.ProtoReflect()) && !proto.Equal(before, msg)
		return hosttest.MustMarshal(t, msg)
	}
}

func asRequest(do func([]byte) []byte) func(http.Header, []byte) []byte {
	return func(_ http.Header, body []byte) []byte { return do(body) }
}

// Whatever is done to a request on its way, no identity comes of it, whether the
// proof is bound to the TLS connection or not.
func TestAudit_PROTO11_AlteredRequestsAreRefused(t *testing.T) {
	t.Parallel()
	for name, bound := range map[string]bool{"bound": true, "unbound": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := attackedHost(t, nil)
			m := hosttest.StartMITM(t, host)
			victim := m.Victim(t, host, bound)
			d, applied := (&connectpluginv1.HandshakeRequest{}).ProtoReflect().Descriptor(), map[string]bool{}
			for _, a := range alter.Every(d, 1) {
				var altered bool
				m.Alter(asRequest(tamper(t, &connectpluginv1.HandshakeRequest{}, a, &altered)), nil)
				id, err := hosttest.EnrolOnce(t.Context(), victim)
				if !altered {
					continue
				}
				applied[strings.Split(a.Name, ":")[0]] = true
				if !refusedByEither(err) || id != "" {
					t.Errorf("%s: identity %q, %v; want a refusal", a.Name, id, err)
				}
			}
			requireApplied(t, d, applied)
			if bound && host.Audit.Has(connectplugin.AuditIssued) {
				t.Error("the host issued an identity for a request that came over another connection")
			}
			wantHonestUse(t, host, m)
		})
	}
}

// wantHonestUse shows that it was the alterations that were refused.
func wantHonestUse(t *testing.T, host *hosttest.Host, m *hosttest.MITM) {
	t.Helper()
	m.Alter(nil, nil)
	if _, err := hosttest.EnrolOnce(t.Context(), m.Victim(t, host, false)); err != nil {
		t.Errorf("passed on as it is: %v", err)
	}
	direct := m.Victim(t, host, true)
	direct.HostURL = host.URL
	if _, err := hosttest.EnrolOnce(t.Context(), direct); err != nil {
		t.Errorf("without a man in the middle: %v", err)
	}
}

// The host issues nothing for a request that was altered; an unaltered one is the
// only way that it does.
func TestAudit_PROTO11_NothingIsIssuedForAnAlteredRequest(t *testing.T) {
	t.Parallel()
	host := attackedHost(t, nil)
	m := hosttest.StartMITM(t, host)
	victim := m.Victim(t, host, false)
	for _, a := range alter.Every((&connectpluginv1.HandshakeRequest{}).ProtoReflect().Descriptor(), 1) {
		var altered bool
		do := tamper(t, &connectpluginv1.HandshakeRequest{}, a, &altered)
		m.Alter(func(_ http.Header, body []byte) []byte {
			if out := do(body); altered {
				return out
			}
			return nil // nothing to alter
		}, nil)
		_, _ = hosttest.EnrolOnce(t.Context(), victim)
		if altered && host.Audit.Has(connectplugin.AuditIssued) {
			t.Fatalf("%s: the host issued an identity", a.Name)
		}
	}
	wantHonestUse(t, host, m)
	if !host.Audit.Has(connectplugin.AuditIssued) {
		t.Error("the honest handshake is not in the audit: the test sees nothing")
	}
}

// Whatever is done to an answer on its way, the client does not believe it.
func TestAudit_PROTO11_AlteredAnswersAreRefused(t *testing.T) {
	t.Parallel()
	host := attackedHost(t, nil)
	m := hosttest.StartMITM(t, host)
	victim := m.Victim(t, host, false)
	d, applied := (&connectpluginv1.HandshakeResponse{}).ProtoReflect().Descriptor(), map[string]bool{}
	for _, a := range alter.Every(d, 1) {
		var altered bool
		m.Alter(nil, tamper(t, &connectpluginv1.HandshakeResponse{}, a, &altered))
		id, err := hosttest.EnrolOnce(t.Context(), victim)
		if !altered {
			t.Errorf("%s: the host's answer has nothing there to alter (%v)", a.Name, err)
			continue
		}
		applied[strings.Split(a.Name, ":")[0]] = true
		if !errors.Is(err, connectplugin.ErrHostNotTrusted) || id != "" {
			t.Errorf("%s: identity %q, %v; want ErrHostNotTrusted", a.Name, id, err)
		}
	}
	requireApplied(t, d, applied)
	wantHonestUse(t, host, m)
}

// Bodies that are cut, extended or have a bit turned over.
func TestAudit_PROTO11_DamagedBodiesAreRefused(t *testing.T) {
	t.Parallel()
	host := attackedHost(t, nil)
	m := hosttest.StartMITM(t, host)
	victim := m.Victim(t, host, false)
	if _, err := hosttest.EnrolOnce(t.Context(), victim); err != nil {
		t.Fatal(err)
	}
	requests, responses := m.Seen()
	damages := map[string]func(body []byte, at int) []byte{
		"cut":     func(body []byte, at int) []byte { return body[:at] },
		"doubled": func(body []byte, at int) []byte { return append(body, body[at:]...) },
		"flipped": func(body []byte, at int) []byte { body[at] ^= 1; return body },
	}
	const step = 5
	for name, damage := range damages {
		for at := 0; at < len(requests[0])-step; at += step {
			m.Alter(func(_ http.Header, body []byte) []byte { return damage(body, at) }, nil)
			if id, err := hosttest.EnrolOnce(t.Context(), victim); err == nil || id != "" {
				t.Errorf("request %s at %d: identity %q", name, at, id)
			}
		}
		for at := 0; at < len(responses[0])-step; at += step {
			m.Alter(nil, func(body []byte) []byte { return damage(body, at) })
			if id, err := hosttest.EnrolOnce(t.Context(), victim); err == nil || id != "" {
				t.Errorf("answer %s at %d: identity %q", name, at, id)
			}
		}
	}
	wantHonestUse(t, host, m)
}

// The whole, proven answer to one handshake is no answer to another.
func TestAudit_PROTO11_AnswersOfOtherHandshakesAreRefused(t *testing.T) {
	t.Parallel()
	host := attackedHost(t, nil)
	m := hosttest.StartMITM(t, host)
	victim := m.Victim(t, host, false)
	if _, err := hosttest.EnrolOnce(t.Context(), victim); err != nil {
		t.Fatal(err)
	}
	_, captured := m.Seen()
	m.Alter(nil, func([]byte) []byte { return captured[0] })
	if id, err := hosttest.EnrolOnce(t.Context(), victim); !errors.Is(err, connectplugin.ErrHostNotTrusted) || id != "" {
		t.Errorf("a captured answer: identity %q, %v; want ErrHostNotTrusted", id, err)
	}
	// Nor with the nonce of the new answer put into it, or its proof.
	for name, graft := range map[string]func(old, fresh *connectpluginv1.HandshakeResponse){
		"fresh nonce": func(old, fresh *connectpluginv1.HandshakeResponse) { old.ServerNonce = fresh.GetServerNonce() },
		"fresh proof": func(old, fresh *connectpluginv1.HandshakeResponse) {
			old.ChallengeResponse = fresh.GetChallengeResponse()
		},
		"fresh both": func(old, fresh *connectpluginv1.HandshakeResponse) {
			old.ServerNonce, old.ChallengeResponse = fresh.GetServerNonce(), fresh.GetChallengeResponse()
		},
	} {
		m.Alter(nil, func(body []byte) []byte {
			old := hosttest.MustParse(t, captured[0], &connectpluginv1.HandshakeResponse{})
			graft(old, hosttest.MustParse(t, body, &connectpluginv1.HandshakeResponse{}))
			return hosttest.MustMarshal(t, old)
		})
		if id, err := hosttest.EnrolOnce(t.Context(), victim); !errors.Is(err, connectplugin.ErrHostNotTrusted) || id != "" {
			t.Errorf("a captured answer with %s: identity %q, %v; want ErrHostNotTrusted", name, id, err)
		}
	}
	wantHonestUse(t, host, m)
}

// forgeries are what an attacker without the secret does to a request and to the
// answer to it.
func forgeries(t *testing.T) map[string]struct {
	request  func(*connectpluginv1.HandshakeRequest)
	response func(*connectpluginv1.HandshakeResponse, *connectpluginv1.HandshakeRequest)
} {
	t.Helper()
	type forgery = struct {
		request  func(*connectpluginv1.HandshakeRequest)
		response func(*connectpluginv1.HandshakeResponse, *connectpluginv1.HandshakeRequest)
	}
	random := make([]byte, 32)
	_, _ = rand.Read(random)
	noProof := func(m *connectpluginv1.HandshakeRequest) { m.ClientProof = nil }
	firstVersion := func(m *connectpluginv1.HandshakeRequest) {
		m.ClientProof, m.ClientNonce, m.IssuedAt, m.Provides, m.Requires = nil, nil, nil, nil, nil
		m.MinProtocolVersion, m.MaxProtocolVersion = 0, 0
	}
	return map[string]forgery{
		"nothing":       {},
		"no proof":      {request: noProof},
		"first version": {request: firstVersion},
		"made-up proof": {request: func(m *connectpluginv1.HandshakeRequest) { m.ClientProof = random }},
		"made-up answer": {noProof, func(m *connectpluginv1.HandshakeResponse, _ *connectpluginv1.HandshakeRequest) {
			m.ChallengeResponse = random
		}},
		"empty proof": {request: func(m *connectpluginv1.HandshakeRequest) { m.ClientProof = []byte{} }},
		"zero proof":  {request: func(m *connectpluginv1.HandshakeRequest) { m.ClientProof = make([]byte, 32) }},
		"reflected answer": {noProof, func(m *connectpluginv1.HandshakeResponse, r *connectpluginv1.HandshakeRequest) {
			m.ChallengeResponse = r.GetClientProof()
		}},
		"reflected nonce": {noProof, func(m *connectpluginv1.HandshakeResponse, r *connectpluginv1.HandshakeRequest) {
			m.ServerNonce, m.ChallengeResponse = r.GetClientNonce(), r.GetClientProof()
		}},
		"no nonce, reflected": {firstVersion, func(m *connectpluginv1.HandshakeResponse, r *connectpluginv1.HandshakeRequest) {
			m.ServerNonce, m.ChallengeResponse = r.GetClientNonce(), r.GetClientProof()
		}},
	}
}

// A side that holds a secret accepts nobody who does not, whatever is done on the
// way to make up for it.
func TestAudit_PROTO11_SecretOnOneSideOnly(t *testing.T) {
	t.Parallel()
	sides := map[string]struct {
		host, client bool // who has the secret
	}{"host": {host: true}, "client": {client: true}}
	for name, side := range sides {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := attackedHost(t, func(c *connectplugin.ServeConfig) {
				rules := c.Policy.Plugins["victim"]
				if rules.AllowUnproven = true; !side.host {
					rules.Secret = nil
				}
				c.Policy.Plugins["victim"] = rules
			})
			m := hosttest.StartMITM(t, host)
			victim := m.Victim(t, host, false)
			if !side.client {
				victim.Secret = nil
			}
			for name, f := range forgeries(t) {
				var asked *connectpluginv1.HandshakeRequest
				m.Alter(func(_ http.Header, body []byte) []byte {
					asked = hosttest.MustParse(t, body, &connectpluginv1.HandshakeRequest{})
					sent, _ := proto.Clone(asked).(*connectpluginv1.HandshakeRequest)
					if f.request != nil {
						f.request(sent)
					}
					return hosttest.MustMarshal(t, sent)
				}, func(body []byte) []byte {
					answer := hosttest.MustParse(t, body, &connectpluginv1.HandshakeResponse{})
					if f.response != nil {
						f.response(answer, asked)
					}
					return hosttest.MustMarshal(t, answer)
				})
				id, err := hosttest.EnrolOnce(t.Context(), victim)
				if !refusedByEither(err) || id != "" {
					t.Errorf("%s: identity %q, %v; want a refusal", name, id, err)
				}
				if f.request == nil && !errors.Is(err, connectplugin.ErrHandshakeRefused) {
					t.Errorf("%s: %v; want the host to refuse", name, err)
				}
			}
			for _, a := range alter.Every((&connectpluginv1.HandshakeRequest{}).ProtoReflect().Descriptor(), 1) {
				var altered bool
				m.Alter(asRequest(tamper(t, &connectpluginv1.HandshakeRequest{}, a, &altered)), nil)
				if id, err := hosttest.EnrolOnce(t.Context(), victim); !refusedByEither(err) || id != "" {
					t.Errorf("%s: identity %q, %v; want a refusal", a.Name, id, err)
				}
			}
			if side.host && host.Audit.Has(connectplugin.AuditIssued) {
				t.Error("the host issued an identity without a proof")
			}
			// Both alike, with or without the secret, understand each other.
			m.Alter(nil, nil)
			if victim.Secret = hosttest.Secret; !side.host {
				victim.Secret = nil
			}
			if _, err := hosttest.EnrolOnce(t.Context(), victim); err != nil {
				t.Errorf("both sides alike: %v", err)
			}
		})
	}
}

// A relay that alters nothing, with a certificate that both sides trust: a client
// that sees its connection binds its proof to it, always, and is safe. One behind
// an HTTP client of its own cannot, and is accepted unless the host demands it.
func TestAudit_PROTO11_RelayWithATrustedCertificate(t *testing.T) {
	t.Parallel()
	for name, demanded := range map[string]bool{"by default": false, "binding demanded": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := attackedHost(t, func(c *connectplugin.ServeConfig) { c.HandshakeAuth.RequireChannelBinding = demanded })
			m := hosttest.StartMITM(t, host)
			_, err := hosttest.EnrolOnce(t.Context(), m.Victim(t, host, true))
			if !errors.Is(err, connectplugin.ErrHandshakeRefused) || connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Errorf("a client that dials by itself, through the relay: %v, want a refusal", err)
			}
			if host.Audit.Has(connectplugin.AuditIssued) {
				t.Error("the relay obtained an identity")
			}
			behindProxy, honest := m.Victim(t, host, false), m.Victim(t, host, true)
			honest.HostURL = host.URL
			if _, err := hosttest.EnrolOnce(t.Context(), behindProxy); (err != nil) != demanded {
				t.Errorf("a client that brings its HTTP client, through the relay: %v", err)
			}
			behindProxy.HostURL = host.URL
			if _, err := hosttest.EnrolOnce(t.Context(), behindProxy); (err != nil) != demanded {
				t.Errorf("a client that brings its HTTP client, directly: %v", err)
			}
			c, err := connectplugin.NewClient(honest)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			for _, what := range []string{"enrolment", "renewal", "second renewal"} {
				if err := c.Connect(t.Context()); err != nil {
					t.Errorf("directly, %s: %v", what, err)
				}
			}
		})
	}
}

// The credentials of a renewal are no part of the proof. Without them the renewal
// would be an enrolment; with another's it would be theirs.
func TestAudit_PROTO11_RenewalsKeepTheirIdentity(t *testing.T) {
	t.Parallel()
	host := attackedHost(t, func(c *connectplugin.ServeConfig) { c.Policy.Plugins["attacker"] = hosttest.Allow(nil) })
	m := hosttest.StartMITM(t, host)
	attacker := host.Enrol(t, "attacker", nil)
	c, err := connectplugin.NewClient(m.Victim(t, host, false))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	id := c.RuntimeID()
	m.Alter(func(h http.Header, body []byte) []byte {
		h.Del("X-Plugin-Runtime-Id")
		h.Del("Authorization")
		return body
	}, nil)
	if err := c.Connect(t.Context()); !errors.Is(err, connectplugin.ErrHostNotTrusted) || c.RuntimeID() != id {
		t.Errorf("credentials stripped: identity %q became %q, %v; want ErrHostNotTrusted", id, c.RuntimeID(), err)
	}
	m.Alter(func(h http.Header, body []byte) []byte {
		h.Set("X-Plugin-Runtime-Id", attacker.RuntimeID())
		h.Set("Authorization", "Bearer "+attacker.RuntimeToken())
		return body
	}, nil)
	if err := c.Connect(t.Context()); !errors.Is(err, connectplugin.ErrHandshakeRefused) || c.RuntimeID() != id {
		t.Errorf("another's credentials: identity %q became %q, %v; want the host to refuse", id, c.RuntimeID(), err)
	}
	m.Alter(nil, nil)
	if err := c.Connect(t.Context()); err != nil || c.RuntimeID() != id {
		t.Errorf("as it is: identity %q became %q, %v", id, c.RuntimeID(), err)
	}
}

package handshake_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

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

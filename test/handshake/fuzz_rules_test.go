package handshake_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

// judge compares what the host did with what plain rules say.
func (h *fuzzedHost) judge(t *testing.T, c *fuzzedCall, got fuzzedAnswer, before *connectpluginv1.HandshakeResponse) {
	t.Helper()
	if got.err != nil {
		if !slices.Contains(fuzzedCodes, connect.CodeOf(got.err)) && c.raw == nil {
			t.Errorf("refused with %v", got.err)
		}
		if c.raw != nil && connect.CodeOf(got.err) == connect.CodeUnknown {
			t.Errorf("raw bytes are answered by what no client understands: %v", got.err)
		}
	}
	if c.raw != nil {
		h.judgeRaw(t, got)
		return
	}
	issued := got.resp.GetRuntimeId() != ""
	if (got.resp.GetRuntimeToken() != "") != issued {
		t.Errorf("half an identity: %v", got.resp)
	}
	rules := fuzzedRules{c}
	if issued && !rules.grant() {
		t.Errorf("%v got the identity %s, which nothing grants", c.msg, got.resp.GetRuntimeId())
	}
	if issued && len(c.msg.GetClientProof()) > 0 {
		nonce := c.msg.GetSelfId() + string(c.msg.GetClientNonce())
		if h.spent[nonce] {
			t.Errorf("%v was accepted twice", c.msg)
		}
		h.spent[nonce] = true
	}
	renewed := issued && got.resp.GetRuntimeId() == before.GetRuntimeId()
	if renewed != (issued && c.credential == credentialLive) {
		t.Errorf("credentials %d: identity %s became %s", c.credential, before.GetRuntimeId(), got.resp.GetRuntimeId())
	}
	if !issued && rules.grant() && rules.plain() {
		t.Errorf("%v, proof %d, credential %d got no identity: %v", c.msg, c.proof, c.credential, got.err)
	}
}

// judgeRaw allows raw bytes what a message in them would get: only one that
// needs no proof can be in them, since the fuzzer has no secret.
func (h *fuzzedHost) judgeRaw(t *testing.T, got fuzzedAnswer) {
	t.Helper()
	if id := got.resp.GetRuntimeId(); id != "" && !strings.HasPrefix(id, "open-") && !strings.HasPrefix(id, "certified-") {
		t.Errorf("raw bytes got the identity %s", id)
	}
}

// fuzzedRules says in plain words who may get an identity of the fuzzed host.
type fuzzedRules struct{ *fuzzedCall }

func (r fuzzedRules) grant() bool {
	m := r.msg
	return m.GetMagicCookieKey() == connectplugin.DefaultMagicCookieKey && m.GetMagicCookieValue() == connectplugin.DefaultMagicCookieValue &&
		m.GetCoreProtocolVersion() == 1 && r.speaks() && r.proven() && r.credentials()
}

// speaks tries the versions of the host one by one.
func (r fuzzedRules) speaks() bool {
	lowest, highest := r.msg.GetMinProtocolVersion(), r.msg.GetMaxProtocolVersion()
	if lowest == 0 {
		lowest = r.msg.GetAppProtocolVersion()
	}
	if highest == 0 {
		highest = r.msg.GetAppProtocolVersion()
	}
	for v := int32(fuzzedVersionMin); v <= fuzzedVersionMax; v++ {
		if 0 <= lowest && lowest <= v && v <= highest {
			return true
		}
	}
	return false
}

// proven tells whether the peer is whom it says that it is.
func (r fuzzedRules) proven() bool {
	hasProof := len(r.msg.GetClientProof()) > 0
	secret := (r.proof == proofUnbound || r.proof == proofBound) && r.timely()
	foreign := r.peer.certificate != "" && r.peer.certificate != r.msg.GetSelfId()
	switch r.msg.GetSelfId() {
	case "open":
		return !hasProof && !foreign
	case "certified":
		return !hasProof && r.peer.certificate == "certified"
	case "secret", "opened":
		return secret && !foreign
	case "both":
		return secret && r.peer.certificate == "both"
	default:
		return false
	}
}

// timely tells whether the clock that a proof names is right.
func (r fuzzedRules) timely() bool {
	if r.msg.GetIssuedAt() == nil {
		return false
	}
	const skew, slack = 2 * time.Minute, time.Minute
	return time.Since(r.msg.GetIssuedAt().AsTime()).Abs() <= skew+slack
}

// credentials tells whether what is beside the message allows an identity.
func (r fuzzedRules) credentials() bool {
	return r.credential == credentialNone || r.credential == credentialLive && r.msg.GetSelfId() == "open"
}

// plain tells whether the message has nothing else to be refused for.
func (r fuzzedRules) plain() bool {
	m, _ := proto.Clone(r.msg).(*connectpluginv1.HandshakeRequest)
	m.ClientProof, m.ClientNonce, m.IssuedAt = nil, nil, nil
	m.SelfId, m.MagicCookieKey, m.MagicCookieValue = "", "", ""
	m.CoreProtocolVersion, m.AppProtocolVersion, m.MinProtocolVersion, m.MaxProtocolVersion = 0, 0, 0, 0
	nonce := len(r.msg.GetClientNonce())
	return proto.Size(m) == 0 && (r.proof == proofAsIs || r.fresh) && (nonce == 0 || nonce == transcript.NonceSize)
}

// wantNoSecrets looks for secrets in an answer and in what the operator sees.
func wantNoSecrets(t *testing.T, c *fuzzedCall, got fuzzedAnswer, before *connectpluginv1.HandshakeResponse, logged string) {
	t.Helper()
	secrets := []string{string(hosttest.Secret), base64.StdEncoding.EncodeToString(hosttest.Secret), before.GetRuntimeToken()}
	for _, s := range secrets {
		if strings.Contains(logged, s) || bytes.Contains(got.seen, []byte(s)) {
			t.Errorf("a secret is in the answer or the audit of %v: %q %q", c.msg, got.seen, logged)
		}
	}
	if token := got.resp.GetRuntimeToken(); token != "" && strings.Contains(logged, token) {
		t.Errorf("a new token is in the audit: %q", logged)
	}
	var coded *connect.Error
	if errors.As(got.err, &coded) && len(coded.Message()) > 1<<10 {
		t.Errorf("an error of %d bytes", len(coded.Message()))
	}
}

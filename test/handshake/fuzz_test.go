package handshake_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/alter"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

// How a fuzzed handshake is proven before it is sent.
const (
	proofAsIs    = iota // whatever the bytes say
	proofUnbound        // with the secret
	proofBound          // with the secret, for the connection that it is sent on
	proofOther          // with the secret, for another connection
	proofWrong          // with another secret
	proofAltered        // with the secret, and altered afterwards
	proofs
)

// freshProof and more: with a new nonce, issued now.
const freshProof = 128

// The credentials beside it.
const (
	credentialNone    = iota
	credentialLive    // of a live identity of "open"
	credentialMadeUp  // its runtime id, and a token of the fuzzer
	credentialForeign // a runtime id of the fuzzer, and its token
	credentialWays
)

// rawBody and more: the bytes are sent as they are.
const rawBody = 128

// fuzzedCodes are all codes with which a handshake may be refused.
var fuzzedCodes = []connect.Code{
	connect.CodeInvalidArgument, connect.CodeFailedPrecondition, connect.CodeUnauthenticated, connect.CodeResourceExhausted,
}

// fuzzedProtocols are the ways to say the same, in a fixed order.
var fuzzedProtocols = [][]connect.ClientOption{
	nil,
	{connect.WithProtoJSON()},
	{connect.WithGRPC()},
	{connect.WithGRPCWeb()},
	{connect.WithGRPC(), connect.WithProtoJSON()},
	{connect.WithGRPCWeb(), connect.WithProtoJSON()},
	{connect.WithSendGzip()},
}

// tlsStates returns both ends' view of one TLS connection. The client shows a
// certificate if its configuration has one.
func tlsStates(t testing.TB, a *connectplugin.Authority, client *tls.Config) (host, peer tls.ConnectionState) {
	t.Helper()
	cfg, err := a.HostTLS("localhost")
	if err != nil {
		t.Fatal(err)
	}
	cfg.ClientAuth, cfg.ClientCAs = tls.VerifyClientCertIfGiven, a.CertPool()
	client = client.Clone()
	client.ServerName = "localhost"
	here, there := net.Pipe()
	server, dialled := tls.Server(there, cfg), tls.Client(here, client)
	done := make(chan error, 1)
	go func() {
		// A connection in memory holds nothing: what follows the handshake of
		// TLS 1.3 must be read.
		go func() { _, _ = io.Copy(io.Discard, dialled) }()
		done <- server.HandshakeContext(context.Background())
	}()
	if err := dialled.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = here.Close()
		_ = there.Close()
	})
	return server.ConnectionState(), dialled.ConnectionState()
}

// fuzzedPeer is one connection to the host under fuzzing.
type fuzzedPeer struct {
	state       tls.ConnectionState
	binding     []byte
	certificate string // the self id that its certificate names, "" for none
}

// fuzzedHost is a host whose handler is called without a network.
type fuzzedHost struct {
	*connectplugin.Host

	authority *connectplugin.Authority
	peers     []fuzzedPeer
	log       *strings.Builder // of the call being made
	spent     map[string]bool  // nonces with which an identity was issued
	calls     int
}

const fuzzedVersionMin, fuzzedVersionMax = 2, 4

func newFuzzedHost(t testing.TB) *fuzzedHost {
	t.Helper()
	h := &fuzzedHost{authority: hosttest.NewAuthority(t), log: &strings.Builder{}, spent: map[string]bool{}}
	cfg := &connectplugin.ServeConfig{
		Authority: h.authority, ProtocolVersion: fuzzedVersionMax, MinProtocolVersion: fuzzedVersionMin,
		Limits:        connectplugin.Limits{HandshakesPerSecond: 1e9, HandshakeBurst: 1e9},
		HandshakeAuth: connectplugin.HandshakeAuth{ReplayCacheSize: 1 << 24}, // never full
		Audit:         func(e connectplugin.AuditEvent) { h.log.WriteString(e.Reason + e.RuntimeID + e.SelfID + "\n") },
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"secret":    {Secret: hosttest.Secret},
			"open":      {AllowUnproven: true},
			"opened":    {Secret: hosttest.Secret, AllowUnproven: true}, // the secret is demanded all the same
			"certified": {Certificates: []string{h.authority.PluginIdentity("certified")}},
			"both":      {Secret: hosttest.Secret, Certificates: []string{h.authority.PluginIdentity("both")}},
			"nothing":   {},
		}},
	}
	host, err := connectplugin.NewHost(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Host = host
	t.Cleanup(func() { _ = host.Shutdown(context.Background()) })
	for _, name := range []string{"", "certified", "both"} {
		client := h.authority.ClientTLS()
		if name != "" {
			if client, err = h.authority.PluginTLS(name); err != nil {
				t.Fatal(err)
			}
		}
		state, seen := tlsStates(t, h.authority, client)
		binding, err := transcript.ChannelBinding(&seen)
		if err != nil {
			t.Fatal(err)
		}
		h.peers = append(h.peers, fuzzedPeer{state: state, binding: binding, certificate: name})
	}
	return h
}

// fuzzedTransport calls the host's handler. A body, if there is one, takes the
// place of what the client would send.
type fuzzedTransport struct {
	host *fuzzedHost
	peer *fuzzedPeer
	body []byte
	sent bool
	seen []byte // what came back, headers and trailers included
}

// RoundTrip serves one request.
func (f *fuzzedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if f.body != nil {
		body = f.body
	}
	in := httptest.NewRequestWithContext(r.Context(), r.Method, r.URL.String(), bytes.NewReader(body))
	in.Header, in.TLS, in.RequestURI = r.Header.Clone(), &f.peer.state, r.URL.Path
	in.Proto, in.ProtoMajor, in.ProtoMinor = "HTTP/2.0", 2, 0
	rec := httptest.NewRecorder()
	f.sent = true
	f.host.Handler().ServeHTTP(rec, in)
	resp := rec.Result()
	resp.Proto, resp.ProtoMajor, resp.ProtoMinor, resp.Request = "HTTP/2.0", 2, 0, r
	var seen bytes.Buffer
	_ = rec.Header().Write(&seen)
	seen.Write(rec.Body.Bytes())
	f.seen = seen.Bytes()
	return resp, nil
}

// fuzzedCall is one handshake that the fuzzer makes.
type fuzzedCall struct {
	peer       *fuzzedPeer
	protocol   []connect.ClientOption
	msg        *connectpluginv1.HandshakeRequest
	raw        []byte // sent in place of msg where it is none
	proof      int
	fresh      bool // a new nonce, issued now
	credential int
	id, token  string // made up
}

func (h *fuzzedHost) newCall(data []byte, peer, protocol, proof, credential uint8, id, token string) *fuzzedCall {
	c := &fuzzedCall{
		peer: &h.peers[int(peer)%len(h.peers)], protocol: fuzzedProtocols[int(protocol)%len(fuzzedProtocols)],
		proof: int(proof%freshProof) % proofs, fresh: proof >= freshProof, credential: int(credential) % credentialWays, id: id, token: token,
	}
	msg := &connectpluginv1.HandshakeRequest{}
	if credential >= rawBody || proto.Unmarshal(data, msg) != nil {
		c.raw = data
		if len(c.raw) == 0 {
			c.raw = []byte{0}
		}
		return c
	}
	c.msg = msg
	h.prove(c)
	return c
}

// prove puts on a message what its proof demands, and the proof.
func (h *fuzzedHost) prove(c *fuzzedCall) {
	h.calls++
	if c.proof == proofAsIs {
		return
	}
	nonce := sha256.Sum256(c.msg.GetClientNonce())
	if c.fresh {
		nonce = sha256.Sum256([]byte{byte(h.calls), byte(h.calls >> 8), byte(h.calls >> 16), byte(h.calls >> 24)})
		c.msg.IssuedAt = timestamppb.Now()
	}
	c.msg.ClientNonce = nonce[:]
	secret, binding := hosttest.Secret, []byte(nil)
	switch c.proof {
	case proofBound:
		binding = c.peer.binding
	case proofOther:
		binding = bytes.Repeat([]byte{7}, transcript.BindingSize)
	case proofWrong:
		secret = connectplugin.Secret("another secret of the same length")
	}
	key, err := transcript.ClientKey(secret, c.msg.GetClientNonce())
	if err != nil {
		panic(err)
	}
	signed := transcript.New("connectplugin handshake v1 request")
	signed.Message(c.msg, wire.ClientProofNumber)
	signed.Optional(binding)
	c.msg.ClientProof = key.Proof(signed)
	if c.proof == proofAltered {
		c.msg.RequestedPlugins = append(c.msg.GetRequestedPlugins(), "added") // JSON would drop an unknown field
	}
}

// fuzzedAnswer is what came of a call.
type fuzzedAnswer struct {
	sent bool
	resp *connectpluginv1.HandshakeResponse // nil: refused
	err  error
	seen []byte
}

func (h *fuzzedHost) call(ctx context.Context, c *fuzzedCall, id, token string) fuzzedAnswer {
	tripper := &fuzzedTransport{host: h, peer: c.peer, body: c.raw}
	client := connectpluginv1connect.NewHandshakeServiceClient(&http.Client{Transport: tripper}, "https://localhost", c.protocol...)
	msg := c.msg
	if msg == nil {
		msg = &connectpluginv1.HandshakeRequest{}
	}
	req := connect.NewRequest(msg)
	switch c.credential {
	case credentialLive:
		req.Header()["X-Plugin-Runtime-Id"], req.Header()["Authorization"] = []string{id}, []string{"Bearer " + token}
	case credentialMadeUp:
		req.Header()["X-Plugin-Runtime-Id"], req.Header()["Authorization"] = []string{id}, []string{"Bearer " + c.token}
	case credentialForeign:
		req.Header()["X-Plugin-Runtime-Id"], req.Header()["Authorization"] = []string{c.id}, []string{"Bearer " + token}
	}
	h.log.Reset()
	resp, err := client.Handshake(ctx, req)
	out := fuzzedAnswer{sent: tripper.sent, err: err, seen: tripper.seen}
	if err == nil {
		out.resp = resp.Msg
	}
	return out
}

// Whatever bytes come as a handshake, in whatever protocol and with whatever
// proof and credentials: who gets an identity is whom plain rules grant one.
func FuzzHandshakeRequest(f *testing.F) {
	host := newFuzzedHost(f)
	seedHandshakes(f)
	f.Fuzz(func(t *testing.T, data []byte, peer, protocol, proof, credential uint8, id, token string) {
		before := host.handshakeAs(t, "open")
		c := host.newCall(data, peer, protocol, proof, credential, id, token)
		got := host.call(t.Context(), c, before.GetRuntimeId(), before.GetRuntimeToken())
		logged := host.log.String()
		if got.sent {
			host.judge(t, c, got, before)
			wantNoSecrets(t, c, got, before, logged)
		}
		for _, id := range []string{before.GetRuntimeId(), got.resp.GetRuntimeId()} {
			host.Revoke(id)
		}
		if id != before.GetRuntimeId() && host.Revoke(id) {
			t.Errorf("an identity was left: %q", id)
		}
	})
}

// handshakeAs enrols without proof.
func (h *fuzzedHost) handshakeAs(t testing.TB, selfID string) *connectpluginv1.HandshakeResponse {
	t.Helper()
	m := hosttest.OldRequest(selfID)
	m.AppProtocolVersion = fuzzedVersionMin
	got := h.call(t.Context(), &fuzzedCall{peer: &h.peers[0], msg: m}, "", "")
	if got.resp.GetRuntimeToken() == "" {
		t.Fatalf("the honest handshake of %q: %v", selfID, got.err)
	}
	return got.resp
}

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

// seedHandshakes seeds with honest handshakes of everybody and with all that the
// tests of alterations do to one.
func seedHandshakes(f *testing.F) {
	f.Helper()
	for i, selfID := range []string{"secret", "open", "opened", "certified", "both", "nothing", "unknown", "", "../../etc"} {
		m := wire.FreshRequest(selfID)
		m.AppProtocolVersion = fuzzedVersionMin
		body := hosttest.MustMarshal(f, m)
		for range 2 { // the second is a replay
			f.Add(body, uint8(0), uint8(i), uint8(proofUnbound), uint8(credentialNone), "", "")
		}
		for peer := range uint8(3) {
			for proof := range uint8(proofs) {
				f.Add(body, peer, uint8(i), proof+freshProof, uint8(credentialNone), "", "")
			}
			f.Add(body, peer, uint8(i), uint8(proofAsIs), uint8(credentialLive), "", "")
		}
		f.Add(body, uint8(0), uint8(i), uint8(proofAsIs), uint8(credentialMadeUp), "", "AAAA")
		f.Add(body, uint8(0), uint8(i), uint8(proofAsIs), uint8(credentialForeign), "nobody", "")
		f.Add(body, uint8(0), uint8(i), uint8(proofAsIs), uint8(rawBody), "", "") // without an envelope
	}
	for i, a := range alter.Every((&connectpluginv1.HandshakeRequest{}).ProtoReflect().Descriptor(), 1) {
		m := wire.FreshRequest("secret")
		m.AppProtocolVersion, m.MinProtocolVersion, m.MaxProtocolVersion = fuzzedVersionMin, 1, fuzzedVersionMax
		m.Provides = []*connectpluginv1.ServiceDeclaration{{Type: "a", Version: "1.0.0", Path: "/a/"}, {Type: "b", Version: "1.0.0"}}
		m.Requires = []*connectpluginv1.ServiceDependency{{Type: "c", MinVersion: "1.0.0"}, {Type: "d"}}
		m.ClientMetadata, m.RequestedPlugins = map[string]string{"k": "v", "l": "w"}, []string{"x", "y"}
		a.Apply(m.ProtoReflect())
		f.Add(hosttest.MustMarshal(f, m), uint8(0), uint8(i), uint8(proofUnbound), uint8(credentialNone), "", "")
	}
}

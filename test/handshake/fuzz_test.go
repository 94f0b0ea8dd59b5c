package handshake_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
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

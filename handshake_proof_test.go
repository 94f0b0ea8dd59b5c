package connectplugin

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/alter"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

var (
	proofSecret  = bytes.Repeat([]byte{7}, transcript.MinSecretSize)
	proofBinding = bytes.Repeat([]byte{8}, transcript.BindingSize)
)

// signedHandshake returns messages in which every field is set, signed.
func signedHandshake(tb testing.TB, binding []byte) (*connectpluginv1.HandshakeRequest, *connectpluginv1.HandshakeResponse) {
	tb.Helper()
	req, resp := &connectpluginv1.HandshakeRequest{}, &connectpluginv1.HandshakeResponse{}
	alter.Fill(req.ProtoReflect(), resp.ProtoReflect())
	req.ClientNonce = bytes.Repeat([]byte{1}, transcript.NonceSize)
	resp.ServerNonce = bytes.Repeat([]byte{2}, transcript.NonceSize)
	if err := signHandshakeRequest(req, proofSecret, binding); err != nil {
		tb.Fatal(err)
	}
	if err := signHandshakeResponse(req, resp, proofSecret, binding); err != nil {
		tb.Fatal(err)
	}
	return req, resp
}

func TestHandshakeProof_HonestMessagesPass(t *testing.T) {
	t.Parallel()
	for name, binding := range map[string][]byte{"bound": proofBinding, "not bound": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req, resp := signedHandshake(t, binding)
			received, answered := &connectpluginv1.HandshakeRequest{}, &connectpluginv1.HandshakeResponse{}
			overTheWire(t, req, received)
			overTheWire(t, resp, answered)
			if !verifyHandshakeRequest(received, proofSecret, binding) {
				t.Error("the request is refused")
			}
			if !verifyHandshakeResponse(req, answered, proofSecret, binding) {
				t.Error("the response is refused")
			}
		})
	}
}

func overTheWire(t *testing.T, from, to proto.Message) {
	t.Helper()
	wire, err := proto.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(wire, to); err != nil {
		t.Fatal(err)
	}
}

func TestAudit_PROTO11_EveryAlterationOfAHandshakeIsNoticed(t *testing.T) {
	t.Parallel()
	req, resp := signedHandshake(t, proofBinding)
	for _, a := range alter.Every(req.ProtoReflect().Descriptor(), 2) {
		altered, ok := alter.Of(a, req)
		if !ok {
			t.Fatalf("%s: nothing was altered", a.Name)
		}
		if verifyHandshakeRequest(altered, proofSecret, proofBinding) {
			t.Errorf("request, %s: the request passes", a.Name)
		}
		if verifyHandshakeResponse(altered, resp, proofSecret, proofBinding) {
			t.Errorf("request, %s: the response to another request passes", a.Name)
		}
	}
	for _, a := range alter.Every(resp.ProtoReflect().Descriptor(), 2) {
		altered, ok := alter.Of(a, resp)
		if !ok {
			t.Fatalf("%s: nothing was altered", a.Name)
		}
		if verifyHandshakeResponse(req, altered, proofSecret, proofBinding) {
			t.Errorf("response, %s: passes", a.Name)
		}
	}
	const atLeast = 60
	if n, m := len(alter.Every(req.ProtoReflect().Descriptor(), 2)), len(alter.Every(resp.ProtoReflect().Descriptor(), 2)); n < atLeast || m < atLeast {
		t.Errorf("only %d and %d alterations were tried", n, m)
	}
}

func TestHandshakeProof_SecretAndBindingAreDemanded(t *testing.T) {
	t.Parallel()
	other := bytes.Repeat([]byte{9}, transcript.MinSecretSize)
	for name, signed := range map[string][]byte{"bound": proofBinding, "not bound": nil} {
		req, resp := signedHandshake(t, signed)
		for _, tt := range []struct {
			name            string
			secret, binding []byte
		}{
			{"another secret", other, signed},
			{"no secret", nil, signed},
			{"a short secret", proofSecret[1:], signed},
			{"another binding", proofSecret, bytes.Repeat([]byte{9}, transcript.BindingSize)},
			{"a zero binding", proofSecret, make([]byte, transcript.BindingSize)},
			{"the other kind of binding", proofSecret, map[bool][]byte{true: nil, false: proofBinding}[signed != nil]},
		} {
			if verifyHandshakeRequest(req, tt.secret, tt.binding) {
				t.Errorf("%s, %s: the request passes", name, tt.name)
			}
			if verifyHandshakeResponse(req, resp, tt.secret, tt.binding) {
				t.Errorf("%s, %s: the response passes", name, tt.name)
			}
		}
	}
}

func TestHandshakeProof_WhatCannotBeSignedIsAnError(t *testing.T) {
	t.Parallel()
	nonce := make([]byte, transcript.NonceSize)
	tests := map[string]struct {
		secret, client, server []byte
		request, response      error
	}{
		"short secret":       {proofSecret[1:], nonce, nonce, transcript.ErrSecret, transcript.ErrSecret},
		"no client nonce":    {proofSecret, nil, nonce, transcript.ErrNonce, transcript.ErrNonce},
		"short client nonce": {proofSecret, nonce[1:], nonce, transcript.ErrNonce, transcript.ErrNonce},
		"no server nonce":    {proofSecret, nonce, nil, nil, transcript.ErrNonce},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req, resp := &connectpluginv1.HandshakeRequest{ClientNonce: tt.client}, &connectpluginv1.HandshakeResponse{ServerNonce: tt.server}
			if err := signHandshakeRequest(req, tt.secret, nil); !errors.Is(err, tt.request) {
				t.Errorf("request: %v, want %v", err, tt.request)
			}
			if err := signHandshakeResponse(req, resp, tt.secret, nil); !errors.Is(err, tt.response) {
				t.Errorf("response: %v, want %v", err, tt.response)
			}
			if tt.request != nil && (len(req.GetClientProof()) > 0 || verifyHandshakeRequest(req, tt.secret, nil)) {
				t.Error("the request has a proof, or passes without")
			}
			if len(resp.GetChallengeResponse()) > 0 || verifyHandshakeResponse(req, resp, tt.secret, nil) {
				t.Error("the response has a proof, or passes without")
			}
		})
	}
}

// A proof of one direction is worth nothing in the other.
func TestHandshakeProof_NoReflection(t *testing.T) {
	t.Parallel()
	req, resp := signedHandshake(t, nil)
	req.ClientProof, resp.ChallengeResponse = resp.GetChallengeResponse(), req.GetClientProof()
	if verifyHandshakeRequest(req, proofSecret, nil) || verifyHandshakeResponse(req, resp, proofSecret, nil) {
		t.Error("a proof passes in the other direction")
	}
}

func TestHandshakeProof_FieldNumbers(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]protoreflect.FieldDescriptor{
		"client_proof":       (&connectpluginv1.HandshakeRequest{}).ProtoReflect().Descriptor().Fields().ByNumber(clientProofField),
		"challenge_response": (&connectpluginv1.HandshakeResponse{}).ProtoReflect().Descriptor().Fields().ByNumber(challengeResponseField),
	} {
		if f == nil || string(f.Name()) != name {
			t.Errorf("the number of %s is that of %v", name, f)
		}
	}
}

// FuzzHandshakeTranscript looks for two requests, or two responses, that differ
// and have the same transcript.
func FuzzHandshakeTranscript(f *testing.F) {
	req, resp := signedHandshake(f, nil)
	for _, m := range []proto.Message{req, resp} {
		whole, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		for _, a := range alter.Every(m.ProtoReflect().Descriptor(), 2) {
			changed, _ := alter.Of(a, m)
			altered, err := proto.Marshal(changed)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(whole, altered)
		}
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		reqA, reqB := &connectpluginv1.HandshakeRequest{}, &connectpluginv1.HandshakeRequest{}
		if proto.Unmarshal(a, reqA) == nil && proto.Unmarshal(b, reqB) == nil {
			same := bytes.Equal(handshakeRequestTranscript(reqA, nil).Encoded(), handshakeRequestTranscript(reqB, nil).Encoded())
			reqA.ClientProof, reqB.ClientProof = nil, nil
			if same && !proto.Equal(reqA, reqB) {
				t.Errorf("same transcript:\n%v\n%v", reqA, reqB)
			}
		}
		respA, respB := &connectpluginv1.HandshakeResponse{}, &connectpluginv1.HandshakeResponse{}
		if proto.Unmarshal(a, respA) == nil && proto.Unmarshal(b, respB) == nil {
			same := bytes.Equal(handshakeResponseTranscript(req, respA, nil).Encoded(), handshakeResponseTranscript(req, respB, nil).Encoded())
			respA.ChallengeResponse, respB.ChallengeResponse = nil, nil
			if same && !proto.Equal(respA, respB) {
				t.Errorf("same transcript:\n%v\n%v", respA, respB)
			}
		}
	})
}

// brittleRandom is a source of randomness that can fail.
type brittleRandom struct{ broken atomic.Bool }

func (r *brittleRandom) Read(p []byte) (int, error) {
	if r.broken.Load() {
		return len(p) / 2, errors.New("the source of randomness is gone")
	}
	return rand.Read(p)
}

// Where the source of randomness fails, a handshake over the wire gets nothing, in
// every protocol, neither an identity nor a renewal, and what lives goes on.
func TestAudit_AUTH001_AUTH003_NothingIsIssuedWithoutRandomness(t *testing.T) {
	t.Parallel()
	random := &brittleRandom{}
	cfg := (&ServeConfig{Policy: OpenPolicy()}).withDefaults()
	s := NewHandshakeServer(cfg)
	store := s.hub.settings().storeConfig()
	store.Rand = random
	s.hub.store = tokenstore.New(store)
	_, handler := HandshakeServerHandler(s)
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)

	for name, opts := range map[string][]connect.ClientOption{"connect": nil, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()}} {
		client := connectpluginv1connect.NewHandshakeServiceClient(server.Client(), server.URL, opts...)
		ask := func(id, token string) (*connectpluginv1.HandshakeResponse, error) {
			req := connect.NewRequest(&connectpluginv1.HandshakeRequest{
				CoreProtocolVersion: coreProtocolVersion, AppProtocolVersion: 1, SelfId: "plugin",
				MagicCookieKey: DefaultMagicCookieKey, MagicCookieValue: DefaultMagicCookieValue,
			})
			if id != "" {
				req.Header().Set(headerRuntimeID, id)
				req.Header().Set(headerAuthorization, bearerPrefix+token)
			}
			resp, err := client.Handshake(t.Context(), req)
			if err != nil {
				return nil, err
			}
			return resp.Msg, nil
		}
		honest, err := ask("", "")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		live := s.hub.store.Len()
		random.broken.Store(true)
		for what, credential := range map[string][2]string{
			"an identity": {}, "a renewal": {honest.GetRuntimeId(), honest.GetRuntimeToken()},
		} {
			// What exactly fails is the operator's to know.
			if got, err := ask(credential[0], credential[1]); got != nil || connect.CodeOf(err) != connect.CodeInternal {
				t.Errorf("%s: %s without randomness: %v, %v", name, what, got, err)
			}
		}
		if s.hub.store.Len() != live || !s.ValidateToken(honest.GetRuntimeId(), honest.GetRuntimeToken()) {
			t.Errorf("%s: %d identities live, want %d, and the first one's token: %t", name, s.hub.store.Len(), live,
				s.ValidateToken(honest.GetRuntimeId(), honest.GetRuntimeToken()))
		}
		random.broken.Store(false)
		if got, err := ask(honest.GetRuntimeId(), honest.GetRuntimeToken()); err != nil || got.GetRuntimeId() != honest.GetRuntimeId() {
			t.Errorf("%s: with randomness again: %v, %v", name, got, err)
		}
	}
}

// hexBytes are bytes that JSON holds in hexadecimal.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// handshakeVector is one entry of docs/testdata/handshake_vectors.json.
type handshakeVector struct {
	Name               string   `json:"name"`
	Secret             hexBytes `json:"secret"`
	Binding            hexBytes `json:"binding"`
	Request            hexBytes `json:"request"`
	RequestTranscript  hexBytes `json:"request_transcript"`
	ClientKey          hexBytes `json:"client_key"`
	ClientProof        hexBytes `json:"client_proof"`
	RequestHash        hexBytes `json:"request_hash"`
	Response           hexBytes `json:"response"`
	ResponseTranscript hexBytes `json:"response_transcript"`
	ServerKey          hexBytes `json:"server_key"`
	ChallengeResponse  hexBytes `json:"challenge_response"`
}

func handshakeVectors(t *testing.T) []handshakeVector {
	t.Helper()
	raw, err := os.ReadFile("docs/testdata/handshake_vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []handshakeVector
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&vectors); err != nil {
		t.Fatal(err)
	}
	const atLeast = 4
	if len(vectors) < atLeast {
		t.Fatalf("only %d vectors", len(vectors))
	}
	return vectors
}

func TestHandshakeVectors(t *testing.T) {
	t.Parallel()
	for _, v := range handshakeVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			req, resp := &connectpluginv1.HandshakeRequest{}, &connectpluginv1.HandshakeResponse{}
			if err := proto.Unmarshal(v.Request, req); err != nil {
				t.Fatal(err)
			}
			if err := proto.Unmarshal(v.Response, resp); err != nil {
				t.Fatal(err)
			}
			if !verifyHandshakeRequest(req, v.Secret, v.Binding) || !verifyHandshakeResponse(req, resp, v.Secret, v.Binding) {
				t.Error("the proofs are refused")
			}
			want := func(what string, got, want []byte) {
				if !bytes.Equal(got, want) {
					t.Errorf("%s\ngot  %x\nwant %x", what, got, want)
				}
			}
			want("client_proof in request", req.GetClientProof(), v.ClientProof)
			want("challenge_response in response", resp.GetChallengeResponse(), v.ChallengeResponse)
			want("request_transcript", handshakeRequestTranscript(req, v.Binding).Encoded(), v.RequestTranscript)
			want("response_transcript", handshakeResponseTranscript(req, resp, v.Binding).Encoded(), v.ResponseTranscript)
			want("client_key", vectorKey(t, v.Secret, transcript.ClientInfo, req.GetClientNonce()), v.ClientKey)
			want("server_key", vectorKey(t, v.Secret, transcript.ServerInfo, req.GetClientNonce(), resp.GetServerNonce()), v.ServerKey)
			hash := v.ResponseTranscript[:len(v.ResponseTranscript)-1]
			if len(v.Binding) > 0 {
				hash = hash[:len(hash)-8-len(v.Binding)]
			}
			want("request_hash", hash[len(hash)-sha256.Size:], v.RequestHash)

			req.ClientProof, resp.ChallengeResponse = nil, nil
			if err := signHandshakeRequest(req, v.Secret, v.Binding); err != nil {
				t.Fatal(err)
			}
			want("client_proof", req.GetClientProof(), v.ClientProof)
			if err := signHandshakeResponse(req, resp, v.Secret, v.Binding); err != nil {
				t.Fatal(err)
			}
			want("challenge_response", resp.GetChallengeResponse(), v.ChallengeResponse)
		})
	}
}

func vectorKey(t *testing.T, secret []byte, info string, nonces ...[]byte) []byte {
	t.Helper()
	key, err := hkdf.Key(sha256.New, secret, slices.Concat(nonces...), info, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// The vectors must hold every field, so that none is left to guesswork.
func TestHandshakeVectors_CoverEveryField(t *testing.T) {
	t.Parallel()
	seen := map[proto.Message]map[string]bool{}
	req, resp := &connectpluginv1.HandshakeRequest{}, &connectpluginv1.HandshakeResponse{}
	all := []proto.Message{req, resp}
	for _, v := range handshakeVectors(t) {
		for i, wire := range []hexBytes{v.Request, v.Response} {
			m := all[i].ProtoReflect().New().Interface()
			if err := proto.Unmarshal(wire, m); err != nil {
				t.Fatal(err)
			}
			if seen[all[i]] == nil {
				seen[all[i]] = map[string]bool{}
			}
			for _, a := range alter.Every(m.ProtoReflect().Descriptor(), 2) {
				if a.Apply(proto.Clone(m).ProtoReflect()) {
					seen[all[i]][a.Name] = true
				}
			}
		}
	}
	for _, m := range all {
		d := m.ProtoReflect().Descriptor()
		for _, a := range alter.Every(d, 2) {
			if strings.HasSuffix(a.Name, ": strip") && !seen[m][a.Name] {
				t.Errorf("%s: no vector has %s", d.Name(), strings.TrimSuffix(a.Name, ": strip"))
			}
		}
	}
}

// The specification names what the code uses, and its example is the first
// vector.
func TestHandshakeVectors_Specification(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(raw)
	for _, text := range []string{
		handshakeRequestLabel, handshakeRequestHashLabel, handshakeResponseLabel,
		transcript.ClientInfo, transcript.ServerInfo, transcript.ExporterLabel,
	} {
		if !strings.Contains(doc, `"`+text+`"`) {
			t.Errorf("docs/protocol.md does not name %q", text)
		}
	}
	_, example, ok := strings.Cut(doc, "piece by piece:\n\n```\n")
	if !ok {
		t.Fatal("docs/protocol.md has no example")
	}
	example, _, _ = strings.Cut(example, "```")
	const columns = 50
	var digits strings.Builder
	for line := range strings.Lines(example) {
		line = strings.TrimRight(line, "\n")
		digits.WriteString(regexp.MustCompile(`\s`).ReplaceAllString(line[:min(columns, len(line))], ""))
	}
	if want := hex.EncodeToString(handshakeVectors(t)[0].RequestTranscript); digits.String() != want {
		t.Errorf("the example is\n%s\nwant\n%s", digits.String(), want)
	}
}

// A plugin that a host takes again says how often it was refused since it said so.
func TestAudit_USE22_HowOftenAPluginWasRefused(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	c := &Client{cfg: ClientConfig{Logger: slog.New(slog.NewTextHandler(&log, nil))}}
	s := &pluginSession{cfg: &PluginServerConfig{Client: c.cfg}, client: c}
	for _, n := range []int{5, 1, 3} {
		log.Reset()
		for range n {
			s.askAgain(errors.New("refused"))
		}
		s.taken()
		s.taken() // says nothing more
		if said := strings.Count(log.String(), "\n"); said != 2 || !strings.Contains(log.String(), "again\" runtime_id=\"\" not_logged="+strconv.Itoa(n-1)+"\n") {
			t.Errorf("refused %d times: %s", n, log.String())
		}
	}
}

// However many events are lost while an audit log cannot be written, the log has a line a minute, and one at the end.
func TestAuditSink_TroubleIsOneLineAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		trouble := &auditTrouble{log: slog.New(slog.NewTextHandler(&text, nil))}
		for range 120 {
			trouble.failed(errNotAvailable)
			time.Sleep(time.Second)
		}
		trouble.over(119)
		trouble.failed(errNotAvailable)
		want := `^.*=ERROR.*\n.*not_logged=59.*\n.*=WARN.*count=119.*not_logged=59.*\n.*=ERROR.*\n$`
		if !regexp.MustCompile(want).MatchString(text.String()) {
			t.Errorf("the log has\n%s", text.String())
		}
	})
}

package connectplugin

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/alter"
	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

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

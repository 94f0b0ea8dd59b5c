package connectplugin

import (
	"crypto/hmac"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/bom"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

// redacted stands in for every secret in logs and error texts.
const redacted = "[redacted]"

// Secret is an enrolment secret: at least 16 random bytes that a plugin and its
// host share. It prints as [redacted] and, being a slice, cannot be compared
// with ==. The zero value holds no secret.
type Secret []byte

// Equal reports in constant time whether both secrets are the same; an empty
// secret equals nothing.
func (s Secret) Equal(other Secret) bool {
	return len(s) > 0 && hmac.Equal(s, other)
}

// String returns "[redacted]".
func (Secret) String() string { return redacted }

// GoString returns "[redacted]".
func (Secret) GoString() string { return redacted }

// Format prints "[redacted]" for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue returns "[redacted]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]", for every text encoding.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalJSON reads a secret in base64, as JSON has bytes; null holds none.
func (s *Secret) UnmarshalJSON(text []byte) error {
	var b []byte
	if err := json.Unmarshal(text, &b); err != nil {
		return errors.New("a Secret has to be base64, as base64 -w0 makes it of the bytes of the secret") // never the text
	}
	*s = b
	return nil
}

// validate refuses one that is too short, and one with what an editor put before its text: whoever has the same secret without
// that proves another one. Nil is none.
func (s Secret) validate(field string) error {
	if s != nil && len(s) < minSecretBytes {
		return fieldError(field, "has %d bytes; write at least %d random ones", len(s), minSecretBytes)
	}
	if err := bom.CheckSecret(s); err != nil {
		return fieldError(field, "%v", err)
	}
	return nil
}

// nonceBytes is how long the nonces of both sides are.
const nonceBytes = 32

// What the transcripts of a handshake are for. They are part of the wire:
// docs/protocol.md specifies them.
const (
	handshakeRequestLabel     = "connectplugin handshake v1 request"
	handshakeRequestHashLabel = "connectplugin handshake v1 request hash"
	handshakeResponseLabel    = "connectplugin handshake v1 response"
)

// The fields that hold the proofs, and so are not part of what they prove.
const (
	clientProofField       = 18
	challengeResponseField = 13
)

// signHandshakeRequest sets the client's proof. Everything else in req is final:
// the nonce, the time and what is asked for. An empty binding means that the
// proof is not bound to a TLS connection. The errors are those of
// [transcript.ClientKey].
func signHandshakeRequest(req *connectpluginv1.HandshakeRequest, secret, binding []byte) error {
	key, err := transcript.ClientKey(secret, req.GetClientNonce())
	if err != nil {
		return fmt.Errorf("sign handshake request: %w", err)
	}
	req.ClientProof = key.Proof(handshakeRequestTranscript(req, binding))
	return nil
}

// verifyHandshakeRequest reports whether the holder of secret made req as it is,
// for a connection with this binding (none if empty). It does not tell whether
// req is new; that is the replay cache's to say.
func verifyHandshakeRequest(req *connectpluginv1.HandshakeRequest, secret, binding []byte) bool {
	key, err := transcript.ClientKey(secret, req.GetClientNonce())
	return err == nil && key.Verify(handshakeRequestTranscript(req, binding), req.GetClientProof())
}

// signHandshakeResponse sets the host's proof in the answer to req. Everything
// else in resp is final, the server nonce included. The errors are those of
// [transcript.ServerKey].
func signHandshakeResponse(req *connectpluginv1.HandshakeRequest, resp *connectpluginv1.HandshakeResponse, secret, binding []byte) error {
	key, err := transcript.ServerKey(secret, req.GetClientNonce(), resp.GetServerNonce())
	if err != nil {
		return fmt.Errorf("sign handshake response: %w", err)
	}
	resp.ChallengeResponse = key.Proof(handshakeResponseTranscript(req, resp, binding))
	return nil
}

// verifyHandshakeResponse reports whether the holder of secret made resp as it
// is, in answer to exactly req, for a connection with this binding (none if
// empty).
func verifyHandshakeResponse(req *connectpluginv1.HandshakeRequest, resp *connectpluginv1.HandshakeResponse, secret, binding []byte) bool {
	key, err := transcript.ServerKey(secret, req.GetClientNonce(), resp.GetServerNonce())
	return err == nil && key.Verify(handshakeResponseTranscript(req, resp, binding), resp.GetChallengeResponse())
}

func handshakeRequestTranscript(req *connectpluginv1.HandshakeRequest, binding []byte) *transcript.Transcript {
	t := transcript.New(handshakeRequestLabel)
	t.Message(req, clientProofField)
	t.Optional(binding)
	return t
}

func handshakeResponseTranscript(req *connectpluginv1.HandshakeRequest, resp *connectpluginv1.HandshakeResponse, binding []byte) *transcript.Transcript {
	asked := transcript.New(handshakeRequestHashLabel)
	asked.Message(req)
	hash := asked.Sum()

	t := transcript.New(handshakeResponseLabel)
	t.Message(resp, challengeResponseField)
	t.Bytes(hash[:])
	t.Optional(binding)
	return t
}

// equalStrings compares in a time that depends on the lengths alone.
func equalStrings(a, b string) bool {
	return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}

// maxChallenge bounds the challenge of a health question.
const maxChallenge = 64

// healthProof is the proof that who holds a token answers for a runtime id. It is made of the
// token, which it does not give away.
func healthProof(token, runtimeID string, challenge []byte) []byte {
	return tokenstore.Possession(token, healthProofMessage(runtimeID, challenge))
}

// healthProofMessage is what such a proof is about (docs/protocol.md, "Health questions").
func healthProofMessage(runtimeID string, challenge []byte) []byte {
	var m []byte
	for _, part := range [][]byte{[]byte("connectplugin health v1"), []byte(runtimeID), challenge} {
		m = binary.BigEndian.AppendUint64(m, uint64(len(part)))
		m = append(m, part...)
	}
	return m
}

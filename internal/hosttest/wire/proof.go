package wire

import (
	"crypto/rand"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

// ClientProofNumber is the number of HandshakeRequest.client_proof.
const ClientProofNumber = 18

// Prove proves a request as docs/protocol.md says, by other means than the
// library's client.
func Prove(t testing.TB, m *connectpluginv1.HandshakeRequest, secret, binding []byte) *connectpluginv1.HandshakeRequest {
	t.Helper()
	key, err := transcript.ClientKey(secret, m.GetClientNonce())
	if err != nil {
		t.Fatal(err)
	}
	signed := transcript.New("connectplugin handshake v1 request")
	signed.Message(m, ClientProofNumber)
	signed.Optional(binding)
	m.ClientProof = key.Proof(signed)
	return m
}

// FreshRequest is an unproven request with a nonce of its own, issued now.
func FreshRequest(selfID string) *connectpluginv1.HandshakeRequest {
	m := hosttest.OldRequest(selfID)
	m.ClientNonce = make([]byte, transcript.NonceSize)
	_, _ = rand.Read(m.GetClientNonce())
	m.IssuedAt = timestamppb.Now()
	return m
}

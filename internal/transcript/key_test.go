package transcript_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

func fill(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }

func TestKey_SizesAreDemanded(t *testing.T) {
	t.Parallel()
	secret, nonce := fill(transcript.MinSecretSize, 1), fill(transcript.NonceSize, 2)
	tests := map[string]struct {
		secret, client, server []byte
		wantClient, wantServer error
	}{
		"right":              {secret, nonce, nonce, nil, nil},
		"no secret":          {nil, nonce, nonce, transcript.ErrSecret, transcript.ErrSecret},
		"short secret":       {secret[1:], nonce, nonce, transcript.ErrSecret, transcript.ErrSecret},
		"no client nonce":    {secret, nil, nonce, transcript.ErrNonce, transcript.ErrNonce},
		"short client nonce": {secret, nonce[1:], nonce, transcript.ErrNonce, transcript.ErrNonce},
		"long client nonce":  {secret, append(nonce[:32:32], 2), nonce[1:], transcript.ErrNonce, transcript.ErrNonce},
		"no server nonce":    {secret, nonce, nil, nil, transcript.ErrNonce},
		"long server nonce":  {secret, nonce, append(nonce[:32:32], 2), nil, transcript.ErrNonce},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := transcript.ClientKey(tt.secret, tt.client); !errors.Is(err, tt.wantClient) {
				t.Errorf("ClientKey: %v, want %v", err, tt.wantClient)
			}
			if _, err := transcript.ServerKey(tt.secret, tt.client, tt.server); !errors.Is(err, tt.wantServer) {
				t.Errorf("ServerKey: %v, want %v", err, tt.wantServer)
			}
		})
	}
}

func TestKey_EveryInputCounts(t *testing.T) {
	t.Parallel()
	must := func(k transcript.Key, err error) transcript.Key {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	tr := transcript.New("a")
	secret, nonce, other := fill(16, 1), fill(32, 2), fill(32, 3)
	keys := []transcript.Key{
		must(transcript.ClientKey(secret, nonce)),
		must(transcript.ClientKey(fill(16, 9), nonce)),
		must(transcript.ClientKey(secret, other)),
		must(transcript.ServerKey(secret, nonce, other)),
		must(transcript.ServerKey(secret, other, nonce)),
		must(transcript.ServerKey(secret, nonce, nonce)),
	}
	for i, k := range keys {
		proof := k.Proof(tr)
		if len(proof) != transcript.ProofSize {
			t.Fatalf("proof has %d bytes", len(proof))
		}
		for j, other := range keys {
			if got := other.Verify(tr, proof); got != (i == j) {
				t.Errorf("proof of key %d under key %d: %v", i, j, got)
			}
		}
	}
}

func TestKey_WrongProofsAreRefused(t *testing.T) {
	t.Parallel()
	key, err := transcript.ClientKey(fill(16, 1), fill(32, 2))
	if err != nil {
		t.Fatal(err)
	}
	tr := transcript.New("a")
	proof := key.Proof(tr)
	for name, wrong := range map[string][]byte{
		"missing": nil, "empty": {}, "short": proof[:31], "long": append(proof[:32:32], 0), "zero": make([]byte, 32),
	} {
		if key.Verify(tr, wrong) {
			t.Errorf("a %s proof passes", name)
		}
	}
	for i := range proof {
		wrong := bytes.Clone(proof)
		wrong[i] ^= 0x80
		if key.Verify(tr, wrong) {
			t.Errorf("a proof with byte %d changed passes", i)
		}
	}
	if !key.Verify(tr, proof) {
		t.Error("the proof itself is refused")
	}
	var zero transcript.Key
	if zero.Verify(tr, zero.Proof(tr)) {
		t.Error("the zero key verifies its own proof")
	}
}

func TestKey_PrintsRedacted(t *testing.T) {
	t.Parallel()
	key, err := transcript.ClientKey(fill(16, 1), fill(32, 2))
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		if got := fmt.Sprintf(verb, key); got != "[redacted]" {
			t.Errorf("%s prints %s", verb, got)
		}
		if got := fmt.Sprintf(verb, []transcript.Key{key}); !strings.Contains(got, "[redacted]") {
			t.Errorf("%s of a slice prints %s", verb, got)
		}
	}
}

// Package transcript turns messages into unambiguous bytes, derives the keys of
// the handshake, computes and checks its proofs, and remembers which ones were
// seen. It knows protocol buffers, but none of this module's messages.
//
// The encoding and the key schedule are specified in docs/protocol.md.
package transcript

import (
	"crypto/sha256"
	"encoding/binary"
)

// Transcript is a sequence of values under a label, encoded such that two
// different sequences never give the same bytes: every value of variable length
// is preceded by that length. It is not safe for concurrent use; make it with
// [New].
type Transcript struct {
	buf []byte
}

// New returns a transcript that begins with label, which says what the
// transcript is for: transcripts of different purposes never coincide.
func New(label string) *Transcript {
	t := &Transcript{}
	t.Bytes([]byte(label))
	return t
}

// Bytes appends b, preceded by its length as eight bytes.
func (t *Transcript) Bytes(b []byte) {
	t.uint64(uint64(len(b)))
	t.buf = append(t.buf, b...)
}

// Optional appends a value that may be absent, which an empty b means. Absence
// and presence encode differently.
func (t *Transcript) Optional(b []byte) {
	if len(b) == 0 {
		t.buf = append(t.buf, 0)
		return
	}
	t.buf = append(t.buf, 1)
	t.Bytes(b)
}

// Sum returns the SHA-256 of the transcript so far.
func (t *Transcript) Sum() [sha256.Size]byte {
	return sha256.Sum256(t.buf)
}

// Encoded returns a copy of the transcript so far. It may hold secrets that the
// messages in it hold.
func (t *Transcript) Encoded() []byte {
	return append([]byte(nil), t.buf...)
}

func (t *Transcript) uint64(v uint64) {
	t.buf = binary.BigEndian.AppendUint64(t.buf, v)
}

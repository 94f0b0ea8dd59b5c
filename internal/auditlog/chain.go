// Package auditlog writes lines that cannot be changed unnoticed: each has the digest of the one
// before, and signed checkpoints say how far the chain had got. It knows lines and no events.
package auditlog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// The kinds of lines.
const (
	kindEvent      = "event"      // what was recorded
	kindDropped    = "dropped"    // how many events there was no room for
	kindCheckpoint = "checkpoint" // how far the chain had got, signed
	kindBegin      = "begin"      // of a process's writing: the key of its checkpoints
)

// line is one line of a log: a JSON object.
type line struct {
	Sequence uint64          `json:"seq"`
	Previous string          `json:"prev"` // SHA-256 of the line before, hex; empty for the first
	Time     time.Time       `json:"time"`
	Kind     string          `json:"line"`
	Event    json.RawMessage `json:"event,omitempty"`
	Dropped  uint64          `json:"dropped,omitempty"`
	Key      string          `json:"key,omitempty"`       // Ed25519, base64
	Signed   string          `json:"signature,omitempty"` // of a checkpoint, base64
}

// Checkpoint says how far a chain had got. Kept elsewhere, it shows whether the end of a log is
// missing.
type Checkpoint struct {
	// Sequence is that of the checkpoint's own line.
	Sequence uint64 `json:"seq"`
	// Previous is the digest of the line before, and so of all before.
	Previous string `json:"prev"`
	// Time is when it was made.
	Time time.Time `json:"time"`
	// Signature is by the key of the log, over the three.
	Signature string `json:"signature"`
}

// Verify reports whether a key signed the checkpoint.
func (c *Checkpoint) Verify(key ed25519.PublicKey) bool {
	signature, err := base64.StdEncoding.DecodeString(c.Signature)
	return err == nil && len(key) == ed25519.PublicKeySize && ed25519.Verify(key, c.signed(), signature)
}

// signed is what a checkpoint's signature is over.
func (c *Checkpoint) signed() []byte {
	return fmt.Appendf(nil, "connectplugin audit checkpoint v1\n%d\n%s\n%s\n", c.Sequence, c.Previous, c.Time.UTC().Format(time.RFC3339Nano))
}

// chain makes lines. It is for one goroutine.
type chain struct {
	key      ed25519.PrivateKey
	sequence uint64 // of the last line
	previous string
	signed   *Checkpoint // the last one
}

// add makes the next line, without a line feed.
func (c *chain) add(l line, now time.Time) ([]byte, error) {
	l.Sequence, l.Previous, l.Time = c.sequence+1, c.previous, now.UTC()
	if l.Kind == kindCheckpoint {
		p := Checkpoint{Sequence: l.Sequence, Previous: l.Previous, Time: l.Time}
		l.Signed = base64.StdEncoding.EncodeToString(ed25519.Sign(c.key, p.signed()))
		p.Signature = l.Signed
		c.signed = &p
	}
	text, err := encode(l)
	if err != nil {
		return nil, err
	}
	c.sequence, c.previous = l.Sequence, digest(text)
	return text, nil
}

// normal is the line as a writer would have it: with the fields of its kind and no others, its time in
// UTC, and texts of base64 in the one way to write them. What is not covered by the next line, or by a
// signature, could else be written differently and mean the same.
func (l line) normal() line {
	n := line{Sequence: l.Sequence, Previous: l.Previous, Time: l.Time.UTC(), Kind: l.Kind}
	switch l.Kind {
	case kindEvent:
		n.Event = l.Event
	case kindDropped:
		n.Dropped = l.Dropped
	case kindBegin:
		n.Key = normalBase64(l.Key)
	case kindCheckpoint:
		n.Signed = normalBase64(l.Signed)
	}
	return n
}

// normalBase64 writes anew what a text of base64 says, which may say it with other idle bits and with
// line feeds. It is empty for what is none.
func normalBase64(text string) string {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(b)
}

// encode writes a line in its one form.
func encode(l line) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(l); err != nil {
		return nil, fmt.Errorf("audit line: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), nil
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

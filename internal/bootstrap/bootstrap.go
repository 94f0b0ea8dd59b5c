// Package bootstrap is what a host tells a plugin that it launches, over a pipe that the
// plugin inherits: first who it is and how it reaches the host, later what replaces its
// certificate. Neither arguments, environment nor output carry any of it. The pipe stays open
// for life, so that its end tells the plugin that the host is gone.
package bootstrap

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// EnvDescriptor names the environment variable that holds the number of the inherited
// descriptor. The number is no secret.
const EnvDescriptor = "CONNECT_PLUGIN_BOOTSTRAP_FD"

// UnixPrefix stands before the path of a Unix socket in [Message.Listen].
const UnixPrefix = "unix:"

// maxFrame is more than any message has.
const maxFrame = 256 << 10

// Message is one message to the plugin.
type Message struct {
	// HostURL is the base URL of the host, HostIdentity the identity in its certificate.
	HostURL      string `json:"hostUrl,omitempty"`
	HostIdentity string `json:"hostIdentity,omitempty"`
	// SelfID is whom the plugin was launched as.
	SelfID string `json:"selfId,omitempty"`
	// Listen is the address that the plugin listens on: a host and a port, or UnixPrefix and
	// the path of a socket.
	Listen string `json:"listen,omitempty"`
	// GraceMillis bounds the plugin's end, in milliseconds.
	GraceMillis int64 `json:"graceMillis,omitempty"`
	// Metadata is the operator's own.
	Metadata map[string]string `json:"metadata,omitempty"`
	// Withdrawn says, in a message that says nothing else, that the host has taken out what
	// the plugin provides and is about to ask it to stop: it need not do so itself, nor say
	// that it leaves.
	Withdrawn bool `json:"withdrawn,omitempty"`
	// Certificate, Key and CA are PEM. A later message renews the certificate alone.
	Certificate []byte `json:"certificate,omitempty"`
	Key         []byte `json:"key,omitempty"`
	CA          []byte `json:"ca,omitempty"`
}

// String keeps the key out of logs.
func (m Message) String() string { return "[bootstrap of " + m.SelfID + "]" }

// GoString keeps the key out of logs.
func (m Message) GoString() string { return m.String() }

// Write writes a message in one piece.
func Write(w io.Writer, m *Message) error {
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, len(body)+4), uint32(len(body))) //nolint:gosec,mnd // bounded by what we write
	if _, err := w.Write(append(frame, body...)); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

var errTooLong = errors.New("message is too long")

// Read reads one message. io.EOF says that the host is gone, and os.ErrClosed that the reader itself
// has closed r.
func Read(r io.Reader) (*Message, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		switch {
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		case errors.Is(err, os.ErrClosed): // the usual end; to put it in words takes 0.2 ms the first time
			return nil, os.ErrClosed
		}
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return nil, fmt.Errorf("bootstrap: %w", errTooLong)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	var m Message
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, errors.New("bootstrap: the message cannot be read") // the cause may repeat it
	}
	return &m, nil
}

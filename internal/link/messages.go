package link

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
)

// headSize is that of what goes before each message of gRPC, gRPC-Web and a stream of Connect: flags, and its length.
const headSize = 5

// messages reads a body of such messages, and returns the head of each together with what follows it. Connect's client writes them
// one after the other into a pipe, so that a head would have a frame of its own: as much work again for everybody
// on the way, and a short frame, of which peers take few (docs/speed.md).
type messages struct {
	body io.Reader
	head [headSize]byte
	held int   // of head, that was read ahead
	seen int   // of a head, that was returned
	left int64 // of a message, that is to come
	err  error // that came with what was read ahead
}

// isEnveloped reports whether the body of a request consists of such messages.
func isEnveloped(r *http.Request) bool {
	kind := r.Header[contentType]
	if len(kind) == 0 {
		return false
	}

	codec, ok := strings.CutPrefix(kind[0], "application/")

	return ok && (strings.HasPrefix(codec, "connect+") || strings.HasPrefix(codec, "grpc") && !strings.HasPrefix(codec, "grpc-web-text"))
}

// Read implements io.Reader. p has room for a head.
func (m *messages) Read(p []byte) (int, error) {
	m.await()

	n := copy(p, m.head[:m.held])
	m.held = 0
	m.passed(p[:n])

	if m.err != nil || n > 0 && m.left == 0 { // a message of nothing has come
		return n, m.err
	}

	more, err := m.body.Read(p[n:])
	m.passed(p[n : n+more])

	return n + more, err //nolint:wrapcheck // the body's own error
}

// await returns when a message has begun or goes on, or nothing more comes. Nobody has to hold a buffer meanwhile.
func (m *messages) await() {
	if m.held > 0 || m.seen > 0 || m.left > 0 || m.err != nil {
		return
	}

	m.held, m.err = io.ReadFull(m.body, m.head[:])
	if errors.Is(m.err, io.ErrUnexpectedEOF) {
		m.err = io.EOF // whether the message is complete is its reader's to say
	}
}

// passed follows where in a message what was read ends.
func (m *messages) passed(p []byte) {
	for len(p) > 0 {
		if m.left > 0 {
			n := min(m.left, int64(len(p)))
			m.left -= n
			p = p[n:]

			continue
		}

		n := copy(m.head[m.seen:], p)
		m.seen += n
		p = p[n:]

		if m.seen == headSize {
			m.seen, m.left = 0, int64(binary.BigEndian.Uint32(m.head[1:]))
		}
	}
}

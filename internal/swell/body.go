package swell

import (
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"sync"
)

const (
	envelopeLen    = 5
	flagCompressed = 1

	chunkBytes   = 4 << 10
	scratchBytes = 4 * chunkBytes
	// maxHeld is how much of a message may come of which nothing comes out. No honest
	// compressor needs more than a window and its tables.
	maxHeld = 256 << 10
)

// body is the body of a request whose messages are inflated along the way. It is for one
// reader.
type body struct {
	io.ReadCloser // as it comes

	// Fixed at creation.
	bounds    Bounds
	tell      func(error) error
	enveloped bool
	length    int64 // of a body without envelopes, less than zero where nobody says it

	left    int64 // of the message that is passed on; less than zero before there is one
	plain   bool  // that message is not compressed
	reader  *reader
	pending []byte // was looked at and not taken yet
	err     error  // comes after that
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	for {
		switch {
		case len(p) == 0:
			return 0, nil
		case len(b.pending) > 0:
			n := copy(p, b.pending)
			b.pending = b.pending[n:]
			return n, nil
		case b.err != nil:
			return 0, b.err
		case b.plain && b.left > 0:
			n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
			b.left -= int64(n)
			return n, err //nolint:wrapcheck // the body's own error
		case b.reader != nil:
			b.inflate()
		default:
			b.next()
		}
	}
}

// next begins the next message.
func (b *body) next() {
	if !b.enveloped {
		b.begin(b.ReadCloser)
		return
	}
	var head [envelopeLen]byte
	n, err := io.ReadFull(b.ReadCloser, head[:])
	b.pending = append(b.pending[:0], head[:n]...)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF // the handler says what is missing
	}
	if b.err = err; err != nil {
		return
	}
	b.left = int64(binary.BigEndian.Uint32(head[1:]))
	b.plain = head[0]&flagCompressed == 0
	if !b.plain && b.left > 0 {
		b.begin(io.LimitReader(b.ReadCloser, b.left))
	}
}

// begin begins to inflate a message.
func (b *body) begin(from io.Reader) {
	b.reader, _ = readers.Get().(*reader)
	b.reader.tap = tap{src: from, buf: b.reader.buf, held: b.reader.held[:0]}
	b.reader.begun, b.reader.plain = false, 0
}

// inflate inflates some more of a message, and lets as much of it pass as was looked at.
func (b *body) inflate() {
	z := b.reader
	err := z.step()
	b.pending = z.take(b.pending[:0])
	switch {
	case z.plain > b.bounds.Most(max(z.taken, b.left, b.length)):
		b.pending, b.err = nil, b.tell(ErrSwollen)
	case err == nil:
		return
	case z.err != nil && !errors.Is(z.err, io.EOF):
		b.err = z.err
	case errors.Is(err, io.EOF) && b.enveloped && z.taken == b.left:
		b.left = 0 // the next message follows
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		b.err = io.EOF // the handler says what is missing
	default:
		b.pending, b.err = nil, b.tell(ErrCorrupt)
	}
	b.reader = nil
	z.src = nil
	readers.Put(z)
}

var readers = sync.Pool{New: func() any {
	return &reader{tap: tap{buf: make([]byte, chunkBytes)}, scratch: make([]byte, scratchBytes)}
}}

// reader inflates one message and forgets what comes out.
type reader struct {
	tap

	z       gzip.Reader
	scratch []byte
	begun   bool
	plain   int64 // bytes that came out
}

// step inflates until something comes out.
func (r *reader) step() error {
	if !r.begun {
		r.begun = true
		return r.z.Reset(&r.tap) //nolint:wrapcheck // the caller says what it means
	}
	n, err := r.z.Read(r.scratch)
	r.plain += int64(n)
	return err //nolint:wrapcheck // the caller says what it means
}

// tap is what is inflated. It knows how much of it was used, to the byte.
type tap struct {
	src   io.Reader
	buf   []byte
	held  []byte // was used and is not in buf any more
	given int    // in buf, up to where it was passed on
	used  int    // in buf
	end   int    // of buf
	taken int64  // was used in all
	err   error  // of src
}

// Read implements io.Reader.
func (t *tap) Read(p []byte) (int, error) {
	if err := t.fill(); err != nil {
		return 0, err
	}
	n := copy(p, t.buf[t.used:t.end])
	t.used += n
	t.taken += int64(n)
	return n, nil
}

// ReadByte implements io.ByteReader, so that nothing is used in advance.
func (t *tap) ReadByte() (byte, error) {
	if err := t.fill(); err != nil {
		return 0, err
	}
	c := t.buf[t.used]
	t.used++
	t.taken++
	return c, nil
}

// take appends what was used since the last time.
func (t *tap) take(to []byte) []byte {
	to = append(append(to, t.held...), t.buf[t.given:t.used]...)
	t.held, t.given = t.held[:0], t.used
	return to
}

// fill reads more where all was used.
func (t *tap) fill() error {
	if t.used < t.end {
		return nil
	}
	t.held = append(t.held, t.buf[t.given:t.used]...)
	t.given, t.used, t.end = 0, 0, 0
	if len(t.held) > maxHeld {
		return ErrCorrupt
	}
	for t.end == 0 {
		if t.err != nil {
			return t.err
		}
		t.end, t.err = t.src.Read(t.buf)
	}
	return nil
}

package h2

import (
	"io"
	"sync"
)

// Body reads the body of a stream's response. One goroutine may read while another closes
// it.
type Body struct {
	// Fixed at creation.
	stream *Stream
	over   func(error) error

	mu     sync.Mutex
	part   *Buffer // being read
	at     int
	end    bool // part is the last
	closed bool
}

// NewBody returns the body of the response of s, whose head is there. When the response is
// complete, or has broken for the given reason, over is told on the goroutine that reads,
// and returns what Read returns then.
func NewBody(s *Stream, over func(error) error) Body { return Body{stream: s, over: over} }

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	if n, err := b.have(p); n > 0 || err != nil || len(p) == 0 {
		return n, err
	}
	for {
		part, end, err := b.stream.Next()
		switch {
		case err != nil:
			return 0, b.over(err)
		case end:
			_ = b.over(nil)
		}
		b.take(part, end)
		if n, err := b.have(p); n > 0 || err != nil {
			return n, err
		}
	}
}

// Await returns when Read would not wait. It is for who calls Read, and uses less of its stack.
func (b *Body) Await() {
	b.mu.Lock()
	has := b.closed || b.part != nil || b.end
	b.mu.Unlock()
	if !has {
		b.stream.Await()
	}
}

// Close has later reads return [io.ErrClosedPipe]. The stream is left as it is.
func (b *Body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.part.Release()
	b.part = nil
	return nil
}

// have reads of what is there.
func (b *Body) have(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return 0, io.ErrClosedPipe
	case b.part == nil && b.end:
		return 0, io.EOF
	case b.part == nil:
		return 0, nil
	}
	n := copy(p, b.part.B[b.at:])
	if b.at += n; b.at < len(b.part.B) {
		return n, nil
	}
	b.part.Release()
	b.part, b.at = nil, 0
	if b.end {
		return n, io.EOF
	}
	return n, nil
}

// take takes over the next part.
func (b *Body) take(part *Buffer, end bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end = end
	if b.closed {
		part.Release()
		return
	}
	b.part = part
}

package h2

import (
	"io"

	"github.com/masegraye/connect-plugin-go/internal/tlsrecords"
)

const (
	readLeast = 1 << 10  // read ahead on a connection on which little comes
	readMost  = 16 << 10 // and where more does: what one record of TLS holds
)

// source reads ahead. While little comes it holds little: most of a host's connections to
// plugins are idle most of the time.
type source struct {
	from io.Reader
	all  *Buffer // what is read into, nil before the first read
	into []byte  // all of it
	rest []byte  // of it, which was not taken yet
	last int     // how much the last read brought
	err  error   // that came with it

	records *tlsrecords.Meter // of what is read; nil where nobody counts
}

// Read takes what was read ahead, or waits for more.
func (s *source) Read(p []byte) (int, error) {
	if len(s.rest) == 0 && s.err == nil {
		s.fill()
	}
	if len(s.rest) == 0 {
		return 0, s.err
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Buffered is how much was read ahead.
func (s *source) Buffered() int { return len(s.rest) }

// Peek returns the first n bytes of it, of which there have to be as many.
func (s *source) Peek(n int) []byte { return s.rest[:n] }

// fill reads once, into as much as the read before suggests.
func (s *source) fill() {
	size := readLeast
	if s.last >= readLeast {
		size = readMost
	}
	if len(s.into) != size {
		s.all.Release()
		s.all = GetBuffer(size)
		s.into = s.all.B[:size]
	}
	s.last, s.err = s.from.Read(s.into)
	s.rest = s.into[:s.last]
	if s.records != nil && s.last > 0 {
		s.records.Carried(s.last)
	}
}

package h2serve

import (
	"io"
	"sync"
)

const (
	readLeast = 1 << 10 // read ahead while little comes
	readMost  = record  // and where more does: what one record of TLS holds
)

// readers are buffers of readMost that no connection needs now.
var readers = sync.Pool{New: func() any { return new([readMost]byte) }}

// ahead reads ahead of what is asked for. While little comes it holds little: most connections
// are idle most of the time. So they do after much has come: then it waits for what is next with little again, and has the rest
// in large pieces.
type ahead struct {
	from  io.Reader
	least [readLeast]byte
	most  *[readMost]byte // in place of least, for one read; nil while little comes
	rest  []byte          // that was read, and not taken yet
	much  bool            // the last read brought as much as least holds, and there may be more at once
	err   error           // that came with it
}

// Read takes what was read ahead, or waits for more.
func (a *ahead) Read(p []byte) (int, error) {
	if len(a.rest) == 0 && a.err == nil {
		a.fill()
	}
	if len(a.rest) == 0 {
		return 0, a.err
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Buffered is how much was read ahead.
func (a *ahead) Buffered() int { return len(a.rest) }

// Peek returns the first n bytes of it, of which there have to be as many.
func (a *ahead) Peek(n int) []byte { return a.rest[:n] }

// fill reads once, into as much as the read before suggests.
func (a *ahead) fill() {
	if a.most != nil {
		readers.Put(a.most)
		a.most = nil
	}
	into := a.least[:]
	if a.much {
		a.most, _ = readers.Get().(*[readMost]byte)
		into = a.most[:]
	}
	n, err := a.from.Read(into)
	a.rest, a.err, a.much = into[:n], err, a.most == nil && n == readLeast
}

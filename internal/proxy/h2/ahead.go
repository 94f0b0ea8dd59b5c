package h2

import (
	"sync/atomic"

	"github.com/masegraye/connect-plugin-go/internal/h2frame"
)

// Ahead is how much servers may send ahead on the streams of one owner, beyond the little
// that they may on each. It is safe for concurrent use; make it with [NewAhead]. A nil one
// has no bound.
type Ahead struct{ left atomic.Int64 }

// NewAhead returns one of so many bytes.
func NewAhead(most int64) *Ahead {
	a := &Ahead{}
	a.left.Store(most)
	return a
}

// wideCost is what a stream with the large window may hold more than one with the small one:
// as much again as its window is being passed on.
const wideCost = 2*streamWindow - leastAhead

// take takes what one stream may hold, and reports whether there was as much.
func (a *Ahead) take() bool {
	if a == nil {
		return true
	}
	if a.left.Add(-wideCost) >= 0 {
		return true
	}
	a.give()
	return false
}

func (a *Ahead) give() {
	if a != nil {
		a.left.Add(wideCost)
	}
}

// crampedLocked reports whether more of the response is to come than the server may send
// before somebody reads.
func (s *Stream) crampedLocked() bool {
	return !s.wide && s.recvWindow <= leastAhead/2 && (s.stated < 0 || s.stated > s.recvWindow)
}

// widenLocked lets the server send further ahead on a stream whose response is long, where
// its owner has room for that.
func (s *Stream) widenLocked() {
	if s.wide || s.closed || !s.ahead.take() {
		return
	}
	s.wide = true
	s.grantLocked(streamWindow - leastAhead)
}

// narrowLocked gives back what the stream took.
func (s *Stream) narrowLocked() {
	if s.wide {
		s.wide = false
		s.ahead.give()
	}
}

// grantLocked enlarges the stream's window.
func (s *Stream) grantLocked(n int64) {
	s.c.out = h2frame.AppendWindowUpdate(s.c.out, s.id, uint32(n)) //nolint:gosec // at most the window
	s.recvWindow += n
	s.c.flushElsewhereLocked()
}

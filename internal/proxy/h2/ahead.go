package h2

import (
	"sync/atomic"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/h2frame"
)

// Ahead is how much servers may send ahead on the streams of one owner, beyond the little
// that they may on each. It is safe for concurrent use; make it with [NewAhead]. A nil one
// has no bound.
type Ahead struct {
	// Fixed at creation.
	most  int64
	begun time.Time

	left atomic.Int64
	last atomic.Int64 // when one took of it, in nanoseconds since begun
}

// NewAhead returns one of so many bytes.
func NewAhead(most int64) *Ahead {
	a := &Ahead{most: most, begun: time.Now()}
	a.left.Store(most)
	a.last.Store(-int64(widenPause))
	return a
}

const (
	// wideCost is what a stream with the large window may hold more than one with the small one:
	// as much again as its window is being passed on.
	wideCost = 2*streamWindow - leastAhead

	// widenPause is the least time between two streams of an owner that take it: what all of them may get would come
	// at one moment, and everybody else's answers behind it.
	widenPause = 4 * time.Millisecond

	// unread is the part of it that streams may take of which nobody has read anything.
	unread = 8
)

// Whole reports whether nothing of it is taken.
func (a *Ahead) Whole() bool { return a.left.Load() >= a.most }

// take takes what one stream may hold, and reports whether there was as much.
func (a *Ahead) take() bool {
	if a == nil {
		return true
	}
	now, last := int64(time.Since(a.begun)), a.last.Load()
	if a.left.Load() < wideCost || now-last < int64(widenPause) || !a.last.CompareAndSwap(last, now) {
		return false
	}
	if a.left.Add(-wideCost) >= 0 {
		return true
	}
	a.give()
	return false
}

// ample reports whether a stream may take of it before anybody has read what came: little is taken yet.
func (a *Ahead) ample() bool { return a == nil || a.left.Load() >= a.most-a.most/unread }

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

// longLocked notes that more of the response is to come than the server may send. It sends further ahead once
// somebody has read what there is: of what nobody reads little is on the way. A response that is gathered is read
// when it is there.
func (s *Stream) longLocked() {
	if s.gather && s.stated > 0 && s.ahead.ample() {
		s.widenLocked()
	}
	s.long = true
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

package h2

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of the heads of an answer: of what comes before it (1xx), of its own, and of its trailer together.
const (
	// MostFields is how many header fields an answer has at most. A request has as many, where its host takes 32 KiB
	// of them.
	MostFields = 1000

	manyFields = 64                    // beyond which they wait their turn
	fewFields  = 16                    // of one block, for which nobody waits
	fieldTime  = 50 * time.Microsecond // of one processor: what a field takes, and as much for others as they like to have
	frameTime  = 25 * time.Microsecond // the same of a frame with next to nothing in it
	timeFree   = 16 * time.Millisecond // worth of both that comes at once
	remembered = time.Second           // since there was time for all that somebody got

	fewBytes  = 64 // of data in a frame with next to nothing in it
	manySmall = 32 // of them that are counted at a time

	fieldHolds = 128     // bytes that a field holds besides its text
	holdsFree  = 4 << 10 // bytes of one block for which nobody pays
)

// Pace is how fast servers of one owner may send, to each of those who call them, what answers usually lack: header fields
// beyond the usual, and frames with next to nothing in them. Each head waits until there was time for those before it,
// and who got many makes the next call when there is time for as many again. Nobody waits for what others get. It is safe
// for concurrent use. The zero value is ready, a nil one has nobody wait.
type Pace struct {
	some atomic.Bool // of counts; without a lock, for who makes a call

	mu     sync.Mutex
	counts map[string]*pacing // by who calls
	swept  time.Time
}

// pacing is what somebody got.
type pacing struct {
	over   time.Time // when there was time for all that came
	fields int       // that the last answer had too many
}

// Reserve has whoever is about to make a call wait for as long as it says, and counts as many fields for the answer as
// the last one had too many. They go into [Request.Expected].
func (p *Pace) Reserve(who string) (fields int, wait time.Duration) {
	if p == nil || !p.some.Load() {
		return 0, 0
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweepLocked(now)
	c := p.counts[who]
	if c == nil {
		return 0, 0
	}
	wait = max(c.over.Sub(now), 0)
	c.addLocked(c.fields, fieldTime, now)
	return c.fields, wait
}

// Return takes back what was reserved for an answer that there is not.
func (p *Pace) Return(who string, fields int) {
	if fields > 0 {
		p.note(who, func(c *pacing, now time.Time) { c.addLocked(-fields, fieldTime, now) })
	}
}

// Rested reports whether nobody waits for what came, or would for what comes next.
func (p *Pace) Rested(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.counts {
		if c.over.After(now.Add(-timeFree)) {
			return false
		}
	}
	return true
}

// answered notes an answer with so many fields too many, of which some were reserved, and returns how long it waits.
func (p *Pace) answered(who string, fields, reserved int) time.Duration {
	return p.note(who, func(c *pacing, now time.Time) {
		c.fields = fields
		c.addLocked(fields-reserved, fieldTime, now)
	})
}

// came notes so many frames with next to nothing in them, and returns how long who reads them waits.
func (p *Pace) came(who string, frames int) time.Duration {
	return p.note(who, func(c *pacing, now time.Time) { c.addLocked(frames, frameTime, now) })
}

func (p *Pace) note(who string, add func(*pacing, time.Time)) time.Duration {
	if p == nil {
		return 0
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweepLocked(now)
	c := p.counts[who]
	if c == nil {
		c = new(pacing)
		if p.counts == nil {
			p.counts = make(map[string]*pacing)
		}
		p.counts[who] = c
		p.some.Store(true)
	}
	add(c, now)
	return max(c.over.Sub(now), 0)
}

// addLocked counts n things that take so long of one processor each.
func (c *pacing) addLocked(n int, each time.Duration, now time.Time) {
	if free := now.Add(-timeFree); c.over.Before(free) {
		c.over = free
	}
	c.over = c.over.Add(time.Duration(n) * each / time.Duration(runtime.GOMAXPROCS(0)))
}

// sweepLocked forgets, now and then, those who got nothing for a while.
func (p *Pace) sweepLocked(now time.Time) {
	if now.Sub(p.swept) < remembered {
		return
	}
	p.swept = now
	for who, c := range p.counts {
		if now.Sub(c.over) > remembered {
			delete(p.counts, who)
		}
	}
	p.some.Store(len(p.counts) > 0)
}

// Holder is who pays for what is held of the answer to a request.
type Holder interface {
	// Hold is told of each head that is held until the request ends, or longer, and reports whether there is room for
	// it. It is called by the goroutine that reads the connection, under no lock, and must not block.
	Hold(bytes int) bool
}

// lateStream is a stream that was given up: what the server still sends on it is counted as if it were not.
type lateStream struct {
	owner    string
	named    int
	expected int
}

// weigh counts a header block that is larger than usual, and has somebody pay for it. Its stream is told of it when
// there was time for those before it; nobody else of the connection waits.
func (c *Conn) weigh() {
	b := &c.in
	if b.count <= fewFields && b.held <= holdsFree {
		return
	}
	if holder := c.count(b); b.held > holdsFree && b.err == nil && !b.interim() && holder != nil && !holder.Hold(b.held) {
		b.err, b.fields = ErrHeld, nil
	}
}

// count counts the fields of a block beyond those that answers usually have, and returns who pays for it.
func (c *Conn) count(b *headerBlock) Holder {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[b.stream]; s != nil {
		if many := tooMany(s.named, b.count); many > 0 {
			wait := c.cfg.Pace.answered(s.owner, many, s.expected)
			if many > s.expected {
				s.holdLocked(wait)
			}
			s.expected = 0
		}
		return s.holder
	}
	if l, ok := c.late[b.stream]; ok {
		if many := tooMany(l.named, b.count); many > 0 {
			c.cfg.Pace.answered(l.owner, many, l.expected)
			l.expected = 0
		}
		l.named += b.count
		c.late[b.stream] = l
	}
	return nil
}

// tooMany is how many of n more fields are beyond the usual.
func tooMany(named, n int) int { return max(named+n-manyFields, 0) - max(named-manyFields, 0) }

// lateLocked notes that a stream was given up, whose server may still answer.
func (c *Conn) lateLocked(s *Stream) {
	if c.cfg.Pace == nil || len(c.late) >= 2*mostAbandoned {
		return
	}
	if c.late == nil {
		c.late = make(map[uint32]lateStream)
	}
	c.late[s.id] = lateStream{owner: s.owner, named: s.named, expected: s.expected}
}

// holdLocked has whoever reads the stream wait for so long.
func (s *Stream) holdLocked(d time.Duration) {
	if d <= 0 || s.closed && !s.eof {
		return
	}
	if s.paced != nil {
		s.paced.Stop() // the later one is behind the earlier one
	}
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		s.c.mu.Lock()
		defer s.c.mu.Unlock()
		if s.paced == t {
			s.paced = nil
			s.wake.Broadcast()
		}
	})
	s.paced = t
}

// smallLocked counts a frame of data with next to nothing in it.
func (s *Stream) smallLocked() {
	if s.small++; s.small < manySmall {
		return
	}
	s.small = 0
	s.holdLocked(s.c.cfg.Pace.came(s.owner, manySmall))
}

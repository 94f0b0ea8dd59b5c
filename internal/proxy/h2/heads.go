package h2

import "time"

// Bounds of the heads of an answer: of what comes before it (1xx), of its own, and of its trailer together.
const (
	// MostFields is how many header fields an answer has at most. A request has as many, where its host takes 32 KiB
	// of them.
	MostFields = 1000

	manyFields = 64 // beyond which they wait their turn
	fewFields  = 16 // of one block, for which nobody waits

	fewBytes  = 64 // of data in a frame with next to nothing in it
	manySmall = 32 // of them that are counted at a time

	fieldHolds = 128     // bytes that a field holds besides its text
	holdsFree  = 4 << 10 // bytes of one block for which nobody pays
)

// Holder is who pays for what is held of the answer to a request.
type Holder interface {
	// Hold is told of each head that is held until the request ends, or longer, and reports whether there is room for
	// it. It is called by the goroutine that reads the connection, under no lock, and must not block.
	Hold(bytes int) bool
}

// lateStream is a stream that was given up: what the server still sends on it is counted as if it were not.
type lateStream struct {
	payer    Payer
	named    int
	expected Reserved
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
			wait := c.cfg.Pace.answered(s.payer, many, s.expected)
			if many > s.expected.fields {
				s.holdLocked(wait)
			}
			s.expected = Reserved{}
		}
		return s.holder
	}
	if l, ok := c.late[b.stream]; ok {
		if many := tooMany(l.named, b.count); many > 0 {
			c.cfg.Pace.answered(l.payer, many, l.expected)
			l.expected = Reserved{}
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
	c.late[s.id] = lateStream{payer: s.payer, named: s.named, expected: s.expected}
}

// settledLocked notes that nothing more comes on a stream that may have been given up.
func (c *Conn) settledLocked(id uint32) {
	if l, ok := c.late[id]; ok {
		c.cfg.Pace.fell(l.payer, &l.expected)
		delete(c.late, id)
	}
}

// settleAllLocked notes that nothing more comes on any.
func (c *Conn) settleAllLocked() {
	for id := range c.late {
		c.settledLocked(id)
	}
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
	s.holdLocked(s.c.cfg.Pace.came(s.payer, manySmall))
}

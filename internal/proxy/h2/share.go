package h2

// A share is what one owner holds of the connection's send window: what its
// streams sent and the server has not given back. An owner whose requests nobody
// reads leaves the others room, however many streams it has.
type share struct {
	owner   string
	held    int64
	streams int
	at      int // among the holders, while it holds anything
}

// The part of a window that one owner may hold, and what has to be left of it.
// It is more than half because there are servers that give nothing back before
// half of the window was used.
const (
	shareHeld = 5
	shareLeft = 3

	leastWindow = 4 << 10 // bytes of the send window that a connection should have for a call
)

// joinShareLocked gives s a part in what its owner holds.
func (c *Conn) joinShareLocked(s *Stream, owner string) {
	own := c.shares[owner]
	if own == nil {
		own = &share{owner: owner}
		c.shares[owner] = own
	}
	own.streams++
	s.share = own
}

// leaveShareLocked ends that part. The server gives the window back when it
// forgets the stream.
func (c *Conn) leaveShareLocked(s *Stream) {
	own := s.share
	if own == nil {
		return
	}
	s.share = nil
	if own.streams--; own.streams == 0 {
		c.releaseLocked(own, own.held)
		delete(c.shares, own.owner)
		c.measureLocked()
	}
	c.wakeWaiterLocked()
}

// spendLocked takes n bytes of the connection's window for s.
func (c *Conn) spendLocked(s *Stream, n int64) {
	c.sendWindow -= n
	if own := s.share; own != nil && n > 0 {
		if own.held == 0 {
			own.at = len(c.holders)
			c.holders = append(c.holders, own)
		}
		own.held += n
		c.shared += n
		c.lastSender = own
	}
	c.measureLocked()
}

// regainLocked gives n bytes back to the connection's window. The server does not
// say whose they were: most likely those of whoever sent last, for a request that
// nobody reads stops being sent. More than is out nobody can hold. Whoever holds nothing is
// not looked at: servers may give back byte by byte.
func (c *Conn) regainLocked(n int64) {
	c.sendWindow += n
	c.capacity = max(c.capacity, c.sendWindow)
	if c.lastSender != nil {
		c.releaseLocked(c.lastSender, n)
	}
	for out := c.capacity - c.sendWindow; c.shared > out && len(c.holders) > 0; {
		c.releaseLocked(c.holders[len(c.holders)-1], c.shared-out)
	}
	c.measureLocked()
}

// releaseLocked notes that an owner holds up to n bytes less.
func (c *Conn) releaseLocked(own *share, n int64) {
	n = max(0, min(n, own.held))
	if n == 0 {
		return
	}
	own.held -= n
	c.shared -= n
	if own.held == 0 {
		last := c.holders[len(c.holders)-1]
		c.holders[own.at], last.at = last, own.at
		c.holders[len(c.holders)-1] = nil
		c.holders = c.holders[:len(c.holders)-1]
	}
}

// measureLocked notes whether there is more held of the send window than left.
func (c *Conn) measureLocked() {
	if dry := c.sendWindow < max(c.shared, leastWindow); dry != c.dry.Load() {
		c.dry.Store(dry)
	}
}

// allowedLocked returns how much more of the connection's window the owner of s
// may take: as long as much of it is left any amount, and then a part of what is
// left that shrinks with what the owner holds.
func (c *Conn) allowedLocked(s *Stream) int64 {
	left := c.sendWindow
	if s.share == nil {
		return left
	}
	reserve := min(shareFree, c.capacity*shareLeft/(shareHeld+shareLeft))
	part := (shareHeld*left - shareLeft*s.share.held) / (shareHeld + shareLeft)
	return max(0, left-reserve, part)
}

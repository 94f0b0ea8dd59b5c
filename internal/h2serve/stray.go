package h2serve

import "golang.org/x/net/http2"

// leastStray is how many bytes a frame for a stream that has ended counts as at least.
const leastStray = 64

// bodyLocked takes a request for one that gets no stream, which its peer does not know yet, and
// returns how much of its body may come meanwhile.
func (c *conn) bodyLocked(f *http2.MetaHeadersFrame) int64 {
	if f.StreamEnded() {
		return 0
	}
	n := int64(c.s.cfg.StreamWindow)
	c.underway += n
	return n
}

// strayLocked takes in DATA for a stream that has ended. It was under way then, unless it is more
// than the windows of such streams had room for.
func (c *conn) strayLocked(length int64) {
	if length = max(length, leastStray); length <= c.underway {
		c.underway -= length
		return
	}
	c.stray += length
}

// tellStray tells the meter what came. No lock is held: whoever is cut off is told so.
func (c *conn) tellStray() {
	if c.stray > 0 && c.meter != nil {
		c.meter.Stray(int(c.stray))
	}
	c.stray = 0
}

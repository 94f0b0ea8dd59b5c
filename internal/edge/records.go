package edge

import (
	"encoding/binary"
	"time"
)

// recordHead is the length of the head of a record of TLS (RFC 8446, section 5.1).
const recordHead = 5

// records finds the records of TLS in a stream of bytes that is cut anywhere, without reading them.
type records struct {
	skip  int // bytes of one that are still to come
	have  int // bytes of head
	head  [recordHead]byte
	whole int // that came and were not counted
}

// find takes account of bytes that came.
func (r *records) find(p []byte) {
	for len(p) > 0 {
		if r.skip > 0 {
			n := min(r.skip, len(p))
			p = p[n:]
			if r.skip -= n; r.skip == 0 {
				r.whole++
			}
			continue
		}
		n := copy(r.head[r.have:], p)
		p = p[n:]
		if r.have += n; r.have < recordHead {
			return
		}
		r.have = 0
		if r.skip = int(binary.BigEndian.Uint16(r.head[recordHead-2:])); r.skip == 0 {
			r.whole++
		}
	}
}

// count counts the records that came before: TLS asks for more once it has used them, and whoever reads has what they
// carried. One that was read in pieces hides as many that carried nothing. It reports false where the peer is cut off.
func (c *Conn) count(r *records) bool {
	n, carried := r.whole, c.carried
	r.whole, c.carried = 0, 0
	if n == 0 {
		return true
	}
	c.mu.Lock()
	k, tooMany := c.meter.recorded(n, n-carried, time.Now())
	tooMany = tooMany && c.cut == nil
	if tooMany {
		c.cut = make(chan struct{})
	}
	c.mu.Unlock()
	if tooMany {
		c.cutOff(cutFor + k.String())
	}
	return !tooMany
}

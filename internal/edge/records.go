package edge

import (
	"time"

	"github.com/masegraye/connect-plugin-go/internal/tlsrecords"
)

// count counts the records that came before: TLS asks for more once it has used them, and whoever reads has what they
// carried. One that was read in pieces hides as many that carried nothing. What came in pieces took as long as records. It reports
// false where the peer is cut off.
func (c *Conn) count(r *tlsrecords.Finder) bool {
	n, pieces := r.Take()
	if n+pieces == 0 {
		return true
	}
	idle := 0
	if n > 0 {
		idle, c.carried = n-c.carried, 0
	}
	c.mu.Lock()
	k, tooMany := c.meter.recorded(n+pieces, idle, time.Now())
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

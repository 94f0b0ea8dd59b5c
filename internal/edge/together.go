package edge

import "time"

// together has a connection for which nobody pays wait for what all of its address do that takes longer than its bytes say:
// requests that were refused or given up, and frames of DATA with next to nothing in them. On one connection there are bounds of
// most of that, but there may be a thousand. It is of who reads.
func (c *Conn) together(now time.Time) {
	if c.account.Load() != nil {
		c.refused.Store(0)
		return
	}
	nothing := c.meter.gaveUp + int(c.refused.Swap(0))
	c.waitFor(c.slot.heads.heavy(nothing*fieldsOfOne+c.meter.little, now))
}

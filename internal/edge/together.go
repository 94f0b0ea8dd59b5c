package edge

import "time"

// together has a connection wait for what takes longer than its bytes say, on all connections of who pays, or else of its address:
// frames of DATA with next to nothing in them and, where nobody pays, requests that were refused or given up. On one connection
// there are bounds of these, but there may be a thousand. It is of who reads.
func (c *Conn) together(now time.Time) {
	refused := float64(c.refused.Swap(0))
	by, requests := c.intake.Load(), float64(c.meter.little)/littleOfOne
	if by == &c.own {
		by = c.slot.heads
		requests += float64(c.meter.gaveUp) + refused
	}
	c.waitFor(by.costs(requests, now))
}

package edge

import "time"

// together has a connection wait for what takes longer than its bytes say, on all connections of who pays, or else of its address:
// frames of DATA with next to nothing in them and, where nobody pays, requests, above all those that were refused or given up. On
// one connection there are bounds of these, but there may be a thousand. What was just read counts, and what became of requests
// since the last time. It is of who reads.
func (c *Conn) together(little, gaveUp int, now time.Time) {
	requests := float64(little) / littleOfOne
	refused, answered := c.refused.Swap(0), c.answered.Swap(0)
	by := c.intake.Load()
	if by == &c.own {
		by = c.slot.heads
		requests += float64(gaveUp) + float64(refused) + float64(answered)/answeredOfOne
	}
	c.waitFor(by.costs(requests, now))
}

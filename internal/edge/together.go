package edge

import "time"

// ofNobody is how many times what the connections of one address may cost for which nobody pays those of all addresses may.
const ofNobody = 2

// usualCost is how much of that a connection may cause before it waits for what others did: a handshake or two, or questions how the host
// is, which others in their thousands would keep waiting for a second each time that it sends something.
const usualCost = 3

// together returns how long a connection waits for what takes longer than its bytes say, on all connections of who pays, or else of
// its address, and then of all addresses, too: frames of DATA with next to nothing in them, frames and records that nothing explains and,
// where nobody pays, long heads and requests, above all those that were refused or given up. On one connection there are bounds of
// these, but there may be a thousand, and others when they are gone. What was just read counts, and what became of requests since
// the last time. It is of who reads.
func (c *Conn) together(little, gaveUp int, now time.Time) time.Duration {
	c.mu.Lock()
	requests := float64(little)/littleOfOne + c.meter.unpaid()/unexplainedOfOne
	long := c.meter.long
	c.meter.long = 0
	c.mu.Unlock()
	by := c.intake.Load()
	if by != c.slot.listener.asks {
		return by.costs(requests, now)
	}
	requests += float64(gaveUp) + float64(c.refused.Swap(0)) + float64(c.answered.Swap(0))/answeredOfOne + float64(long)/longHeadOfOne
	wait := max(c.slot.owes.heads.costs(requests, now), c.slot.listener.nobody.heads.costs(requests, now))
	if c.cost += requests; c.cost > usualCost {
		return wait
	}
	return 0
}

package edge

import "time"

// Offer writes p where that waits for nobody. Where it may, it writes nothing and reports so. Of
// what it took something may be left, which settled denies: then somebody who may wait has to
// call [Conn.Settle], before anything else is offered.
func (c *Conn) Offer(p []byte) (taken, settled bool, err error) {
	now, account := time.Now(), c.account.Load()
	if account.Debt(now) > 0 || !c.writing.TryLock() {
		return false, true, nil
	}
	defer c.writing.Unlock()
	if c.isCut() || !c.below.sending.hurry() {
		return false, true, nil
	}
	_, err = c.Conn.Write(p)
	settled = c.below.sending.relax()
	account.spend(len(p), now)
	if c.meter != nil {
		c.mu.Lock()
		c.meter.sent(p)
		c.parts = c.tooMuchLocked(refusals)
		c.mu.Unlock()
	}
	if c.parts {
		_ = c.SetDeadline(now.Add(parting)) // also of what is left
	}
	if err != nil {
		c.partIfLocked() // which waits for nobody any more
	}
	return true, settled && !c.parts, err //nolint:wrapcheck // stands for what it wraps
}

// Settle writes what is left of what [Conn.Offer] took.
func (c *Conn) Settle() error {
	err := c.below.sending.settle(c.below.Conn)
	c.writing.Lock()
	defer c.writing.Unlock()
	c.partIfLocked()
	return err
}

// partIfLocked tells the peer that it is cut off, where that is to be done.
func (c *Conn) partIfLocked() {
	if c.parts {
		c.parts = false
		c.partLocked(cutFor + refusals.String())
	}
}

// isCut reports that the peer is cut off.
func (c *Conn) isCut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut != nil
}

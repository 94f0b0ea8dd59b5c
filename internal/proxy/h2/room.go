package h2

// Usable reports whether the connection takes new streams, now or when others
// have ended.
func (c *Conn) Usable() bool { return c.usable.Load() }

// Full reports whether it takes new streams only when others have ended, or when
// the server has read what waits for it.
func (c *Conn) Full() bool { return c.choked.Load() || c.load.Load() >= c.limit.Load() }

// Reserve takes a place for a stream that is about to be opened, and reports false where there
// is none.
func (c *Conn) Reserve() bool {
	for {
		load := c.load.Load()
		if c.choked.Load() || load >= c.limit.Load() {
			return false
		}
		if c.load.CompareAndSwap(load, load+1) {
			return true
		}
	}
}

// Room returns how many streams it takes at this moment.
func (c *Conn) Room() int64 {
	if c.choked.Load() {
		return 0
	}
	return max(0, c.limit.Load()-c.load.Load())
}

// Limit returns how many streams it carries at once, as the server stated it.
func (c *Conn) Limit() int64 { return c.limit.Load() }

// Worn reports whether the handlers of streams that were given up may keep the
// server from starting another: nobody tells when they end, and servers run no
// more at once than they take streams.
func (c *Conn) Worn() bool {
	abandoned := c.abandoned.Load()
	return abandoned > 0 && abandoned+c.load.Load() >= min(c.limit.Load(), mostAbandoned)
}

// Filling reports whether it will be full or worn soon: three quarters of its streams are in use, or
// of those that may be given up on it. Whoever opens another one by then waits for none.
func (c *Conn) Filling() bool {
	load, abandoned, limit := c.load.Load(), c.abandoned.Load(), c.limit.Load()
	return load >= MostOf(limit) || abandoned > 0 && abandoned+load >= MostOf(min(limit, mostAbandoned))
}

// MostOf is three quarters of so many streams, and all of them where there are few.
func MostOf(streams int64) int64 { return streams - streams/4 }

// Dry reports whether others than the given owner hold more of what the server
// takes ahead on the connection than is left.
func (c *Conn) Dry(owner string) bool {
	if !c.dry.Load() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	others := c.shared
	if own := c.shares[owner]; own != nil {
		others -= own.held
	}
	return c.sendWindow < max(others, leastWindow)
}

// Failed reports whether the server took the connection from us, or broke it,
// before it answered anything.
func (c *Conn) Failed() bool {
	return !c.Usable() && !c.answered.Load() && !c.retired.Load()
}

// Flooded reports whether the connection ended because the server sent what nothing explains.
func (c *Conn) Flooded() bool { return c.flooded.Load() }

// Retire makes the connection take no new streams and end with the last one.
func (c *Conn) Retire() {
	c.retired.Store(true)
	c.mu.Lock()
	c.usable.Store(false)
	c.draining = true
	last := len(c.streams) == 0
	c.mu.Unlock()
	if last {
		c.fail(ErrClosed)
	}
}

// Load returns the number of streams on the wire.
func (c *Conn) Load() int { return int(c.load.Load()) }

// Use says that the connection carries calls for which it is to stay, Used whether it did.
func (c *Conn) Use() {
	if !c.used.Load() {
		c.used.Store(true)
	}
}

// Used is as Use says.
func (c *Conn) Used() bool { return c.used.Load() }

// Done is closed when the connection is.
func (c *Conn) Done() <-chan struct{} { return c.stop }

// Err returns why the connection takes no streams: why it ended, or that the server is
// going away. It returns nil while neither is so.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return c.err
	case c.goAway != nil:
		return c.goAway
	default:
		return nil
	}
}

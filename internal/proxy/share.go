package proxy

import "github.com/masegraye/connect-plugin-go/internal/proxy/h2"

// mayLocked reports whether a caller may have one more stream: nobody has more than three quarters
// of those that there are, and of those that still end elsewhere. The host, which has no name, may
// always.
func (p *Provider) mayLocked(caller string) bool {
	held := int64(p.held[caller])
	if caller == "" || held == 0 {
		return true
	}
	streams := int64(0)
	for _, conn := range p.lines.conns {
		streams += conn.Limit()
	}
	if streams == 0 {
		return true
	}
	for _, conn := range p.lines.leaving {
		streams += int64(conn.Load())
	}
	return held < h2.MostOf(streams)
}

// holdLocked notes that a call has a stream, or is about to.
func (p *Provider) holdLocked(c *call, conn *h2.Conn) {
	if !c.holds && c.account() != "" {
		p.joinLocked(c, conn)
		c.holds = true
		p.held[c.account()]++
	}
}

// yieldLocked notes that a call has none: it is over, or the connection that it chose was full by
// the time that it came.
func (p *Provider) yieldLocked(c *call) {
	if !c.holds {
		return
	}
	c.holds = false
	p.partLocked(c)
	if p.held[c.account()]--; p.held[c.account()] == 0 {
		delete(p.held, c.account())
	}
}

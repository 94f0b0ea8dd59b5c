package proxy

import (
	"time"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// A caller with many calls at once at a provider is a crowd there. What it has moved stands in front of
// everybody else's answers on a connection, so a crowd has connections of its own as far as there may be some.
const (
	crowdFrom = 8                      // calls of one caller at once
	stays     = time.Second            // for which a connection is that of whoever made a single call on it
	apartWait = 100 * time.Millisecond // for which a call of a crowd waits for a connection of its own
)

// company is who calls over a connection.
type company struct {
	crowds map[string]int // calls in flight of callers that were crowds when they began, by caller
	last   visit          // the last call of a caller that was none
	other  visit          // and the last of another one than that
}

// visit is a call of somebody who makes few.
type visit struct {
	caller string
	at     time.Time
}

// seen notes a call of who makes few.
func (o *company) seen(v visit) {
	if o.last.caller != v.caller {
		o.other = o.last
	}
	o.last = v
}

// visitedBy reports whether somebody else made a call not long ago.
func (o *company) visitedByOther(than string, now time.Time) bool {
	v := o.last
	if v.caller == than {
		v = o.other
	}
	return v.caller != "" && now.Sub(v.at) < stays
}

// crowdedByOther reports whether somebody else is a crowd there.
func (o *company) crowdedByOther(than string) bool {
	return len(o.crowds) > 1 || len(o.crowds) == 1 && o.crowds[than] == 0
}

// crowdLocked reports whether one more call of a caller is that of a crowd.
func (p *Provider) crowdLocked(caller string) bool { return p.held[caller] >= crowdFrom }

// foreignLocked reports whether a call should rather go over another connection: that of a crowd where others
// are that are none, and theirs where a crowd is.
func (p *Provider) foreignLocked(c *call, conn *h2.Conn) bool {
	o := p.lines.company[conn]
	switch {
	case o == nil || c.account() == "":
		return false
	case p.crowdLocked(c.account()):
		return o.visitedByOther(c.account(), c.start)
	default:
		return o.crowdedByOther(c.account())
	}
}

// joinLocked notes that a call has a stream on a connection, or is about to.
func (p *Provider) joinLocked(c *call, conn *h2.Conn) {
	o := p.lines.company[conn]
	if o == nil {
		o = &company{}
		if p.lines.company == nil {
			p.lines.company = make(map[*h2.Conn]*company)
		}
		p.lines.company[conn] = o
	}
	if !p.crowdLocked(c.account()) {
		o.seen(visit{caller: c.account(), at: c.start})
		return
	}
	if o.crowds == nil {
		o.crowds = make(map[string]int)
	}
	o.crowds[c.account()]++
	c.crowds = o
}

// partLocked notes that it has none any more.
func (p *Provider) partLocked(c *call) {
	o := c.crowds
	if o == nil {
		return
	}
	c.crowds = nil
	if o.crowds[c.account()]--; o.crowds[c.account()] == 0 {
		delete(o.crowds, c.account())
	}
}

// apartLocked says what a call is to do for which there is no better connection than the given one, on which
// it is foreign: another one is dialled, for which a crowd waits for a moment, and nobody else.
func (p *Provider) apartLocked(c *call, conn *h2.Conn) choice {
	ch := p.waitLocked()
	if ch.dial == nil || !p.crowdLocked(c.account()) {
		return choice{conn: conn}
	}
	wait := apartWait - time.Since(ch.dial.begun)
	if wait <= 0 {
		return choice{conn: conn}
	}
	return choice{dial: ch.dial, wait: wait, apart: true}
}

// awaitApart waits for a connection of a crowd's own. Nobody waits behind it.
func awaitApart(c *call, ch choice) error {
	timer := time.NewTimer(ch.wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ch.dial.done:
	case <-c.interrupted():
		return c.why()
	}
	return nil
}

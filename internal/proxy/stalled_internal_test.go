package proxy

import (
	"fmt"
	"time"
)

// Stalled says which caller's call waits while there is a stream that the caller may have, or while
// another connection might be dialled; empty where nobody's does. It is to be asked when everybody
// rests.
func (p *Provider) Stalled() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &p.lines
	free, worn := int64(0), false
	for _, conn := range l.conns {
		switch {
		case conn.Worn():
			worn = worn || len(l.leaving) < p.cfg.MaxConns && p.restLocked() < -2*time.Millisecond // who waits for less looks a moment later
		case conn.Usable():
			free += conn.Room()
		}
	}
	unused := (worn || len(l.conns) < p.cfg.MaxConns) && l.dialing == nil && l.hope.left(time.Now()) == 0
	for _, line := range l.waiting.turns {
		if may := p.mayLocked(line.caller); may && free > 0 || unused {
			return fmt.Sprintf("%s with %d streams waits: %d free, %d connections, may have one: %v", line.caller, p.held[line.caller], free, len(l.conns), may)
		}
	}
	if l.waiting.awake != 0 {
		return fmt.Sprintf("%d are awake", l.waiting.awake)
	}
	return ""
}

// Held returns for how many calls it is counted that they have a stream.
func (p *Provider) Held() (all int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.held {
		all += n
	}
	return all
}

package proxy

import (
	"slices"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// Farewell has the provider know, on each connection that has calls, that whoever makes them is about to end: they go on, and those
// that could go on for ever are for it to end. Later calls get other connections. Where no call is somebody else's, nothing is said: who
// makes its own knows.
func (p *Provider) Farewell() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil || !p.servesLocked() {
		return
	}
	l := &p.lines
	for _, conn := range l.leaving {
		conn.Farewell()
	}
	kept := slices.DeleteFunc(slices.Clone(l.conns), p.bidLocked)
	p.keepLocked(append(l.conns[:0], kept...))
	if l.reserve != nil && p.bidLocked(l.reserve) {
		l.reserve = nil
	}
}

// servesLocked reports whether there is a call of a plugin.
func (p *Provider) servesLocked() bool {
	for c := range p.calls {
		if c.CallerID != "" {
			return true
		}
	}
	return false
}

// bidLocked says farewell on a connection that has calls and has it end with them, and reports whether it is to be forgotten.
func (p *Provider) bidLocked(conn *h2.Conn) bool {
	if conn.Load() == 0 {
		return false
	}
	conn.Farewell()
	if !conn.Usable() { // it is about to be retired
		return false
	}
	p.retireLocked(conn)
	return true
}

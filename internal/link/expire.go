package link

import (
	"slices"
	"sync"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// expiry is what is to come of a connection when the certificate of its server has ended. It is begun and called off once each.
type expiry struct {
	mu    sync.Mutex
	timer *time.Timer // nil before it is begun and where nothing comes
	off   bool
}

// begin calls each function when it is time. The next one is not called before the one before has returned.
func (e *expiry) begin(steps ...expiryStep) {
	e.mu.Lock()
	defer e.mu.Unlock()

	if e.off || len(steps) == 0 {
		return
	}

	e.timer = time.AfterFunc(time.Until(steps[0].at), func() {
		steps[0].do()
		e.begin(steps[1:]...)
	})
}

type expiryStep struct {
	at time.Time
	do func()
}

func (e *expiry) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()

	e.off = true
	if e.timer != nil {
		e.timer.Stop()
	}
}

// expire has later requests go over other connections when the certificate has ended that the server showed on this one, and ends
// it, with what is under way, when Overtime has passed as well: it would go on for ever, and who has the key of a certificate that
// ended is somebody else for all that is known.
func (p *Pool) expire(c *Conn) {
	if p.cfg.Overtime <= 0 || c.state == nil || len(c.state.PeerCertificates) == 0 {
		return
	}

	end := certs.EndOf(c.state.PeerCertificates, c.state.VerifiedChains)
	if !end.After(time.Now()) {
		return // who takes a certificate that has ended takes it on each connection
	}

	c.expiry.begin(
		expiryStep{end, func() { p.partWith(c) }},
		expiryStep{end.Add(p.cfg.Overtime), c.h2.Close},
	)
}

// partWith parts with a connection, if it is one of the pool's.
func (p *Pool) partWith(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()

	if i := slices.Index(p.conns, c); i >= 0 {
		p.conns = slices.Delete(p.conns, i, i+1)
		p.partLocked(c)
		p.wakeAllLocked() // another one may be dialled now
	}
}

package turns

import (
	"context"
	"net"
)

// Process are the turns of all TLS handshakes of a process, which they take while they compute: those that begin, and
// those that go on, which wait for none that begins. Nil has nobody wait.
type Process struct{ first, next *Turns }

// NewProcess returns the turns of a process with so many processors.
func NewProcess(processors int) *Process { return &Process{New(processors), New(processors)} }

// Of returns those of a handshake that had so many answers. Nil has it not wait.
func (p *Process) Of(answers int) *Turns {
	switch {
	case p == nil:
		return nil
	case answers == 0:
		return p.first
	}
	return p.next
}

// Begin waits for the turn of a TLS client that is about to begin, and returns its connection, which waits for the next
// turns. Whoever makes the handshake calls Over after it.
func (p *Process) Begin(life context.Context, c net.Conn) *Conn {
	out := &Conn{Conn: c, life: life, of: p}
	out.work()
	return out
}

// Conn is the connection of a TLS client. During the handshake it has a turn whenever it does not wait for its peer.
type Conn struct {
	net.Conn

	// Of who makes the handshake.
	life    context.Context //nolint:containedctx // of the handshake
	of      *Process        // nil where nothing waits: after it
	has     *Turns          // of which it has one, nil for none
	answers int
}

// Over says that the handshake is over.
func (c *Conn) Over() {
	c.rest()
	c.of = nil
}

// Read implements [net.Conn].
func (c *Conn) Read(p []byte) (int, error) {
	if c.of == nil {
		return c.Conn.Read(p) //nolint:wrapcheck // stands for what it wraps
	}
	c.rest()
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.answers++
		c.work()
	}
	return n, err //nolint:wrapcheck // as above
}

// work waits for a turn.
func (c *Conn) work() {
	if t := c.of.Of(c.answers); t != nil && t.Await(c.life) {
		c.has = t
	}
}

// rest lets others have a turn.
func (c *Conn) rest() {
	if c.has != nil {
		c.has.Give()
		c.has = nil
	}
}

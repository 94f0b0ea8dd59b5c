package gather

import (
	"net"
	"sync"
	"time"
)

// Config is what bounds a connection. The zero value of a field means its default.
type Config struct {
	// WriteTimeout is how long the peer may take none of what is written before
	// the connection fails; the default is 30 s.
	WriteTimeout time.Duration
	// CloseTimeout is how long the rest may take after Close; the default is 1 s.
	CloseTimeout time.Duration
}

const (
	defaultWriteTimeout = 30 * time.Second
	defaultCloseTimeout = time.Second
)

func (c Config) withDefaults() Config {
	if c.WriteTimeout <= 0 {
		c.WriteTimeout = defaultWriteTimeout
	}
	if c.CloseTimeout <= 0 {
		c.CloseTimeout = defaultCloseTimeout
	}
	return c
}

// Listener accepts connections that gather what is written. It is safe for
// concurrent use.
type Listener struct {
	net.Listener

	cfg     Config
	writers sync.WaitGroup
}

// NewListener returns a listener that wraps the connections of another.
func NewListener(l net.Listener, cfg Config) *Listener {
	return &Listener{Listener: l, cfg: cfg.withDefaults()}
}

// Accept implements [net.Listener].
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // the listener's own error
	}
	return newConn(c, l.cfg, &l.writers), nil
}

// Wait waits until nothing is written any more. It is for after the last
// connection was closed, and ends at the latest a CloseTimeout later.
func (l *Listener) Wait() { l.writers.Wait() }

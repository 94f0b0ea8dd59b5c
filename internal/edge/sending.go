package edge

import (
	"fmt"
	"net"
	"sync"
)

// sending is what is written to a connection below TLS. For a while writes may wait for nobody: then
// the system gets what it has room for, and the rest is left for whoever may wait.
type sending struct {
	mu      sync.Mutex // held during a write: what was left comes first
	hurried bool       // no write waits
	left    []byte
}

// write writes p to a connection, after what was left.
func (s *sending) write(to net.Conn, p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hurried {
		return s.hurryLocked(to, p)
	}
	if err := s.settleLocked(to); err != nil {
		return 0, err
	}
	return to.Write(p) //nolint:wrapcheck // stands for what it wraps
}

// hurryLocked writes what the system takes at once, and leaves the rest.
func (s *sending) hurryLocked(to net.Conn, p []byte) (int, error) {
	n := 0
	if len(s.left) == 0 {
		var err error
		if n, err = writeNow(to, p); err != nil {
			return n, err
		}
	}
	s.left = append(s.left, p[n:]...)
	return len(p), nil
}

// settle writes what was left, and waits for that.
func (s *sending) settle(to net.Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settleLocked(to)
}

func (s *sending) settleLocked(to net.Conn) error {
	if len(s.left) == 0 {
		return nil
	}
	n, err := to.Write(s.left)
	if s.left = s.left[n:]; len(s.left) == 0 {
		s.left = nil
	}
	if err != nil {
		return fmt.Errorf("what was left: %w", err)
	}
	return nil
}

// hurry has no write wait until relax. It reports false where one does at the moment, or something is
// left.
func (s *sending) hurry() bool {
	if !s.mu.TryLock() {
		return false
	}
	defer s.mu.Unlock()
	s.hurried = len(s.left) == 0
	return s.hurried
}

// relax has writes wait again, and reports whether nothing is left.
func (s *sending) relax() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurried = false
	return len(s.left) == 0
}

// systems returns a connection of the system's for what was accepted, nil where something else
// wants to see what is written.
func systems(c net.Conn) net.Conn {
	if o, ok := c.(interface{ Opened() net.Conn }); ok {
		c = o.Opened()
	}
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn:
		return c
	}
	return nil
}

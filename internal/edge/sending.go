package edge

import (
	"fmt"
	"net"
	"sync"
	"syscall"
)

// sending is what is written to a connection below TLS. For a while writes may wait for nobody: then
// the system gets what it has room for, and the rest is left for whoever may wait.
type sending struct {
	direct syscall.Conn // the system's connection; nil where something else wants to see what is written

	mu      sync.Mutex // held during a write: what was left comes first
	hurried bool       // no write waits
	left    []byte
}

// write writes p to a connection, after what was left.
func (s *sending) write(to net.Conn, p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hurried {
		return s.hurryLocked(p)
	}
	if err := s.settleLocked(to); err != nil {
		return 0, err
	}
	return to.Write(p) //nolint:wrapcheck // stands for what it wraps
}

// hurryLocked writes what the system takes at once, and leaves the rest.
func (s *sending) hurryLocked(p []byte) (int, error) {
	n := 0
	if len(s.left) == 0 {
		var err error
		if n, err = writeNow(s.direct, p); err != nil {
			return n, fmt.Errorf("write: %w", err)
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

// hurry has no write wait until relax. It reports false where that cannot be: where one waits at the
// moment, or something is left.
func (s *sending) hurry() bool {
	if s.direct == nil || !s.mu.TryLock() {
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

// directly returns the system's connection below what was accepted, nil where there is none, or
// something else wants to see what is written to it.
func directly(accepted net.Conn) syscall.Conn {
	if o, ok := accepted.(interface{ Opened() net.Conn }); ok {
		accepted = o.Opened()
	}
	switch c := accepted.(type) {
	case *net.TCPConn:
		return c
	case *net.UnixConn:
		return c
	}
	return nil
}

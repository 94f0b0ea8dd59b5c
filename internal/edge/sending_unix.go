//go:build unix

package edge

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// direct returns the system's connection below what was accepted, for writeNow.
func direct(accepted net.Conn) syscall.Conn { return directly(accepted) }

// attempt is a write that takes no time. Those that nobody needs now are kept in one place: what a
// quiet connection had of its own would be far away in memory.
type attempt struct {
	once func(fd uintptr)

	p    []byte
	took int
	err  error
}

var attempts = sync.Pool{New: func() any {
	a := new(attempt)
	a.once = func(fd uintptr) { a.took, a.err = writeOnce(int(fd), a.p) }
	return a
}}

// writeNow writes as much as the system takes, and returns how much.
func writeNow(c syscall.Conn, p []byte) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err //nolint:wrapcheck // the caller does
	}
	a, _ := attempts.Get().(*attempt)
	a.p = p
	err = raw.Control(a.once) // not Write, which would ask first who waits
	if err == nil {
		err = a.err
	}
	n := a.took
	a.p, a.took, a.err = nil, 0, nil
	attempts.Put(a)
	return n, err
}

// writeOnce writes as much as a descriptor takes.
func writeOnce(fd int, p []byte) (n int, err error) {
	for n < len(p) {
		took, err := take(fd, p[n:])
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			return n, nil
		case err != nil:
			return n, err
		}
		n += took
	}
	return n, nil
}

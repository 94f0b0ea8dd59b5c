//go:build unix

package edge

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// writesNow reports whether a connection can be written to without waiting.
func writesNow(c net.Conn) bool { return systems(c) != nil }

// writeNow writes as much as the system takes at once.
func writeNow(c net.Conn, p []byte) (n int, err error) {
	of, ok := systems(c).(syscall.Conn)
	if !ok {
		return 0, nil
	}
	raw, err := of.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("write: %w", err)
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		n, failed = writeOnce(int(fd), p) //nolint:gosec // a descriptor is an int
		return true
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return n, fmt.Errorf("write: %w", err)
	}
	return n, nil
}

// writeOnce writes as much as a descriptor takes.
func writeOnce(fd int, p []byte) (n int, err error) {
	for n < len(p) {
		took, err := syscall.Write(fd, p[n:])
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			return n, nil
		case err != nil:
			return n, err //nolint:wrapcheck // the caller does
		}
		n += took
	}
	return n, nil
}

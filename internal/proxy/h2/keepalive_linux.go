package h2

import (
	"syscall"
	"time"
)

// tcpUserTimeout is TCP_USER_TIMEOUT (RFC 5482), which package syscall lacks.
const tcpUserTimeout = 18

// limitUnacknowledged ends a connection on which what was sent is not acknowledged
// for so long; the kernel would go on trying for a quarter of an hour.
func limitUnacknowledged(conn syscall.Conn, d time.Duration) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // a wish, as keep-alive is
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(d.Milliseconds()))
	})
}

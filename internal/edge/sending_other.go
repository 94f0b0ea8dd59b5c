//go:build !unix

package edge

import (
	"net"
	"syscall"
)

// direct returns no connection: nothing writes to one without waiting.
func direct(net.Conn) syscall.Conn { return nil }

// writeNow writes nothing.
func writeNow(syscall.Conn, []byte) (int, error) { return 0, nil }

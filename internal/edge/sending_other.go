//go:build !unix

package edge

import "net"

// writesNow reports that no connection can be written to without waiting.
func writesNow(net.Conn) bool { return false }

// writeNow writes nothing.
func writeNow(net.Conn, []byte) (int, error) { return 0, nil }

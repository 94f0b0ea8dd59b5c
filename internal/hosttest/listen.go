package hosttest

import (
	"net"
	"testing"
)

// Listen listens on a port of loopback that nobody else is given until the test ends, not even
// after it was closed.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	var err error
	for range 1_000 {
		var addr string
		var release func()
		if addr, release, err = reserve(); err != nil {
			continue
		}
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			t.Cleanup(release)
			return l
		}
		release()
	}
	t.Fatalf("listen: %v", err)
	return nil
}

// FreeAddr returns an address of loopback on which nobody listens until the test lets somebody.
func FreeAddr(t testing.TB) string {
	t.Helper()
	l := Listen(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

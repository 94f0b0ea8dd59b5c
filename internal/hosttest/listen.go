package hosttest

import (
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
)

// Ports that systems do not give to those who ask for any: Linux gives those from 32768, others
// those from 49152. A test that closes such a port finds it again as it left it, whatever runs beside it.
const (
	firstPort = 20_000
	ports     = 12_000
)

// taken counts the ports that were tried. Processes of tests that run at once begin apart.
var taken atomic.Uint32

// Listen listens on a port of loopback that nobody else is given, not even after it was closed.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	var err error
	for range 1_000 {
		port := firstPort + (uint32(os.Getpid())*127+taken.Add(1))%ports //nolint:gosec // any number serves
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))); err == nil {
			return l
		}
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

package hosttest_test

import (
	"net"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// An address on which nobody listens refuses, whoever else listens meanwhile, and may be listened on again and again.
func TestFreeAddr(t *testing.T) {
	t.Parallel()
	addr := hosttest.FreeAddr(t)
	refuses := func() {
		if conn, err := net.Dial("tcp", addr); err == nil {
			t.Errorf("%s is connected to %s", conn.LocalAddr(), addr)
			_ = conn.Close()
		}
	}
	for range 3 {
		refuses()
		for range 100 {
			other, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = other.Close() })
			if other.Addr().String() == addr {
				t.Error("the system gave the address to another")
			}
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		_ = conn.Close()
	}
	refuses()
}

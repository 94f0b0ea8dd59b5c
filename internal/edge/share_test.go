package edge_test

import (
	"net"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/edge"
)

// A holder has exactly as many connections as it may, each of which counts for it and not for its
// address any more; what it has no room for stays the address's until another has ended.
func TestAudit_OWN10_AShareIsExact(t *testing.T) {
	t.Parallel()
	const most = 2
	below := &pipes{conns: make(chan net.Conn), shut: make(chan struct{})}
	l := edge.Listen(below, edge.Config{
		MaxConnections: 10, MaxPerAddress: 10, Silence: time.Hour, Key: func(net.Addr) string { return "peer" },
	})
	t.Cleanup(l.End)
	holder := edge.Holder{Name: "one", Most: most}
	conns := make([]*edge.Conn, most+1)
	for i := range conns {
		near, far := net.Pipe()
		below.conns <- near
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conns[i], _ = c.(*edge.Conn)
		t.Cleanup(func() {
			_ = c.Close()
			_ = far.Close()
		})
		for range 2 { // who proves it again has it once
			if proven := conns[i].Prove(holder); proven != (i < most) || conns[i].Proven() != proven {
				t.Errorf("connection %d of %d is proven: %v", i+1, most, proven)
			}
		}
	}
	if key, n := l.Fullest(); key != "peer" || n != 1 {
		t.Errorf("%d connections count for %q, want 1", n, key)
	}
	if err := conns[0].Close(); err != nil {
		t.Error(err)
	}
	if !conns[most].Prove(holder) {
		t.Error("there is no room though one has ended")
	}
	if _, n := l.Fullest(); n != 0 {
		t.Errorf("%d connections count for an address, want none", n)
	}
}

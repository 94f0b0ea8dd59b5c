package edge_test

import (
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/edge"
)

// An address that opens connections faster than it may is refused, and one that has its
// connection keeps it.
func TestListener_NewConnectionsHaveARate(t *testing.T) {
	t.Parallel()
	const burst = 3
	s := start(t, func(c *edge.Config) { c.PerSecond, c.Burst = 1e-9, burst })
	kept := s.http(t)
	for i := range burst {
		c := s.http(t)
		if i == 0 {
			c = kept
		}
		if err := s.get(t.Context(), c, "/", "x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.get(t.Context(), s.http(t), "/", "x"); err == nil {
		t.Error("a connection beyond the rate is served")
	}
	if s.refused.Load() == 0 {
		t.Error("nobody was told of it")
	}
	if err := s.get(t.Context(), kept, "/", "still"); err != nil {
		t.Error(err)
	}
}

// Who comes too fast is refused where connections are accepted, if its address is known: a goroutine
// for each would stand in front of what others ask.
func TestAudit_ATK14_WhoComesTooFastGetsNoGoroutine(t *testing.T) {
	t.Parallel()
	below, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	where := make(chan string, 1)
	l := edge.Listen(below, edge.Config{
		PerSecond: 1e-9, MaxConnections: 10, MaxPerAddress: 10, Silence: time.Hour,
		Key: func(a net.Addr) string { return a.String() },
		Refused: func(net.Addr, error) {
			stack := make([]byte, 16<<10)
			where <- string(stack[:runtime.Stack(stack, false)])
		},
	})
	defer l.End()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", below.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if at := <-where; !strings.Contains(at, "(*Listener).accept(") {
		t.Errorf("it was refused in a goroutine of its own:\n%s", at)
	}
	if l.Len() != 0 {
		t.Errorf("%d connections are left", l.Len())
	}
}

package edge_test

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
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
			if proven := conns[i].Prove(holder) == nil; proven != (i < most) || conns[i].Proven() != proven {
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
	if conns[most].Prove(holder) != nil {
		t.Error("there is no room though one has ended")
	}
	if _, n := l.Fullest(); n != 0 {
		t.Errorf("%d connections count for an address, want none", n)
	}
}

// Where all places are taken the address that has most which proved nothing makes room, by the connection
// on which nothing was served for longest; who proved something and who has few keep theirs.
func TestAudit_ATK11_TheFullestAddressMakesRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		below := &pipes{conns: make(chan net.Conn), shut: make(chan struct{})}
		l := edge.Listen(below, edge.Config{
			MaxConnections: 8, MaxPerAddress: 4, Silence: time.Hour, Key: func(a net.Addr) string { return a.String() },
		})
		defer l.End()
		come := func(from string) *visit {
			near, far := net.Pipe()
			go func() { below.conns <- placed{near, from} }()
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			time.Sleep(time.Second)
			return &visit{Conn: edgeOf(c), far: far}
		}
		many := []*visit{come("192.0.2.1"), come("192.0.2.1"), come("192.0.2.1")}
		few := []*visit{come("192.0.2.2"), come("192.0.2.2")}
		one := come("192.0.2.3")
		proven := []*visit{come("192.0.2.4"), come("192.0.2.4")}
		for _, v := range proven {
			if v.Prove(edge.Holder{Name: "one", Most: len(proven)}) != nil {
				t.Fatal("there is no room to prove something")
			}
		}
		many[0].Served(false)
		late := []*visit{come("198.51.100.1"), come("198.51.100.2"), come("198.51.100.3")}
		for name, tt := range map[string]struct {
			*visit
			kept bool
		}{
			"the one of the fullest that was served": {many[0], true}, "its oldest": {many[1], false}, "its next": {many[2], false},
			"the older of two": {few[0], false}, "the other": {few[1], true}, "the one of another": {one, true},
			"proven": {proven[0], true}, "proven, too": {proven[1], true},
			"a newcomer": {late[0], true}, "the next": {late[1], true}, "the last": {late[2], true},
		} {
			if kept := tt.isOpen(); kept != tt.kept {
				t.Errorf("%s: kept %t, want %t", name, kept, tt.kept)
			}
		}
	})
}

// visit is a connection and its other end.
type visit struct {
	*edge.Conn

	far net.Conn
}

// isOpen is for a bubble.
func (v *visit) isOpen() bool {
	synctest.Wait()
	_ = v.far.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := v.far.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// Holders that belong together have as many connections as they may together; what one of them takes over from
// another counts once, and one that ended makes room.
func TestAudit_ATK14_HoldersOfAKinShare(t *testing.T) {
	t.Parallel()
	const most, together = 3, 4
	below := &pipes{conns: make(chan net.Conn), shut: make(chan struct{})}
	l := edge.Listen(below, edge.Config{
		MaxConnections: 10, MaxPerAddress: 10, Silence: time.Hour, Key: func(net.Addr) string { return "peer" },
	})
	t.Cleanup(l.End)
	var gone atomic.Bool
	holder := func(name string) edge.Holder {
		return edge.Holder{Name: name, Most: most, Kin: "kin", MostOfKin: together, Ended: func() bool { return name == "a" && gone.Load() }}
	}
	come := func() *edge.Conn {
		near, far := net.Pipe()
		below.conns <- near
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = c.Close()
			_ = far.Close()
		})
		return edgeOf(c)
	}
	prove := func(c *edge.Conn, by edge.Holder, want error) {
		t.Helper()
		if err := c.Prove(by); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", by.Name, err, want)
		}
	}
	first, last := come(), come()
	prove(first, holder("a"), nil)
	prove(come(), holder("a"), nil)
	prove(come(), holder("a"), nil)
	prove(come(), holder("a"), edge.ErrHolderFull)
	prove(come(), holder("b"), nil)
	prove(last, holder("b"), edge.ErrKinFull)
	prove(come(), edge.Holder{Name: "another", Most: most}, nil)
	gone.Store(true)
	prove(first, holder("c"), nil) // in its place
	prove(last, holder("c"), edge.ErrKinFull)
	_ = first.Close()
	prove(last, holder("c"), nil)
}

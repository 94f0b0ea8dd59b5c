package edge_test

import (
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

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

// The owner is told which bound a newcomer met, and that one was met by nobody while there was room.
func TestAudit_ATK14_NewcomersMeetBoundsByName(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		edit func(*edge.Config)
		wait time.Duration // before the newcomer
		want error
	}{
		"too fast":  {func(c *edge.Config) { c.PerSecond, c.Burst = 1e-9, 1 }, 0, edge.ErrTooFast},
		"no place":  {func(c *edge.Config) { c.MaxPerAddress = 1 }, 0, edge.ErrNoPlace},
		"displaced": {func(c *edge.Config) { c.MaxPerAddress = 1 }, 2 * time.Second, edge.ErrDisplaced},
		"full":      {func(c *edge.Config) { c.MaxConnections = 1 }, 0, edge.ErrFull},
		"slow":      {func(c *edge.Config) { c.HandshakeTimeout = 500 * time.Millisecond }, 0, edge.ErrSlow},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, _ := certificate(t)
			synctest.Test(t, func(t *testing.T) {
				below := &pipes{conns: make(chan net.Conn), shut: make(chan struct{})}
				var met crowded
				cfg := edge.Config{
					TLS: server, HandshakeTimeout: time.Hour, MaxConnections: 10, MaxPerAddress: 10, Silence: time.Second,
					Key: func(net.Addr) string { return "one" },
					Refused: func(addr net.Addr, err error) {
						if (addr == nil) != errors.Is(err, edge.ErrFull) {
							t.Errorf("%v of the address %v", err, addr)
						}
						met.add(err)
					},
				}
				tt.edit(&cfg)
				l := edge.Listen(below, cfg)
				defer l.End()
				knock(t, below)
				synctest.Wait()
				if first := met.all(); len(first) > 0 {
					t.Errorf("the first one met %v", first)
				}
				time.Sleep(tt.wait)
				knock(t, below)
				if tt.want == edge.ErrSlow { //nolint:errorlint // of the table
					time.Sleep(time.Second)
				}
				synctest.Wait()
				if all := met.all(); !slices.ContainsFunc(all, func(err error) bool { return errors.Is(err, tt.want) }) {
					t.Errorf("met %v, want %v", all, tt.want)
				}
			})
		})
	}
}

// Whoever begins a request and is long in ending its head is cut off, and the owner is told why.
func TestAudit_ATK14_ASlowHeadIsTold(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *edge.Config) { c.HandshakeTimeout = 2 * time.Second })
	client := s.client.Clone()
	c, err := (&tls.Dialer{Config: client}).DialContext(t.Context(), "tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	f := http2.NewFramer(c, c)
	_, _ = c.Write([]byte(http2.ClientPreface))
	_ = f.WriteSettings()
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
	for err == nil {
		_, err = f.ReadFrame()
	}
	if why := s.cut.Load(); why == nil || *why != edge.CutOffSlow {
		t.Errorf("the owner is told %v", why)
	}
}

// crowded are the bounds that were met.
type crowded struct {
	mu  sync.Mutex
	met []error
}

func (c *crowded) add(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.met = append(c.met, err)
}

func (c *crowded) all() []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.met)
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

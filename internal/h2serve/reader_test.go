package h2serve_test

import (
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/h2serve"
)

// witness notes which goroutines read connections after they have served requests.
type witness struct {
	mu     sync.Mutex
	served map[string]bool
	grown  int // reads by those
	reads  int
}

// goroutine names the one that calls.
func goroutine() string {
	var b [64]byte
	name, _, _ := strings.Cut(string(b[:runtime.Stack(b[:], false)]), " [")
	return name
}

func (s *witness) ServeHTTP(http.ResponseWriter, *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served[goroutine()] = true
}

// readers notes who reads the connections of a listener.
type readers struct {
	net.Listener

	seen *witness
}

func (l readers) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if agreed, ok := nc.(h2serve.Agreed); ok {
		return &noted{agreed, l.seen}, err
	}
	return nc, err
}

type noted struct {
	h2serve.Agreed

	seen *witness
}

func (c *noted) Read(p []byte) (int, error) {
	c.seen.mu.Lock()
	c.seen.reads++
	if c.seen.served[goroutine()] {
		c.seen.grown++
	}
	c.seen.mu.Unlock()
	return c.Agreed.Read(p)
}

// Where requests come now and then, whoever waits for the next one has served none: its stack is small.
func TestReadersOfCalmConnectionsHaveServedNobody(t *testing.T) {
	t.Parallel()
	const requests = 20
	s := &witness{served: map[string]bool{}}
	server := h2serve.New(config(s))
	l := listen(t)
	done := make(chan error, 1)
	go func() { done <- server.Serve(readers{l, s}) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	w := dial(t, l.Addr().String())
	for id := uint32(1); id < 2*requests; id += 2 {
		w.request(id, true, nil)
		if w.until(isA[*http2.MetaHeadersFrame]) == nil {
			t.Fatal("it ended")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grown > 0 || len(s.served) == 0 || s.reads < requests {
		t.Errorf("%d of %d reads by those who served", s.grown, s.reads)
	}
}

package probes

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/edge"
	"github.com/masegraye/connect-plugin-go/internal/limiter"
)

// Bounds of one address (a /64 for IPv6), far above what probes and scrapes need: they ask once a second.
const (
	asksPerSecond  = 50
	asksBurst      = 100
	comesPerSecond = asksPerSecond // new connections, each of which asks something; beyond that they are refused
	comesBurst     = 400
	bytesPerSecond = 32 << 10 // that it sends; PINGs and the like are bytes, too
	bytesBurst     = 64 << 10
	longestPause   = time.Second
	mostPauses     = 100 // of one connection, then it ends
	mostRefused    = 3   // requests of one connection, then it ends
	maxAddresses   = 1024
	readAhead      = 1 << 10 // bytes: HTTP/2 reads the head of each frame by itself
)

// meter bounds what each address asks and sends. It is safe for concurrent use.
type meter struct {
	// Fixed at creation.
	asks  *limiter.Limiter
	comes *limiter.Limiter

	mu    sync.Mutex
	debts map[string]time.Time // until when an address has sent ahead: it pays in time
}

func newMeter() *meter {
	return &meter{asks: limiter.New(maxAddresses), comes: limiter.New(maxAddresses), debts: map[string]time.Time{}}
}

// spend counts bytes of an address and returns how long it has to wait for more.
func (m *meter) spend(from string, n int, now time.Time) time.Duration {
	const ahead = bytesBurst * time.Second / bytesPerSecond
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.debts[from]; !known && len(m.debts) >= maxAddresses {
		m.forgetLocked(now)
		if len(m.debts) >= maxAddresses {
			from = "" // those beyond pay together
		}
	}
	until := m.debts[from]
	if until.Before(now) {
		until = now
	}
	until = until.Add(time.Duration(n) * time.Second / bytesPerSecond)
	m.debts[from] = until
	return min(until.Sub(now)-ahead, longestPause)
}

// forgetLocked forgets who has paid.
func (m *meter) forgetLocked(now time.Time) {
	for from, until := range m.debts {
		if !until.After(now) {
			delete(m.debts, from)
		}
	}
}

// listener is one whose connections are metered.
type listener struct {
	net.Listener

	meter *meter
	leave *edge.Farewell
}

// Accept implements [net.Listener].
func (l listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		switch {
		case err != nil && edge.Passes(err):
			return nil, passing{err}
		case err != nil:
			return nil, err //nolint:wrapcheck // stands for what it wraps
		}
		from := peerOf(c)
		if l.meter.comes.Allow(from, comesPerSecond, comesBurst, time.Now()) {
			return newMetered(c, l.meter, from), nil
		}
		l.leave.TurnAway(c) // before it is worth a goroutine, or anybody's place
	}
}

// passing is an error of a listener that gives connections again in a moment, in the way in which net/http asks: it waits
// then, where it ends the server for any other.
type passing struct{ error }

func (p passing) Unwrap() error { return p.error }

// Timeout implements [net.Error].
func (passing) Timeout() bool { return false }

// Temporary implements [net.Error].
func (passing) Temporary() bool { return true }

// metered is a connection that is read no faster than its address may send.
type metered struct {
	net.Conn

	// Fixed at creation.
	meter *meter
	from  string
	gone  chan struct{} // closed with the connection

	once    sync.Once
	in      *bufio.Reader
	pauses  int // of who reads
	refused atomic.Int32
}

func newMetered(c net.Conn, m *meter, from string) *metered {
	served := &metered{Conn: c, meter: m, from: from, gone: make(chan struct{})}
	served.in = bufio.NewReaderSize(paced{served}, readAhead)
	return served
}

// Read implements [net.Conn].
func (c *metered) Read(p []byte) (int, error) {
	return c.in.Read(p) //nolint:wrapcheck // stands for what it wraps
}

// paced reads what a connection is sent, and has its address pay for it.
type paced struct{ *metered }

// Read implements [io.Reader].
func (c paced) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	wait := c.meter.spend(c.from, n, time.Now())
	if wait <= 0 || n == 0 {
		return n, err //nolint:wrapcheck // stands for what it wraps
	}
	if c.pauses++; c.pauses > mostPauses {
		_ = c.Close()
		return 0, net.ErrClosed
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.gone:
	}
	return n, err //nolint:wrapcheck // stands for what it wraps
}

// Close implements [net.Conn].
func (c *metered) Close() error {
	c.once.Do(func() { close(c.gone) })
	return c.Conn.Close() //nolint:wrapcheck // stands for what it wraps
}

type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// bound refuses the requests of who asks too often.
func (m *meter) bound(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Context().Value(connKey{}).(*metered)
		if c == nil || m.asks.Allow(c.from, asksPerSecond, asksBurst, time.Now()) {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Retry-After", "1")
		if c.refused.Add(1) >= mostRefused {
			w.Header().Set("Connection", "close") // over HTTP/2, too: it says GOAWAY
		}
		w.WriteHeader(http.StatusTooManyRequests)
	})
}

// Package entry is the way into a plugin: it lets one peer in, the host, as TLS tells it, and
// bounds what others can take who knock there. It knows connections and no requests.
package entry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/edge"
	"github.com/masegraye/connect-plugin-go/internal/turns"
)

// silence is how long a connection has to be there, whatever it says, before another of its
// address takes its place: a TLS handshake, which is all that a stranger has, is over by then.
// In plaintext nobody is known, and it is how long it has to be silent.
const (
	silence          = 500 * time.Millisecond
	silencePlaintext = 5 * time.Second
)

// host is by what the connections of the host are counted.
const host = "host"

// Config says whom an [Entry] lets in, and what the others can take. TLS, Ended and Refused
// may be nil; the rest is required.
type Config struct {
	// TLS admits the host and nobody else; nil is plaintext, where everybody is admitted.
	TLS *tls.Config
	// HandshakeTimeout bounds the TLS handshake.
	HandshakeTimeout time.Duration
	// MaxConnections bounds the connections; more wait in the queue of the system.
	MaxConnections int
	// MaxPerAddress bounds those of one address on which TLS is not agreed on yet.
	MaxPerAddress int
	// PerSecond and Burst limit the new connections of one address.
	PerSecond float64
	Burst     int
	// Overtime is how long a connection outlives the certificate that the host showed on it,
	// where it showed no later one on another.
	Overtime time.Duration
	// Turns are those of the process, for which TLS handshakes wait; nil has none wait.
	Turns *turns.Process
	// Key returns under which key an address counts.
	Key func(net.Addr) string
	// Ended is told of each connection that outlived its certificate, and Refused of each TLS
	// handshake that failed; they must not block.
	Ended   func(addr net.Addr, leaf *x509.Certificate)
	Refused func(addr net.Addr, err error)
}

// Entry is the listener of a plugin. Make it with [Open].
type Entry struct {
	*edge.Listener

	// Fixed at creation.
	cfg      Config
	standing *certs.Standing[net.Conn]
	end      context.CancelFunc
	tasks    sync.WaitGroup
}

// Open begins to accept from l, which it closes.
func Open(l net.Listener, cfg Config) *Entry {
	e := &Entry{cfg: cfg}
	e.standing = certs.NewStanding(certs.Tenure{Overtime: cfg.Overtime}, e.expire, nil)
	pause := silence
	if cfg.TLS == nil {
		pause = silencePlaintext
	}
	e.Listener = edge.Listen(l, edge.Config{
		TLS: cfg.TLS, HandshakeTimeout: cfg.HandshakeTimeout, Trusted: true, Silence: pause,
		MaxConnections: cfg.MaxConnections, MaxPerAddress: cfg.MaxPerAddress,
		PerSecond: cfg.PerSecond, Burst: cfg.Burst, Key: cfg.Key, Refused: cfg.Refused,
		Turns: cfg.Turns,
	})
	ctx, cancel := context.WithCancel(context.Background())
	e.end = cancel
	e.tasks.Go(func() { e.standing.Run(ctx) })
	return e
}

// Attach makes a server ready to serve on the entry: TLS has ended by then, and handlers see
// it all the same. It is called before the server serves.
func (e *Entry) Attach(server *http.Server) {
	next, noted := server.Handler, server.ConnState
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	server.ConnState = func(c net.Conn, state http.ConnState) {
		e.Note(c, state)
		if noted != nil {
			noted(c, state)
		}
	}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*edge.Conn); ok {
			r.TLS = c.TLS()
		}
		next.ServeHTTP(w, r)
	})
}

// End closes the listener and waits for what it began.
func (e *Entry) End() {
	e.Listener.End()
	e.end()
	e.tasks.Wait()
}

type connKey struct{}

// Note follows a connection on which TLS was agreed on: it is the host's. A server that Attach
// does not know tells of each that is new and that is closed.
func (e *Entry) Note(c net.Conn, state http.ConnState) {
	conn, ok := c.(*edge.Conn)
	if !ok || conn.TLS() == nil {
		return
	}
	switch state {
	case http.StateNew:
		_ = conn.Prove(edge.Holder{Name: host, Most: e.cfg.MaxConnections})
		e.standing.Enter(c)
		if shown := conn.TLS().PeerCertificates; len(shown) > 0 {
			e.standing.Show(c, shown[0], certs.EndOf(shown, conn.TLS().VerifiedChains))
		}
	case http.StateClosed, http.StateHijacked:
		e.standing.Leave(c)
	case http.StateActive, http.StateIdle:
	}
}

// expire ends a connection that outlived its certificate.
func (e *Entry) expire(c net.Conn) {
	conn, ok := c.(*edge.Conn)
	if !ok {
		return
	}
	conn.Abort()
	if f := e.cfg.Ended; f != nil {
		f(conn.RemoteAddr(), conn.TLS().PeerCertificates[0])
	}
}

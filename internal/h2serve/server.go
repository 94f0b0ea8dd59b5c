package h2serve

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/coarse"
)

// Config says how connections are served. Every field but TooLarge, ConnContext, State, Met, Linger, Away, Log and
// PingInUse is required.
type Config struct {
	// Handler serves the requests. Its panics end their streams.
	Handler http.Handler
	// TooLarge answers requests whose heads are larger than is taken. Of their fields they have the content
	// type alone, where that came in time. Nil answers 431 without a text, as do those that lack the rest.
	TooLarge http.Handler
	// Context is that of every request.
	Context context.Context //nolint:containedctx // of a server, as http.Server.BaseContext
	// ConnContext makes of it that of the requests of one connection; nil leaves it as it is.
	ConnContext func(context.Context, net.Conn) context.Context
	// State is told of each connection when it is new and when it is closed, and must not block;
	// nil is for nobody.
	State func(net.Conn, http.ConnState)
	// Met is told of each connection whose peer met a bound, and which: [ErrSlow], [ErrSilent] or [ErrStuck], for
	// which it ends, or [ErrTrailer]. It must not block; nil is for nobody.
	Met func(net.Conn, error)
	// Linger is asked for a place where the handler of a request has returned and the rest of the response has to wait for
	// the windows of the peer, which may open none; it returns how the place is given back. Nil says that there is none: the
	// stream is reset with ENHANCE_YOUR_CALM. It must not block. A nil Linger has all of them wait.
	Linger func(net.Conn) (leave func())
	// Away is told, with the context of the requests of a connection, that its peer is about to end, and again when the connection
	// has ended. It must not block; nil is for nobody.
	Away func(context.Context)
	// Log takes what goes wrong with connections and handlers, in the words of net/http, all at
	// debug. Nil drops it.
	Log *slog.Logger

	HandshakeTimeout time.Duration // of the beginning of HTTP/2
	IdleTimeout      time.Duration // a connection without streams closes
	PingAfter        time.Duration // of silence, before the peer is asked whether it lives
	PingTimeout      time.Duration // for its answer
	WriteTimeout     time.Duration // for the peer to take what is written at a time
	PingInUse        bool          // only while there is a stream: one without ends by IdleTimeout
	MaxStreams       uint32        // that a connection may have at a time
	MaxHeaderBytes   uint32        // of a request's head, as HTTP/2 counts it; one of eight times as much ends the connection
	StreamWindow     uint32        // bytes of an upload that wait to be read
	ConnWindow       uint32        // the same of all uploads of a connection together
}

// Agreed is a connection on which TLS was agreed on.
type Agreed interface {
	net.Conn
	// TLS returns what was agreed on.
	TLS() *tls.ConnectionState
	// Abort closes the connection without a word, which takes no time.
	Abort()
}

// Metered is an [Agreed] that cuts its peer off for what costs too much.
type Metered interface {
	// Stray is told how many bytes the peer sends for streams that are none any more, beyond those that
	// it could send before it knew.
	Stray(n int)
	// Decoded is told how much larger header fields of the peer were than the blocks they came in, as HTTP/2
	// counts them, and what the fields of a head count beyond those that are usual. It waits until so many are its
	// turn, and reports false where the peer was cut off.
	Decoded(beyond, many int) bool
	// TooLong is told that the peer sends a header block which is far longer than is taken. It reports
	// whether the peer was told why its connection ends.
	TooLong() bool
}

// Shared is an [Agreed] of a peer that may have others.
type Shared interface {
	// Sharers returns how many it has, this one among them.
	Sharers() int
}

// Prompt is an [Agreed] that can be written to by who may wait for nobody.
type Prompt interface {
	// Offer writes p where that waits for nobody, and reports whether. Of what it took something
	// may be left, which settled denies: Settle is to be called then, before anything else.
	Offer(p []byte) (taken, settled bool, err error)
	// Settle writes what is left, and waits for the peer.
	Settle() error
}

// Server serves connections. Make it with [New]; it is safe for concurrent use.
type Server struct {
	crew

	// Fixed at creation.
	cfg  Config
	life context.Context //nolint:containedctx // ends with the server, and every request with it
	end  context.CancelFunc
	deaf func() bool // has the end of life not be told any more

	clock coarse.Clock // of looks at connections

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	going     bool          // no connection comes any more
	empty     chan struct{} // closed once going and no connection is left; made by whoever waits
}

// New makes a server. End it with Shutdown or Close.
func New(cfg Config) *Server {
	if cfg.State == nil {
		cfg.State = func(net.Conn, http.ConnState) {}
	}
	if cfg.Met == nil {
		cfg.Met = func(net.Conn, error) {}
	}
	if cfg.Away == nil {
		cfg.Away = func(context.Context) {}
	}
	if cfg.ConnContext == nil {
		cfg.ConnContext = func(ctx context.Context, _ net.Conn) context.Context { return ctx }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, crew: crew{jobs: make(chan job)}, listeners: map[net.Listener]struct{}{}, conns: map[*conn]struct{}{}}
	s.life, s.end = context.WithCancel(cfg.Context)
	s.deaf = context.AfterFunc(s.life, s.endRequests) // not that of cfg.Context, which may be told before life has ended
	return s
}

// protocol is HTTP/2 as TLS calls it.
const protocol = "h2"

// Serve accepts connections, which are [Agreed], until the server ends, when it returns
// [http.ErrServerClosed]. It closes l.
func (s *Server) Serve(l net.Listener) error {
	defer func() { _ = l.Close() }()
	if !s.listening(l) {
		return http.ErrServerClosed
	}
	defer s.unlisten(l)
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			s.begin(nc)
		case s.ended():
			return http.ErrServerClosed
		default:
			return fmt.Errorf("accept: %w", err)
		}
	}
}

// Retire has no more requests come, and does not wait for those that are being served: that is
// for Shutdown, which has to follow. A handler may call it, so that its peer hears of both at once.
// Where the peer has said that none is under way, a connection ends with what is being served on it.
func (s *Server) Retire(noneUnderWay bool) {
	_, conns := s.leave()
	for _, c := range conns {
		c.retire(noneUnderWay)
	}
}

// Shutdown has no more requests come, and returns when those that are being served are done and
// their answers have left; no goroutine is left then. The error is that of ctx where it ended
// before; the connections are still there then.
func (s *Server) Shutdown(ctx context.Context) error {
	empty, conns := s.leave()
	for _, c := range conns {
		c.retire(false)
	}
	select {
	case <-empty:
		s.deaf()
		s.end()
		quiet := make(chan struct{})
		go func() {
			s.tasks.Wait()
			close(quiet)
		}()
		select {
		case <-quiet:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends every connection at once, and the contexts of the requests. It does not wait for
// handlers, which may not listen, and returns nil.
func (s *Server) Close() error {
	_, conns := s.leave()
	s.deaf()
	s.end()
	for _, c := range conns {
		c.fail(errClosed)
	}
	return nil
}

// endRequests tells the requests that are being served that the context of all of them has ended: each has one that is ended.
func (s *Server) endRequests() {
	s.mu.Lock()
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	for _, c := range conns {
		c.mu.Lock()
		for _, st := range c.streams {
			st.ctx.End(nil)
		}
		c.mu.Unlock()
	}
}

// leave closes the listeners and returns the connections that are left, and what is closed when
// none is.
func (s *Server) leave() (empty <-chan struct{}, conns []*conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.going = true
	for l := range s.listeners {
		_ = l.Close()
	}
	for c := range s.conns {
		conns = append(conns, c)
	}
	if s.empty == nil {
		s.empty = make(chan struct{})
		if len(conns) == 0 {
			close(s.empty)
		}
	}
	return s.empty, conns
}

func (s *Server) listening(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.going {
		s.listeners[l] = struct{}{}
	}
	return !s.going
}

func (s *Server) unlisten(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

func (s *Server) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.going
}

// begin serves a connection.
func (s *Server) begin(accepted net.Conn) {
	nc, ok := accepted.(Agreed)
	if !ok {
		_ = accepted.Close()
		return
	}
	c := newConn(s, nc)
	s.cfg.State(nc, http.StateNew)
	s.mu.Lock()
	going := s.going
	if !going {
		s.conns[c] = struct{}{}
		s.tasks.Go(c.run) // before anybody can wait for it
	}
	s.mu.Unlock()
	if going {
		s.cfg.State(nc, http.StateClosed)
		_ = nc.Close()
	}
}

// forget forgets a connection that has ended.
func (s *Server) forget(c *conn) {
	s.cfg.State(c.nc, http.StateClosed)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.going && len(s.conns) == 0 && s.empty != nil {
		close(s.empty)
	}
}

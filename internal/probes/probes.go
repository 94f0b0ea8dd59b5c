// Package probes serves the questions of whoever runs a program (a kubelet, a balancer,
// a script) on a listener of its own, in plaintext over HTTP/1.1 and HTTP/2.
package probes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/drain"
)

// Bounds of a server: probes are small and soon over.
const (
	maxConns    = 256 // in all
	maxPerPeer  = 64  // of one address (a /64 for IPv6)
	siteBits    = 64
	maxStreams  = 16
	maxHeader   = 8 << 10
	readTimeout = 10 * time.Second
	idleTimeout = time.Minute
)

// Server answers probes. It keeps room for the next one whoever connects and stays: where
// there are too many connections, one of whoever has the most makes room, and first one on
// which nothing is being asked. So an honest probe, which has one and asks at once, is the
// last to go. It is safe for concurrent use.
type Server struct {
	// Fixed at creation.
	server *http.Server
	drain  *drain.Drain

	mu    sync.Mutex
	all   int
	came  uint64                // so far
	peers map[string][]*visitor // by address, in the order in which they came
}

// visitor is a connection.
type visitor struct {
	conn net.Conn
	came uint64
	asks bool // something was read of it that is not answered yet
}

// New makes a server of a handler, which has to bound what it reads. What net/http says
// goes to the log at Debug.
func New(handler http.Handler, log *slog.Logger) *Server {
	s := &Server{drain: drain.New(), peers: map[string][]*visitor{}}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.server = &http.Server{
		Handler: s.drain.Count(handler), Protocols: &protocols, ConnState: s.keep,
		ReadHeaderTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: idleTimeout, PingTimeout: readTimeout},
	}
	return s
}

// Serve serves on a listener, which it closes, until Shutdown; then it returns nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("probes: %w", err)
	}
	return nil
}

// Shutdown ends the server. What is being asked may be answered until ctx ends.
func (s *Server) Shutdown(ctx context.Context) {
	if s.drain.Shutdown(ctx, s.server) != nil {
		_ = s.server.Close()
	}
}

// keep counts connections. It is for the server's ConnState.
func (s *Server) keep(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if gone := s.add(conn); gone != nil {
			_ = gone.Close()
		}
	case http.StateClosed, http.StateHijacked:
		s.remove(conn)
	case http.StateActive, http.StateIdle:
		s.note(conn, state == http.StateActive)
	}
}

// add keeps a connection, and returns the one that has to go for it, if any.
func (s *Server) add(conn net.Conn) (gone net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := peerOf(conn)
	switch {
	case len(s.peers[from]) >= maxPerPeer:
		gone = s.displaceLocked(from)
	case s.all >= maxConns:
		gone = s.displaceLocked(s.largestLocked())
	}
	s.peers[from] = append(s.peers[from], &visitor{conn: conn, came: s.came})
	s.all++
	s.came++
	return gone
}

// largestLocked returns who has the most connections; of several, who came first.
func (s *Server) largestLocked() (from string) {
	for peer, visitors := range s.peers {
		now := s.peers[from]
		if len(visitors) > len(now) || len(visitors) == len(now) && visitors[0].came < now[0].came {
			from = peer
		}
	}
	return from
}

// displaceLocked takes out the oldest connection of a peer on which nothing is being
// asked, or else the oldest.
func (s *Server) displaceLocked(from string) net.Conn {
	at := max(slices.IndexFunc(s.peers[from], func(v *visitor) bool { return !v.asks }), 0)
	gone := s.peers[from][at].conn
	s.dropLocked(from, at)
	return gone
}

func (s *Server) dropLocked(from string, at int) {
	s.all--
	if s.peers[from] = slices.Delete(s.peers[from], at, at+1); len(s.peers[from]) == 0 {
		delete(s.peers, from)
	}
}

func (s *Server) note(conn net.Conn, asks bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if from, at := s.findLocked(conn); at >= 0 {
		s.peers[from][at].asks = asks
	}
}

func (s *Server) remove(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if from, at := s.findLocked(conn); at >= 0 {
		s.dropLocked(from, at)
	}
}

// findLocked returns where a connection is, -1 for nowhere.
func (s *Server) findLocked(conn net.Conn) (from string, at int) {
	from = peerOf(conn)
	return from, slices.IndexFunc(s.peers[from], func(v *visitor) bool { return v.conn == conn })
}

// peerOf returns under which name a connection counts: its address, or the /64 of that,
// which one site has as a whole.
func peerOf(conn net.Conn) string {
	at, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return ""
	}
	addr := at.Addr().Unmap()
	if site, err := addr.Prefix(siteBits); err == nil && addr.Is6() {
		return site.String()
	}
	return addr.String()
}

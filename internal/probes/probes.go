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
	"time"

	"github.com/masegraye/connect-plugin-go/internal/drain"
	"github.com/masegraye/connect-plugin-go/internal/edge"
)

// Bounds of a server: probes are small and soon over.
const (
	maxConns    = 256 // in all
	maxPerPeer  = 64  // of one address (a /64 for IPv6)
	maxStreams  = 16
	maxHeader   = 8 << 10
	readTimeout = 10 * time.Second
	idleTimeout = time.Minute
)

// Server answers probes. It keeps room for the next one whoever connects and stays, as
// [Visitors] do, and bounds what each address asks and sends. It is safe for concurrent use.
type Server struct {
	// Fixed at creation.
	server *http.Server
	drain  *drain.Drain
	meter  *meter

	visitors Visitors
}

// New makes a server of a handler, which has to bound what it reads. What net/http says
// goes to the log at Debug.
func New(handler http.Handler, log *slog.Logger) *Server {
	s := &Server{drain: drain.New(), meter: newMeter(), visitors: Visitors{Most: maxConns, Each: maxPerPeer}}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.server = &http.Server{
		Handler: s.drain.Count(s.meter.bound(handler)), Protocols: &protocols, ConnState: s.visitors.Keep, ConnContext: withConn,
		ReadHeaderTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: idleTimeout, PingTimeout: readTimeout},
	}
	return s
}

// Serve serves on a listener, which it closes, until Shutdown; then it returns nil.
func (s *Server) Serve(l net.Listener) error {
	ctx, end := context.WithCancel(context.Background())
	leave, left := edge.NewFarewell(), make(chan struct{})
	go func() {
		defer close(left)
		leave.Run(ctx)
	}()
	defer func() {
		end()
		<-left
	}()
	if err := s.server.Serve(listener{l, s.meter, leave}); !errors.Is(err, http.ErrServerClosed) {
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

// Package page serves the page on which operators see a host: who calls whom, who is there, what is
// refused and how full the host is. It is one page without anything from elsewhere.
package page

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
	"github.com/masegraye/connect-plugin-go/internal/probes"
)

//go:embed static
var static embed.FS

// Config says what a page shows.
type Config struct {
	// Read follows the host. Required.
	Read adminv1connect.AdminReadServiceClient
	// Change changes it. Nil makes the page read-only.
	Change adminv1connect.AdminChangeServiceClient
	// TLS serves the page over TLS, with the certificate in it. Whoever has a certificate that its
	// ClientCAs verify, and whose identity is among Identities, needs no link. Nil means plaintext,
	// which is served on loopback alone.
	TLS *tls.Config
	// Identities are those of certificates that let somebody in: the SPIFFE id in one, or else its
	// first DNS name, or else its common name. Empty means that a link is needed.
	Identities []string
	// Names are host names and addresses, without a port, by which the page is reached beside the
	// address that it listens on.
	Names []string
}

// Bounds of a server.
const (
	maxSessions  = 16
	maxStreams   = 8
	sessionLife  = 12 * time.Hour
	linkLife     = 10 * time.Minute
	maxBody      = 4 << 10
	headerWait   = 5 * time.Second
	idleWait     = time.Minute // of a connection without requests
	maxConns     = 256         // in all
	maxPerPeer   = 64          // of one address (a /64 for IPv6)
	maxRequests  = 32          // at once on a connection
	maxHeader    = 16 << 10
	tokenBytes   = 32
	cookiePrefix = "connectplugin_"
	keyHeader    = "Connectplugin-Page-Key"
)

// Server serves the page to whoever has a link of it. Make it with [New]. It is safe for concurrent use.
type Server struct {
	// Fixed at creation.
	cfg     Config
	scheme  string   // with "://"
	hosts   []string // what a request may name as its host, the best first
	cookie  string
	secret  []byte // what keys are made with
	streams chan struct{}

	visitors probes.Visitors

	mu       sync.Mutex
	links    map[[sha256.Size]byte]time.Time // digests of tokens that were not used yet, and when they end
	sessions map[[sha256.Size]byte]time.Time
}

// New makes a server for the address that it listens on. That has to be on loopback where there is no
// TLS, and name a port.
func New(cfg Config, addr net.Addr) (*Server, error) {
	tcp, ok := addr.(*net.TCPAddr)
	switch {
	case !ok:
		return nil, fmt.Errorf("%s is no address of TCP", addr)
	case cfg.TLS == nil && !tcp.IP.IsLoopback():
		return nil, fmt.Errorf("%s is not on loopback, where alone the page is served without TLS", addr)
	case cfg.TLS == nil && len(cfg.Identities) > 0:
		return nil, errors.New("certificates in Identities are shown over TLS alone: set TLS, too")
	}
	s := &Server{
		cfg: cfg, scheme: "http://", secret: []byte(newToken()),
		cookie:   cookiePrefix + strconv.Itoa(tcp.Port), // browsers keep the cookies of all ports together
		streams:  make(chan struct{}, maxStreams),
		visitors: probes.Visitors{Most: maxConns, Each: maxPerPeer},
		links:    map[[sha256.Size]byte]time.Time{}, sessions: map[[sha256.Size]byte]time.Time{},
	}
	usual := usualPort
	if cfg.TLS != nil {
		s.scheme, usual, s.cookie = "https://", usualTLSPort, "__Host-"+s.cookie
	}
	for _, name := range namesOf(cfg.Names, tcp.IP) {
		port := strconv.Itoa(tcp.Port)
		full := net.JoinHostPort(strings.ToLower(name), port) // as browsers write it
		s.hosts = append(s.hosts, full)
		if tcp.Port == usual {
			s.hosts = append(s.hosts, strings.TrimSuffix(full, ":"+port)) // browsers leave it out
		}
	}
	if len(s.hosts) == 0 {
		return nil, fmt.Errorf("%s is every address of this machine: Names has to say how the page is reached", addr)
	}
	return s, nil
}

// Ports that browsers do not say.
const (
	usualPort    = 80
	usualTLSPort = 443
)

// namesOf are the names by which an address is reached.
func namesOf(names []string, ip net.IP) []string {
	all := slices.Clone(names)
	if !ip.IsUnspecified() {
		all = append(all, ip.String())
	}
	if ip.IsLoopback() {
		all = append(all, "localhost")
	}
	return all
}

// Serve serves on a listener until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: headerWait, IdleTimeout: idleWait, MaxHeaderBytes: maxHeader,
		ErrorLog:    slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // strangers fill no terminal
		BaseContext: func(net.Listener) context.Context { return ctx }, ConnState: s.comes,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxRequests, SendPingTimeout: idleWait, PingTimeout: headerWait, WriteByteTimeout: idleWait,
		},
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = server.Close()
		close(ended)
	})
	serve := func() error { return server.Serve(l) }
	if s.cfg.TLS != nil {
		server.TLSConfig = s.cfg.TLS.Clone() // ServeTLS writes into it
		server.TLSConfig.ClientAuth = tls.VerifyClientCertIfGiven
		server.TLSConfig.MinVersion = tls.VersionTLS13
		serve = func() error { return server.ServeTLS(l, "", "") }
	}
	err := serve()
	if !stop() {
		<-ended
	}
	if ctx.Err() == nil || !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("page: %w", err)
	}
	return nil
}

// Handler is the page behind its guards.
func (s *Server) Handler() http.Handler {
	files, err := fs.Sub(static, "static")
	if err != nil {
		panic(err) // it is in the program
	}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", file(files, "index.html"))
	for _, name := range []string{"app.js", "graph.js", "app.css"} {
		mux.Handle("GET /"+name, file(files, name))
	}
	mux.HandleFunc("POST /enter", s.enter)
	mux.Handle("GET /events", s.known(s.events))
	mux.Handle("POST /change", s.known(s.change))
	return s.guard(mux)
}

// connKey is under which a request's context has its connection.
type connKey struct{}

// comes takes note of a connection. Only those of who is in count as asking, and go last: else strangers who
// ask on many and never end would cut off an operator's stream.
func (s *Server) comes(c net.Conn, state http.ConnState) {
	if state != http.StateActive {
		s.visitors.Keep(c, state)
	}
}

// stays keeps the connection of somebody who is in.
func (s *Server) stays(r *http.Request) {
	if c, ok := r.Context().Value(connKey{}).(net.Conn); ok {
		s.visitors.Keep(c, http.StateActive)
	}
}

func file(files fs.FS, name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, name) })
}

// policyHeaders let the page load what is its own and nothing else, and nobody frame it.
var policyHeaders = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy":           "camera=(), geolocation=(), microphone=()",
	"Cache-Control":                "no-store",
}

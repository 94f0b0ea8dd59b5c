// Package page serves the page on which operators see a host: who calls whom, who is there, what is
// refused and how full the host is. It is one page without anything from elsewhere.
package page

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"

	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
)

//go:embed static
var static embed.FS

// Config says what a page shows.
type Config struct {
	// Read follows the host. Required.
	Read adminv1connect.AdminReadServiceClient
	// Change changes it. Nil makes the page read-only.
	Change adminv1connect.AdminChangeServiceClient
}

// Bounds of a server.
const (
	maxSessions  = 16
	maxStreams   = 8
	sessionLife  = 12 * time.Hour
	linkLife     = 10 * time.Minute
	maxBody      = 4 << 10
	headerWait   = 5 * time.Second
	tokenBytes   = 32
	cookiePrefix = "connectplugin_"
)

// Server serves the page to whoever has a link of it. Make it with [New]. It is safe for concurrent use.
type Server struct {
	// Fixed at creation.
	cfg     Config
	hosts   []string // what a request may name as its host
	cookie  string
	streams chan struct{}

	mu       sync.Mutex
	links    map[[sha256.Size]byte]time.Time // digests of tokens that were not used yet, and when they end
	sessions map[[sha256.Size]byte]time.Time
}

// New makes a server for the address that it is reached at, host:port. That has to be on loopback: there
// is no TLS.
func New(cfg Config, addr net.Addr) (*Server, error) {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsLoopback() {
		return nil, fmt.Errorf("%s is not on loopback, where alone the page is served", addr)
	}
	return &Server{
		cfg: cfg, hosts: []string{tcp.String(), fmt.Sprintf("localhost:%d", tcp.Port)},
		cookie:  fmt.Sprintf("%s%d", cookiePrefix, tcp.Port), // browsers do not tell ports apart
		streams: make(chan struct{}, maxStreams),
		links:   map[[sha256.Size]byte]time.Time{}, sessions: map[[sha256.Size]byte]time.Time{},
	}, nil
}

// Link makes a link that works once, within ten minutes. Its token stands behind the #, so that no
// browser sends it with a GET and no log has it.
func (s *Server) Link() string {
	token := newToken()
	s.mu.Lock()
	defer s.mu.Unlock()
	forget(s.links, time.Now())
	s.links[sha256.Sum256([]byte(token))] = time.Now().Add(linkLife)
	return "http://" + s.hosts[0] + "/#" + token
}

func newToken() string {
	b := make([]byte, tokenBytes)
	_, _ = rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

func forget(tokens map[[sha256.Size]byte]time.Time, now time.Time) {
	for k, until := range tokens {
		if now.After(until) {
			delete(tokens, k)
		}
	}
}

// Serve serves on a listener until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: headerWait, BaseContext: func(net.Listener) context.Context { return ctx }}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = server.Close()
		close(ended)
	})
	err := server.Serve(l)
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
	for _, name := range []string{"app.js", "app.css"} {
		mux.Handle("GET /"+name, file(files, name))
	}
	mux.HandleFunc("POST /enter", s.enter)
	mux.Handle("GET /events", s.known(s.events))
	mux.Handle("POST /change", s.known(s.change))
	return s.guard(mux)
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

// guard refuses requests under another name, as a page that was rebound to loopback makes them, and
// those that another page makes.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range policyHeaders {
			w.Header().Set(name, value)
		}
		if !slices.Contains(s.hosts, r.Host) {
			http.Error(w, "this page has another name", http.StatusMisdirectedRequest)
			return
		}
		own := "http://" + r.Host
		origins := r.Header.Values("Origin")
		foreign := len(origins) > 1 || len(origins) == 1 && origins[0] != own
		if r.Method != http.MethodGet && r.Method != http.MethodHead && len(origins) != 1 {
			foreign = true // browsers always say who changes something
		}
		if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" {
			foreign = true
		}
		if foreign {
			http.Error(w, "another page asks", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// read reads the JSON of a request into v. Forms of other pages cannot be JSON.
func read(w http.ResponseWriter, r *http.Request, v any) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		http.Error(w, "send application/json", http.StatusUnsupportedMediaType)
		return false
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if d.Decode(v) != nil {
		http.Error(w, "malformed", http.StatusBadRequest)
		return false
	}
	return true
}

// enter turns the token of a link into a session.
func (s *Server) enter(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		Token string `json:"token"`
	}
	if !read(w, r, &ask) {
		return
	}
	session, ok := s.open(ask.Token, time.Now())
	if !ok {
		http.Error(w, "the link was used, or is too old", http.StatusForbidden)
		return
	}
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // there is no TLS on loopback
		Name: s.cookie, Value: session, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: int(sessionLife.Seconds()),
	})
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) open(token string, now time.Time) (session string, ok bool) {
	given := sha256.Sum256([]byte(token))
	s.mu.Lock()
	defer s.mu.Unlock()
	forget(s.links, now)
	forget(s.sessions, now)
	if !holds(s.links, given) || len(s.sessions) >= maxSessions {
		return "", false
	}
	delete(s.links, given)
	session = newToken()
	s.sessions[sha256.Sum256([]byte(session))] = now.Add(sessionLife)
	return session, true
}

// holds compares in a time that tells nothing.
func holds(tokens map[[sha256.Size]byte]time.Time, given [sha256.Size]byte) bool {
	found := 0
	for k := range tokens {
		found |= subtle.ConstantTimeCompare(k[:], given[:])
	}
	return found == 1
}

// known serves those who have a session.
func (s *Server) known(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie(s.cookie)
		ok := err == nil
		if ok {
			s.mu.Lock()
			forget(s.sessions, time.Now())
			ok = holds(s.sessions, sha256.Sum256([]byte(c.Value)))
			s.mu.Unlock()
		}
		if !ok {
			http.Error(w, "open the link that connectpluginctl page prints", http.StatusUnauthorized)
			return
		}
		next(w, r)
	})
}

// events passes on what the host sends, as server-sent events.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		http.Error(w, "the page is open too often", http.StatusTooManyRequests)
		return
	}
	stream, err := s.cfg.Read.Follow(r.Context(), connect.NewRequest(&adminv1.FollowRequest{}))
	if err != nil {
		http.Error(w, "the host cannot be followed: "+connect.CodeOf(err).String(), http.StatusBadGateway)
		return
	}
	defer func() { _ = stream.Close() }()
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	if _, err := fmt.Fprintf(w, "event: page\ndata: {\"writable\":%t}\n\n", s.cfg.Change != nil); err != nil {
		return
	}
	for stream.Receive() {
		text, err := protojson.Marshal(stream.Msg())
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(w, "data: %s\n\n", text); err != nil || out.Flush() != nil {
			return
		}
	}
}

// change has the host change something.
func (s *Server) change(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Change == nil {
		http.Error(w, "the page is read-only: start it with --changes", http.StatusForbidden)
		return
	}
	var ask struct {
		Action string `json:"action"`
		Name   string `json:"name"`
	}
	if !read(w, r, &ask) {
		return
	}
	var err error
	switch ask.Action {
	case "revoke":
		_, err = s.cfg.Change.Revoke(r.Context(), connect.NewRequest(&adminv1.RevokeRequest{
			Who: &adminv1.RevokeRequest_SelfId{SelfId: ask.Name},
		}))
	case "readmit":
		_, err = s.cfg.Change.Readmit(r.Context(), connect.NewRequest(&adminv1.ReadmitRequest{SelfId: ask.Name}))
	case "drain":
		_, err = s.cfg.Change.Drain(r.Context(), connect.NewRequest(&adminv1.DrainRequest{RuntimeId: ask.Name}))
	default:
		http.Error(w, "no such action", http.StatusBadRequest)
		return
	}
	if err != nil {
		http.Error(w, "the host refused: "+connect.CodeOf(err).String(), http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

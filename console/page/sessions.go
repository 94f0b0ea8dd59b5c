package page

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"net/http"
	"slices"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// Link makes a link that works once, within ten minutes. Its token stands behind the #, so that no
// browser sends it with a GET and no log has it.
func (s *Server) Link() string {
	token := newToken()
	s.mu.Lock()
	defer s.mu.Unlock()
	forget(s.links, time.Now())
	s.links[sha256.Sum256([]byte(token))] = time.Now().Add(linkLife)
	return s.scheme + s.hosts[0] + "/#" + token
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
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // there may be no TLS on loopback
		Name: s.cookie, Value: session, Path: "/", HttpOnly: true, Secure: s.cfg.TLS != nil,
		SameSite: http.SameSiteStrictMode, MaxAge: int(sessionLife.Seconds()),
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

// entrant serves a request of somebody who is in until then.
type entrant func(w http.ResponseWriter, r *http.Request, until time.Time)

// known serves those who have a session, or a certificate that lets them in.
func (s *Server) known(next entrant) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now()
		until := s.certified(r.TLS, now)
		if c, err := r.Cookie(s.cookie); until.IsZero() && err == nil {
			until = s.sessionUntil(c.Value, now)
		}
		if until.IsZero() {
			http.Error(w, "open the link that connectpluginctl page prints", http.StatusUnauthorized)
			return
		}
		s.stays(r)
		next(w, r, until)
	})
}

// certified returns until when a certificate lets somebody in, zero where it does not.
func (s *Server) certified(c *tls.ConnectionState, now time.Time) time.Time {
	if c == nil || len(c.VerifiedChains) == 0 {
		return time.Time{}
	}
	leaf := c.VerifiedChains[0][0]
	identity := certs.CertificateIdentity(leaf)
	if identity == "" || !slices.Contains(s.cfg.Identities, identity) || !now.Before(leaf.NotAfter) {
		return time.Time{}
	}
	return leaf.NotAfter
}

// sessionUntil returns when a session ends, zero where there is none.
func (s *Server) sessionUntil(session string, now time.Time) time.Time {
	digest := sha256.Sum256([]byte(session))
	s.mu.Lock()
	defer s.mu.Unlock()
	forget(s.sessions, now)
	if !holds(s.sessions, digest) {
		return time.Time{}
	}
	return s.sessions[digest]
}

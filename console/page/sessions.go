package page

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
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

// A browser sends a cookie, and offers a certificate, to every port of a host name, so whoever serves another
// port may get the one, and have the other asked for. What else somebody who is in has to show is a key. The
// script of the page gets it once and stores it under its origin, of which the port is a part.

// enter turns the token of a link into a session, and tells its key. Without a token it tells that of a
// certificate which lets somebody in. Nothing tells the key of a session again.
func (s *Server) enter(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		Token string `json:"token"`
	}
	if !read(w, r, &ask) {
		return
	}
	var answer struct {
		Key string `json:"key"`
	}
	if identity, _ := s.certified(r.TLS, time.Now()); ask.Token == "" && identity != "" {
		answer.Key = s.keyOf(byCertificate, identity)
	} else {
		session, ok := s.open(ask.Token, time.Now())
		if !ok {
			http.Error(w, "the link was used, or is too old", http.StatusForbidden)
			return
		}
		http.SetCookie(w, &http.Cookie{ //nolint:gosec // there may be no TLS on loopback
			Name: s.cookie, Value: session, Path: "/", HttpOnly: true, Secure: s.cfg.TLS != nil,
			SameSite: http.SameSiteStrictMode, MaxAge: int(sessionLife.Seconds()),
		})
		answer.Key = s.keyOf(bySession, session)
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		return // who is gone asks again
	}
}

// What keys belong to.
const (
	bySession     = "session"
	byCertificate = "certificate"
)

// keyOf is the key that belongs to a session, or to the identity in a certificate. Whoever knows those
// cannot make it.
func (s *Server) keyOf(kind, of string) string {
	mac := hmac.New(sha256.New, s.secret)
	_, _ = mac.Write([]byte(kind + " " + of))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (s *Server) open(token string, now time.Time) (session string, ok bool) {
	given := sha256.Sum256([]byte(token))
	s.mu.Lock()
	defer s.mu.Unlock()
	forget(s.links, now)
	forget(s.sessions, now)
	if !holds(s.links, given) {
		return "", false
	}
	delete(s.links, given)
	if len(s.sessions) >= maxSessions {
		delete(s.sessions, oldest(s.sessions)) // who has a link may come in
	}
	session = newToken()
	s.sessions[sha256.Sum256([]byte(session))] = now.Add(sessionLife)
	return session, true
}

// oldest returns the one that ends first.
func oldest(tokens map[[sha256.Size]byte]time.Time) (first [sha256.Size]byte) {
	var ends time.Time
	for k, until := range tokens {
		if ends.IsZero() || until.Before(ends) {
			first, ends = k, until
		}
	}
	return first
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

// known serves those who have a session, or a certificate that lets them in, and the key that belongs to it.
func (s *Server) known(next entrant) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		until := s.admitted(r, time.Now())
		if until.IsZero() {
			http.Error(w, "open the link that connectpluginctl page prints", http.StatusUnauthorized)
			return
		}
		s.stays(r)
		next(w, r, until)
	})
}

// admitted returns until when who asks is in, zero where it is not.
func (s *Server) admitted(r *http.Request, now time.Time) time.Time {
	key := []byte(r.Header.Get(keyHeader))
	if identity, until := s.certified(r.TLS, now); identity != "" && hmac.Equal(key, []byte(s.keyOf(byCertificate, identity))) {
		return until
	}
	c, err := r.Cookie(s.cookie)
	if err != nil || !hmac.Equal(key, []byte(s.keyOf(bySession, c.Value))) {
		return time.Time{}
	}
	return s.sessionUntil(c.Value, now)
}

// certified returns who a certificate lets in and until when, and nobody where it does not.
func (s *Server) certified(c *tls.ConnectionState, now time.Time) (identity string, until time.Time) {
	if c == nil || len(c.VerifiedChains) == 0 {
		return "", time.Time{}
	}
	leaf := c.VerifiedChains[0][0]
	identity = certs.CertificateIdentity(leaf)
	if !slices.Contains(s.cfg.Identities, identity) || !now.Before(leaf.NotAfter) {
		return "", time.Time{}
	}
	return identity, leaf.NotAfter
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

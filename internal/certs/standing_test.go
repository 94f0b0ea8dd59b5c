package certs_test

import (
	"context"
	"crypto/x509"
	"math/big"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// stand is a set of connections, by name, in a bubble of time.
type stand struct {
	*certs.Standing[string]

	t     *testing.T
	mu    sync.Mutex // the bubble's clock orders nothing for the race detector
	over  map[string]bool
	ended map[string]bool // certificates, by identity
}

// leaf is a certificate of an identity until so long from now.
func leaf(identity string, left time.Duration) *x509.Certificate {
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(left)}
	if identity != "" {
		cert.URIs = []*url.URL{{Scheme: "spiffe", Host: "x", Path: "/" + identity}}
	}

	return cert
}

func runStand(t *testing.T, overtime time.Duration, use func(s *stand)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &stand{t: t, over: map[string]bool{}, ended: map[string]bool{}}
		s.Standing = certs.NewStanding(certs.Tenure{Overtime: overtime}, func(c string) { s.note(s.over, c) },
			func(who string, _ *x509.Certificate) bool {
				s.mu.Lock()
				defer s.mu.Unlock()

				return s.ended[who]
			})

		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()

		go s.Run(ctx)
		synctest.Wait()
		use(s)
	})
}

func (s *stand) note(in map[string]bool, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()

	in[name] = true
}

func (s *stand) show(conn string, cert *x509.Certificate) {
	s.Enter(conn)
	s.Show(conn, cert, cert.NotAfter)
}

// after waits and says which connections are over.
func (s *stand) after(d time.Duration, want ...string) {
	s.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()

	for _, c := range want {
		if !s.over[c] {
			s.t.Errorf("%q goes on", c)
		}
	}

	if len(s.over) != len(want) {
		s.t.Errorf("over: %v, want %q", s.over, want)
	}
}

func TestAudit_ATK08_ConnectionsEndSoonAfterTheirCertificates(t *testing.T) {
	t.Parallel()
	runStand(t, time.Minute, func(s *stand) {
		s.Enter("no certificate")
		s.show("long", leaf("long", time.Hour))
		s.show("brief", leaf("brief", time.Second)) // closer than what was waited for
		s.show("another", leaf("another", time.Second))
		s.show("nameless", leaf("", time.Second))
		s.show("left", leaf("left", time.Second))
		s.Leave("left")
		s.Show("left", leaf("left", time.Second), time.Now().Add(time.Second)) // too late
		s.after(time.Minute + time.Second)
		s.show("another's", leaf("another", time.Hour))
		s.after(5*time.Millisecond, "brief", "nameless")
		s.after(time.Hour+time.Minute, "brief", "nameless", "long", "another", "another's")

		if n := s.Len(); n != 1 {
			s.t.Errorf("%d connections are kept", n)
		}
	})
}

// A certificate that is good no more ends its connection, whatever others of its name show.
func TestAudit_ATK08_ConnectionsEndWithTheirLaunch(t *testing.T) {
	t.Parallel()
	runStand(t, 10*time.Second, func(s *stand) {
		s.show("launch", leaf("launch", time.Hour))
		s.show("other", leaf("other", time.Hour))
		s.after(time.Minute)

		s.note(s.ended, "spiffe://x/launch")

		s.after(9 * time.Second)
		s.after(12*time.Second, "launch")
	})
}

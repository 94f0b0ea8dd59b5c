package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// A connection outlives the provider's certificate by the overtime and no longer, unless the
// provider showed a later one; the next call looks at the certificate of today.
func TestAudit_ATK08_ConnectionsToProvidersEndWithTheirCertificates(t *testing.T) {
	t.Parallel()
	for name, renewed := range map[string]bool{"not renewed": false, "renewed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun := make(chan struct{}, 2)
			srv, p := tenant(t, func(_ http.ResponseWriter, r *http.Request) {
				begun <- struct{}{}
				if r.URL.Path == "/wait" {
					<-r.Context().Done()
				}
			})
			defer p.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			waiting := make(chan Result, 1)
			go func() { waiting <- forwardTo(ctx, p, "/wait") }()
			<-begun
			end := srv.Certificate().NotAfter
			p.endTenures(end.Add(-time.Second))
			first := onlyTenure(t, p)
			if !first.Usable() {
				t.Error("a connection ended before its certificate")
			}
			p.endTenures(end.Add(time.Second))
			if first.Usable() {
				t.Error("a connection takes calls after the end of its certificate")
			}
			if r := forwardTo(t.Context(), p, "/"); r.Class != ClassOK {
				t.Fatalf("the next call: %+v", r)
			}
			<-begun
			if renewed {
				p.mu.Lock()
				for conn := range p.tenures {
					if conn != first {
						p.tenures[conn] = end.Add(time.Hour)
					}
				}
				p.mu.Unlock()
			}
			p.endTenures(end.Add(2 * time.Minute))
			if renewed {
				cancel()
			}
			if r := <-waiting; (r.Class == ClassCanceled) != renewed {
				t.Errorf("the call in flight ended: %+v", r)
			}
		})
	}
}

// A connection without calls ends with the provider's certificate, and the next call goes over
// another one.
func TestAudit_ATK08_AConnectionWithoutCallsEndsToo(t *testing.T) {
	t.Parallel()
	srv, p := tenant(t, func(http.ResponseWriter, *http.Request) {})
	if r := forwardTo(t.Context(), p, "/"); r.Class != ClassOK {
		t.Fatalf("%+v", r)
	}
	first, done := onlyTenure(t, p), make(chan Result, 1)
	go func() {
		p.endTenures(srv.Certificate().NotAfter.Add(time.Second))
		done <- forwardTo(t.Context(), p, "/")
	}()
	select {
	case r := <-done:
		if r.Class != ClassOK || first.Usable() {
			t.Errorf("the next call: %+v; the first connection takes calls: %t", r, first.Usable())
		}
		p.Close()
	case <-time.After(time.Minute):
		t.Error("nothing goes on")
	}
}

// tenant is a provider over TLS, with a minute of overtime.
func tenant(t *testing.T, handler http.HandlerFunc) (*httptest.Server, *Provider) {
	t.Helper()
	srv := httptest.NewUnstartedServer(handler)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	e, err := ParseEndpoint(srv.URL, false)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	p, err := New(Config{Endpoint: e, TLS: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, Overtime: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return srv, p
}

func forwardTo(ctx context.Context, p *Provider, path string) Result {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, path, http.NoBody)
	return p.Forward(httptest.NewRecorder(), r, Call{Path: path})
}

func onlyTenure(t *testing.T, p *Provider) *h2.Conn {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.tenures) != 1 {
		t.Fatalf("%d connections", len(p.tenures))
	}
	for conn := range p.tenures {
		return conn
	}
	return nil
}

// Where this side's certificate is renewed, the provider is shown the later one on another
// connection as soon as calls are under way that would not outlive the first, and no call goes
// over the first any more.
func TestAudit_ATK08_ARenewedCertificateIsShown(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{}, 3)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		if r.URL.Path == "/wait" {
			<-r.Context().Done()
		}
	}))
	srv.EnableHTTP2, srv.TLS = true, &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS13}
	srv.StartTLS()
	defer srv.Close()
	e, err := ParseEndpoint(srv.URL, false)
	if err != nil {
		t.Fatal(err)
	}
	pool, now := x509.NewCertPool(), time.Now()
	var own atomic.Pointer[tls.Certificate]
	own.Store(&srv.TLS.Certificates[0]) // any will do
	later := laterCertificate(t, now)
	pool.AddCert(srv.Certificate())
	p, err := New(Config{Endpoint: e, TLS: &tls.Config{
		RootCAs: pool, MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own.Load(), nil },
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	waiting := make(chan Result, 1)
	go func() { waiting <- forwardTo(ctx, p, "/wait") }()
	<-begun
	last := (srv.Certificate().NotAfter.Sub(srv.Certificate().NotBefore) - certs.ClockSkew) * 7 / 24
	due, turn := srv.Certificate().NotAfter.Add(-last), last/16
	p.showRenewed(due.Add(-time.Second))
	first := onlyLine(t, p)
	if !first.Usable() {
		t.Fatal("it is too early for another connection")
	}
	p.showRenewed(due)
	if p.awaitDial(); onlyLine(t, p) != first {
		t.Fatal("another connection for the same certificate, which may have ended meanwhile")
	}
	own.Store(later)
	due = due.Add(turn)
	p.showRenewed(due)
	p.awaitDial()
	second := onlyLine(t, p)
	if second == first {
		t.Error("calls go over the first connection")
	}
	for begun := time.Now(); first.Usable(); time.Sleep(time.Millisecond) { // it is retired beside the dial
		if time.Since(begun) > 10*time.Second {
			t.Fatal("the first connection takes calls")
		}
	}
	p.showRenewed(due.Add(turn - time.Second))
	if onlyLine(t, p) != second {
		t.Error("it is too early for a third")
	}
	if r := forwardTo(t.Context(), p, "/"); r.Class != ClassOK {
		t.Errorf("the next call: %+v", r)
	}
	cancel()
	if r := <-waiting; r.Class != ClassCanceled {
		t.Errorf("the call in flight ended: %+v", r)
	}
	own.Store(&srv.TLS.Certificates[0])
	p.showRenewed(later.Leaf.NotAfter)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lines.conns) != 0 || p.lines.dialing != nil {
		t.Error("another connection is opened though there is no call")
	}
}

// laterCertificate is valid for longer than that of a server of net/http/httptest.
func laterCertificate(t *testing.T, now time.Time) *tls.Certificate {
	t.Helper()
	const long = 200 * 365 * 24 * time.Hour
	ca, err := certs.NewCA("example.test", certs.ECDSA, long, now)
	if err != nil {
		t.Fatal(err)
	}
	key, err := certs.NewKey(certs.ECDSA)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(certs.Request{ID: certs.ID{TrustDomain: "example.test", Role: certs.RoleHost}, Key: key, TTL: long}, now)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// awaitDial waits for a connection that is being opened.
func (p *Provider) awaitDial() {
	p.mu.Lock()
	d := p.lines.dialing
	p.mu.Unlock()
	if d != nil {
		<-d.done
	}
}

func onlyLine(t *testing.T, p *Provider) *h2.Conn {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lines.conns) != 1 {
		t.Fatalf("%d connections take calls", len(p.lines.conns))
	}
	return p.lines.conns[0]
}

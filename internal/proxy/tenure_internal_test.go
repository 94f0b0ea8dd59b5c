package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

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
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				begun <- struct{}{}
				if r.URL.Path == "/wait" {
					<-r.Context().Done()
				}
			}))
			srv.EnableHTTP2 = true
			srv.StartTLS()
			defer srv.Close()
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

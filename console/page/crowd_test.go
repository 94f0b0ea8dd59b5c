package page_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/masegraye/connect-plugin-go/console/page"
	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Connections that come and stay are bounded, and keep nobody out, over TLS and without.
func TestCrowd(t *testing.T) {
	t.Parallel()
	const crowd, most = 80, 64
	for name, secure := range map[string]bool{"TLS": true, "plaintext": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, false)
			by := r.Enrol(t, "operator", nil).HTTPClient()
			cfg, scheme := page.Config{Read: adminv1connect.NewAdminReadServiceClient(by, r.URL)}, "http://"
			if secure {
				own, err := r.Authority.PluginTLS("page")
				if err != nil {
					t.Fatal(err)
				}
				cfg.TLS, scheme = &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: own.GetCertificate}, "https://"
			}
			l := hosttest.Listen(t)
			r.page, r.base = servePage(t, cfg, l), scheme+l.Addr().String()
			var gone atomic.Int64
			for range crowd {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = c.Close() })
				if secure {
					c = tls.Client(c, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: r.Authority.CertPool(), ServerName: "127.0.0.1"})
				}
				go func() {
					_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+l.Addr().String()+"\r\n\r\n")
					_, _ = io.Copy(io.Discard, c) // stays, and says no more
					gone.Add(1)
				}()
			}
			hosttest.Eventually(t, "those who came first make room", func() bool { return gone.Load() >= crowd-most })
			if n := gone.Load(); n > crowd-most+2 { // they would be, had they been idle for long
				t.Errorf("%d of %d are gone, want %d", n, crowd, crowd-most)
			}
			honest := client(t, r.Authority, nil, "")
			for range 3 {
				if code, text := r.ask(t, honest, http.MethodGet, "/", "", nil); code != http.StatusOK {
					t.Errorf("an honest visitor: %d %s", code, text)
				}
			}
		})
	}
}

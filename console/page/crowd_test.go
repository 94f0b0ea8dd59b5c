package page_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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

// follow reads the live stream. It tells when that has a text, and when it ends.
func follow(t *testing.T, r *rig, c *http.Client, text string) (seen, ended chan struct{}) {
	t.Helper()
	res, err := c.Get(r.base + "/events")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	seen, ended = make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for b := bufio.NewReader(res.Body); ; {
			line, err := b.ReadString('\n')
			if err != nil {
				return
			}
			if strings.Contains(line, text) {
				select {
				case seen <- struct{}{}:
				default:
				}
			}
		}
	}()
	return seen, ended
}

// Strangers on the machine, without a link, do not cut off the stream of an operator who is in.
func TestCrowdBlindsNoOperator(t *testing.T) {
	t.Parallel()
	const crowd, most = 100, 64
	for name, says := range map[string]string{
		"nothing":     "",
		"half a head": "GET / HTTP/1.1\r\nHost: HOST\r\n",
		"a body that never comes": "POST /enter HTTP/1.1\r\nHost: HOST\r\nOrigin: http://HOST\r\n" +
			"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, false)
			operator := browser(t)
			r.enter(t, operator)
			seen, ended := follow(t, r, operator, "victim-")
			addr := strings.TrimPrefix(r.base, "http://")
			var gone atomic.Int64
			for range crowd {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = c.Close() })
				_, _ = io.WriteString(c, strings.ReplaceAll(says, "HOST", addr))
				go func() {
					_, _ = io.Copy(io.Discard, c)
					gone.Add(1)
				}()
			}
			hosttest.Eventually(t, "those who came first make room", func() bool { return gone.Load() >= crowd-most })
			r.Enrol(t, "victim", nil)
			select {
			case <-seen:
			case <-ended:
				t.Error("the operator's stream was cut off")
			case <-time.After(hosttest.Wait):
				t.Error("the operator sees nothing")
			}
		})
	}
}

// A HEAD holds no stream: it is refused, and there is room for who follows.
func TestEvents_HeadHoldsNoStream(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	c := browser(t)
	r.enter(t, c)
	for range 9 { // one more than there are streams
		if code, _ := r.ask(t, c, http.MethodHead, "/events", "", nil); code != http.StatusMethodNotAllowed {
			t.Errorf("HEAD: %d", code)
		}
	}
	if code, text := r.ask(t, c, http.MethodGet, "/events", "", nil); code != http.StatusOK {
		t.Errorf("GET afterwards: %d %s", code, text)
	}
}

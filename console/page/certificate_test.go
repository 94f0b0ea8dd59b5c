package page_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/console/page"
	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// client is a browser with the certificate of a self id of an authority, or without one.
func client(t *testing.T, serving, certifying *connectplugin.Authority, selfID string) *http.Client {
	t.Helper()
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: serving.CertPool()}
	if selfID != "" {
		own, err := certifying.PluginTLS(selfID)
		if err != nil {
			t.Fatal(err)
		}
		cfg.GetClientCertificate = own.GetClientCertificate
	}
	transport := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	c := browser(t)
	c.Transport = transport
	return c
}

// Over TLS whoever shows a certificate that the page was told of needs no link, and nobody else gets in
// without one; other pages gain nothing by what a browser holds.
func TestCertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	by := r.Enrol(t, "operator", nil).HTTPClient()
	own, err := r.Authority.PluginTLS("page")
	if err != nil {
		t.Fatal(err)
	}
	l := hosttest.Listen(t)
	s := servePage(t, page.Config{
		Read: adminv1connect.NewAdminReadServiceClient(by, r.URL), Change: adminv1connect.NewAdminChangeServiceClient(by, r.URL),
		TLS:        &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: own.GetCertificate, ClientCAs: r.Authority.CertPool()},
		Identities: []string{r.Authority.PluginIdentity("auditor")},
	}, l)
	r.page, r.base = s, "https://"+l.Addr().String()
	other := hosttest.NewAuthority(t)
	auditor := client(t, r.Authority, r.Authority, "auditor")
	if code, _ := r.ask(t, auditor, http.MethodGet, "/events", "", nil); code != http.StatusUnauthorized {
		t.Errorf("a certificate without the key of the page: %d", code)
	}
	r.enterWith(t, auditor, "")
	for _, test := range []struct {
		name string
		by   *http.Client
		want int
	}{
		{"whom the page knows", auditor, http.StatusOK},
		{"whom it does not", client(t, r.Authority, r.Authority, "victim"), http.StatusUnauthorized},
		{"nobody", client(t, r.Authority, nil, ""), http.StatusUnauthorized},
	} {
		if code, text := r.ask(t, test.by, http.MethodGet, "/events", "", nil); code != test.want {
			t.Errorf("%s: %d %s, want %d", test.name, code, text, test.want)
		}
	}
	if res, err := client(t, r.Authority, other, "auditor").Get(r.base + "/events"); err == nil {
		_ = res.Body.Close()
		t.Errorf("a certificate of somebody else's authority: %s", res.Status)
	}
	if c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: r.Authority.CertPool(), MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12}); err == nil {
		_ = c.Close()
		t.Error("the page speaks TLS 1.2")
	}

	for origin, want := range map[string]int{
		r.base: http.StatusNoContent, "https://evil.example": http.StatusForbidden, "null": http.StatusForbidden,
		"http://" + l.Addr().String(): http.StatusForbidden,
	} {
		code, text := r.ask(t, auditor, http.MethodPost, "/change", readmit, func(q *http.Request) { q.Header.Set("Origin", origin) })
		if code != want {
			t.Errorf("a change from %s: %d %s, want %d", origin, code, text, want)
		}
	}
	stranger := client(t, r.Authority, nil, "")
	if code, text := r.ask(t, stranger, http.MethodPost, "/enter", `{"token":""}`, nil); code != http.StatusForbidden {
		t.Errorf("neither a link nor a certificate: %d %s", code, text)
	}
	if c := enter(t, r, stranger).Get("Set-Cookie"); !strings.HasPrefix(c, "__Host-") || !strings.Contains(c, "Secure") || !strings.Contains(c, "HttpOnly") || !strings.Contains(c, "SameSite=Strict") {
		t.Errorf("cookie %q", c)
	}
	if code, text := r.ask(t, stranger, http.MethodGet, "/events", "", nil); code != http.StatusOK {
		t.Errorf("with a link: %d %s", code, text)
	}
}

// enter uses a link and returns the fields of the answer.
func enter(t *testing.T, r *rig, c *http.Client) http.Header {
	t.Helper()
	link := r.page.Link()
	base, token, _ := strings.Cut(link, "/#")
	if base != r.base {
		t.Errorf("the link leads to %s", base)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.base+"/enter", strings.NewReader(`{"token":"`+token+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", r.base)
	req.Header.Set("Content-Type", "application/json")
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ Key string }
	_ = json.NewDecoder(res.Body).Decode(&answer)
	_ = res.Body.Close()
	c.Transport = &keyed{c.Transport, answer.Key}
	return res.Header
}

// showing is a request with a certificate.
func showing(t *testing.T, method, path, body string, leaf *x509.Certificate) *http.Request {
	t.Helper()
	q := httptest.NewRequestWithContext(t.Context(), method, "https://127.0.0.1:8443"+path, strings.NewReader(body))
	q.Header.Set("Origin", "https://127.0.0.1:8443")
	q.Header.Set("Content-Type", "application/json")
	q.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}}
	return q
}

// keyWith gets the key that belongs to a certificate.
func keyWith(t *testing.T, s *page.Server, name string) string {
	t.Helper()
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, showing(t, http.MethodPost, "/enter", `{}`, &x509.Certificate{DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}))
	var answer struct{ Key string }
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusOK {
		t.Fatalf("enter: %d %s", w.Code, w.Body)
	}
	return answer.Key
}

// A certificate lets somebody in no longer than it lasts, also on a connection that was made before.
func TestCertificateEnds(t *testing.T) {
	t.Parallel()
	s, err := page.New(page.Config{TLS: &tls.Config{MinVersion: tls.VersionTLS13}, Identities: []string{"auditor"}}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8443})
	if err != nil {
		t.Fatal(err)
	}
	key := keyWith(t, s, "auditor")
	for life, want := range map[time.Duration]int{time.Hour: http.StatusForbidden, -time.Second: http.StatusUnauthorized} { // it is read-only
		q := showing(t, http.MethodPost, "/change", `{}`, &x509.Certificate{DNSNames: []string{"auditor"}, NotAfter: time.Now().Add(life)})
		q.Header.Set(keyHeader, key)
		w := httptest.NewRecorder()
		if s.Handler().ServeHTTP(w, q); w.Code != want {
			t.Errorf("%v before its end: %d, want %d", life, w.Code, want)
		}
	}
}

// Nor does a stream go on that was begun before.
func TestStreamEndsWithTheCertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	by := r.Enrol(t, "operator", nil).HTTPClient()
	s, err := page.New(page.Config{
		Read: adminv1connect.NewAdminReadServiceClient(by, r.URL), TLS: &tls.Config{MinVersion: tls.VersionTLS13}, Identities: []string{"auditor"},
	}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8443})
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{DNSNames: []string{"auditor"}, NotAfter: time.Now().Add(2 * time.Second)}
	q := showing(t, http.MethodGet, "/events", "", leaf)
	q.Header.Set(keyHeader, keyWith(t, s, "auditor"))
	ended, w := make(chan struct{}), httptest.NewRecorder()
	go func() {
		defer close(ended)
		s.Handler().ServeHTTP(w, q)
	}()
	select {
	case <-ended:
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), r.Addr()) {
			t.Errorf("it never began: %d %s", w.Code, w.Body)
		}
	case <-time.After(hosttest.Wait):
		t.Error("the stream goes on")
	}
}

// What cannot be served safely is not.
func TestNew_Refuses(t *testing.T) {
	t.Parallel()
	over := &tls.Config{MinVersion: tls.VersionTLS13}
	for _, test := range []struct {
		name, addr string
		cfg        page.Config
		ok         bool
	}{
		{"plaintext beyond loopback", "192.0.2.1:80", page.Config{}, false},
		{"plaintext everywhere", "0.0.0.0:80", page.Config{Names: []string{"page.example"}}, false},
		{"plaintext on loopback", "127.0.0.1:80", page.Config{}, true},
		{"identities without TLS", "127.0.0.1:80", page.Config{Identities: []string{"x"}}, false},
		{"TLS beyond loopback", "192.0.2.1:443", page.Config{TLS: over}, true},
		{"TLS everywhere without a name", "0.0.0.0:443", page.Config{TLS: over}, false},
		{"TLS everywhere", "0.0.0.0:443", page.Config{TLS: over, Names: []string{"page.example"}}, true},
	} {
		addr, err := net.ResolveTCPAddr("tcp", test.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := page.New(test.cfg, addr); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	s, err := page.New(page.Config{TLS: over, Names: []string{"page.example"}}, &net.TCPAddr{IP: net.IPv4zero, Port: 443})
	if err != nil || !strings.HasPrefix(s.Link(), "https://page.example") {
		t.Errorf("%v, %v", s, err)
	}
	for host, want := range map[string]int{
		"page.example": http.StatusOK, "page.example:443": http.StatusOK, "evil.example": http.StatusMisdirectedRequest, "localhost": http.StatusMisdirectedRequest,
	} {
		w, q := httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host+"/", nil)
		s.Handler().ServeHTTP(w, q)
		if w.Code != want {
			t.Errorf("%s: %d, want %d", host, w.Code, want)
		}
	}
}

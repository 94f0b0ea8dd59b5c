package page_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/console/page"
	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

const (
	readmit = `{"action":"readmit","name":"gone"}`
	revoke  = `{"action":"revoke","name":"victim"}`
)

// nothingFor fails where somebody who is not in learns or changes anything.
func (r *rig) nothingFor(t *testing.T, who string, c *http.Client, edit func(*http.Request)) {
	t.Helper()
	for _, ask := range []struct {
		method, path, body string
		want               int
	}{
		{http.MethodGet, "/events", "", http.StatusUnauthorized},
		{http.MethodHead, "/events", "", http.StatusUnauthorized},
		{http.MethodPost, "/change", revoke, http.StatusUnauthorized},
		{http.MethodPost, "/enter", `{}`, http.StatusForbidden},
		{http.MethodPost, "/enter", `{"token":""}`, http.StatusForbidden},
	} {
		if code, text := r.ask(t, c, ask.method, ask.path, ask.body, edit); code != ask.want || strings.Contains(text, "key") {
			t.Errorf("%s: %s %s: %d %s, want %d", who, ask.method, ask.path, code, text, ask.want)
		}
	}
}

// neighbour serves another port of the page's host, to which a browser sends the page's cookie, and
// returns that cookie.
func neighbour(t *testing.T, c *http.Client) (cookie string) {
	t.Helper()
	got := make(chan string, 1)
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) { got <- q.Header.Get("Cookie") }))
	t.Cleanup(other.Close)
	opens := &http.Client{Jar: c.Jar} // the script of this origin has no key
	res, err := opens.Get(other.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return <-got
}

// Browsers send the cookies of a host to all of its ports. Who serves another one can do nothing with
// that of the page.
func TestCookieOfAnotherPort(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	operator, thief := browser(t), browser(t)
	r.enter(t, operator)
	cookie := neighbour(t, operator)
	if !strings.HasPrefix(cookie, "connectplugin_") {
		t.Fatalf("the other port got the cookie %q", cookie)
	}
	_, session, _ := strings.Cut(cookie, "=")
	r.enter(t, thief) // it may even have a session of its own
	own, _ := thief.Transport.(*keyed)
	for who, key := range map[string]string{
		"a cookie alone": "", "the cookie as the key": session, "all of it as the key": cookie, "the key of another session": own.key, "a key cut short": own.key[:8],
	} {
		r.nothingFor(t, who, &http.Client{Transport: own.RoundTripper}, func(q *http.Request) {
			q.Header.Set("Cookie", cookie)
			q.Header.Set(keyHeader, key)
		})
	}
	honest, _ := operator.Transport.(*keyed)
	r.nothingFor(t, "a key without its cookie", &http.Client{Transport: honest}, nil)
	for _, name := range []string{"key", keyHeader, "token"} { // a key in an address would be in logs
		if code, _ := r.ask(t, &http.Client{Transport: own.RoundTripper}, http.MethodGet, "/events?"+url.Values{name: {honest.key}}.Encode(), "", func(q *http.Request) {
			q.Header.Set("Cookie", cookie)
		}); code != http.StatusUnauthorized {
			t.Errorf("the key in the address: %d", code)
		}
	}
	if code, text := r.ask(t, operator, http.MethodGet, "/events", "", nil); code != http.StatusOK {
		t.Errorf("the page itself reads: %d %s", code, text)
	}
	if code, text := r.ask(t, operator, http.MethodPost, "/change", readmit, nil); code != http.StatusNoContent {
		t.Errorf("the page itself changes: %d %s", code, text)
	}
}

// A browser offers a certificate to whoever asks, and a key to its own origin alone: neither is of use
// without the other, nor with what belongs to somebody else.
func TestCertificateWithoutItsKey(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	by := r.Enrol(t, "operator", nil).HTTPClient()
	own, err := r.Authority.PluginTLS("page")
	if err != nil {
		t.Fatal(err)
	}
	l := hosttest.Listen(t)
	r.page = servePage(t, page.Config{
		Read: adminv1connect.NewAdminReadServiceClient(by, r.URL), Change: adminv1connect.NewAdminChangeServiceClient(by, r.URL),
		TLS:        &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: own.GetCertificate, ClientCAs: r.Authority.CertPool()},
		Identities: []string{r.Authority.PluginIdentity("auditor"), r.Authority.PluginIdentity("later")},
	}, l)
	r.base = "https://" + l.Addr().String()
	auditor, later, linked := client(t, r.Authority, r.Authority, "auditor"), client(t, r.Authority, r.Authority, "later"), client(t, r.Authority, nil, "")
	r.enterWith(t, auditor, "")
	r.enterWith(t, later, "")
	r.enter(t, linked)
	keyOf := func(c *http.Client) string { k, _ := c.Transport.(*keyed); return k.key }
	bare := func(c *http.Client) *http.Client {
		k, _ := c.Transport.(*keyed)
		return &http.Client{Transport: k.RoundTripper}
	}
	for _, test := range []struct {
		who string
		by  *http.Client
		key string
	}{
		{"a certificate alone", auditor, ""},
		{"a certificate with the key of another", auditor, keyOf(later)},
		{"a certificate with the key of a session", auditor, keyOf(linked)},
		{"the key of a certificate with a session", linked, keyOf(auditor)},
		{"the key of a certificate alone", &http.Client{Transport: bare(linked).Transport}, keyOf(auditor)},
		{"a certificate that lets nobody in", client(t, r.Authority, r.Authority, "victim"), keyOf(auditor)},
	} {
		c := test.by
		if _, ok := c.Transport.(*keyed); ok {
			c = &http.Client{Transport: bare(c).Transport, Jar: c.Jar}
		}
		for _, path := range []string{"/events", "/change"} {
			method := map[string]string{"/events": http.MethodGet, "/change": http.MethodPost}[path]
			if code, text := r.ask(t, c, method, path, readmit, func(q *http.Request) { q.Header.Set(keyHeader, test.key) }); code != http.StatusUnauthorized {
				t.Errorf("%s: %s: %d %s", test.who, path, code, text)
			}
		}
	}
	for who, c := range map[string]*http.Client{"auditor": auditor, "later": later, "with a link": linked} {
		if code, text := r.ask(t, c, http.MethodGet, "/events", "", nil); code != http.StatusOK {
			t.Errorf("%s: %d %s", who, code, text)
		}
	}
}

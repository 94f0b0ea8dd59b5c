package page_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"regexp"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/console/page"
	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

func TestMain(m *testing.M) { hosttest.Main(m) }

// hostile is what a plugin says of itself to become part of the page.
const hostile = `</td><img src=x onerror=document.title='owned'><script>document.title='owned'</script>` + "\u2060\ufeff\u00ad\ufe0f\u3164\U000e0001\U000e0061\U000e0100"

// rig is a page of a real host.
type rig struct {
	*hosttest.Host

	page *page.Server
	base string
}

func newRig(t *testing.T, changes bool) *rig {
	t.Helper()
	r := &rig{}
	r.Host = hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Admin = &connectplugin.AdminConfig{}
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"operator": hosttest.Allow(func(p *connectplugin.PluginPolicy) {
				p.HostPlugins = []string{connectplugin.AdminRead, connectplugin.AdminChange}
			}),
			"victim": hosttest.Allow(nil), "later": hosttest.Allow(nil), "gone": hosttest.Allow(nil),
		}}
	})
	by := r.Enrol(t, "operator", nil).HTTPClient()
	cfg := page.Config{Read: adminv1connect.NewAdminReadServiceClient(by, r.URL)}
	if changes {
		cfg.Change = adminv1connect.NewAdminChangeServiceClient(by, r.URL)
	}
	l := hosttest.Listen(t)
	r.page = servePage(t, cfg, l)
	r.base = "http://" + l.Addr().String()
	return r
}

// servePage serves a page until the test ends.
func servePage(t *testing.T, cfg page.Config, l net.Listener) *page.Server {
	t.Helper()
	s, err := page.New(cfg, l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

// browser is a client that keeps cookies.
func browser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: transport}
}

// keyed is what a browser sends with once the script of the page has the key.
type keyed struct {
	http.RoundTripper

	key string
}

func (k *keyed) RoundTrip(q *http.Request) (*http.Response, error) {
	q = q.Clone(q.Context())
	q.Header.Set(keyHeader, k.key)
	return k.RoundTripper.RoundTrip(q)
}

const keyHeader = "Connectplugin-Page-Key"

// ask sends a request as the page would, edited, and returns the status and the body.
func (r *rig) ask(t *testing.T, c *http.Client, method, path, body string, edit func(*http.Request)) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Origin", r.base)
		req.Header.Set("Content-Type", "application/json")
	}
	if edit != nil {
		edit(req)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/x-ndjson") {
		line, _ := bufio.NewReader(res.Body).ReadString('\n')
		return res.StatusCode, line
	}
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

// enter lets a browser in, with a link or else with the certificate that it has.
func (r *rig) enter(t *testing.T, c *http.Client) {
	t.Helper()
	_, token, _ := strings.Cut(r.page.Link(), "#")
	r.enterWith(t, c, token)
}

func (r *rig) enterWith(t *testing.T, c *http.Client, token string) {
	t.Helper()
	code, text := r.ask(t, c, http.MethodPost, "/enter", `{"token":"`+token+`"}`, nil)
	var answer struct{ Key string }
	if err := json.Unmarshal([]byte(text), &answer); code != http.StatusOK || err != nil || len(answer.Key) < 40 {
		t.Fatalf("enter: %d %s", code, text)
	}
	c.Transport = &keyed{c.Transport, answer.Key}
}

// A link works once, and nothing of the host is told without it.
func TestLinkWorksOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	honest, thief := browser(t), browser(t)
	if code, _ := r.ask(t, thief, http.MethodGet, "/events", "", nil); code != http.StatusUnauthorized {
		t.Errorf("events without a session: %d", code)
	}
	if code, _ := r.ask(t, thief, http.MethodPost, "/change", `{"action":"revoke","name":"victim"}`, nil); code != http.StatusUnauthorized {
		t.Errorf("change without a session: %d", code)
	}
	_, token, _ := strings.Cut(r.page.Link(), "#")
	if code, _ := r.ask(t, thief, http.MethodPost, "/enter", `{"token":"`+token[:len(token)-1]+`"}`, nil); code != http.StatusForbidden {
		t.Errorf("a guessed link: %d", code)
	}
	r.enterWith(t, honest, token)
	if code, text := r.ask(t, thief, http.MethodPost, "/enter", `{"token":"`+token+`"}`, nil); code != http.StatusForbidden {
		t.Errorf("the second use of a link: %d %s", code, text)
	}
	if code, line := r.ask(t, honest, http.MethodGet, "/events", "", nil); code != http.StatusOK || line != "{\"page\":{\"writable\":true}}\n" {
		t.Errorf("events: %d %q", code, line)
	}
	if code, _ := r.ask(t, thief, http.MethodGet, "/events", "", nil); code != http.StatusUnauthorized {
		t.Errorf("events for the thief: %d", code)
	}
}

// Other pages and other names reach nothing, whatever session a browser has, and no GET changes
// anything.
func TestOtherPagesAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	victim := r.Enrol(t, "victim", nil)
	c := browser(t)
	r.enter(t, c)

	header := func(name, value string) func(*http.Request) {
		return func(q *http.Request) {
			q.Header.Del(name)
			if value != "" {
				q.Header.Set(name, value)
			}
		}
	}
	named := func(name string) func(*http.Request) { return func(q *http.Request) { q.Host = name } }
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(r.base, "http://"))
	for _, test := range []struct {
		name, method, path, body string
		edit                     func(*http.Request)
		want                     int
	}{
		{"a rebound name", "GET", "/", "", named("evil.example:" + port), http.StatusMisdirectedRequest},
		{"a rebound name asks for events", "GET", "/events", "", named("evil.example"), http.StatusMisdirectedRequest},
		{"no port", "GET", "/", "", named("127.0.0.1"), http.StatusMisdirectedRequest},
		{"another origin changes", "POST", "/change", revoke, header("Origin", "https://evil.example"), http.StatusForbidden},
		{"another port changes", "POST", "/change", revoke, header("Origin", "http://127.0.0.1:1"), http.StatusForbidden},
		{"a sandboxed page changes", "POST", "/change", revoke, header("Origin", "null"), http.StatusForbidden},
		{"two origins", "POST", "/change", revoke, func(q *http.Request) { q.Header.Add("Origin", "https://evil.example") }, http.StatusForbidden},
		{"nobody says who", "POST", "/change", revoke, header("Origin", ""), http.StatusForbidden},
		{"another page reads", "GET", "/events", "", header("Sec-Fetch-Site", "cross-site"), http.StatusForbidden},
		{"a page of the same site reads", "GET", "/events", "", header("Sec-Fetch-Site", "same-site"), http.StatusForbidden},
		{"another origin reads", "GET", "/events", "", header("Origin", "https://evil.example"), http.StatusForbidden},
		{"a form", "POST", "/change", revoke, header("Content-Type", "text/plain"), http.StatusUnsupportedMediaType},
		{"a GET changes", "GET", "/change", "", nil, http.StatusMethodNotAllowed},
		{"a GET enters", "GET", "/enter", "", nil, http.StatusMethodNotAllowed},
		{"an unknown action", "POST", "/change", `{"action":"explode","name":"victim"}`, nil, http.StatusBadRequest},
		{"a file that is none", "GET", "/server.go", "", nil, http.StatusNotFound},
	} {
		if code, text := r.ask(t, c, test.method, test.path, test.body, test.edit); code != test.want {
			t.Errorf("%s: %d %s, want %d", test.name, code, text, test.want)
		}
	}
	if err := victim.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
		t.Errorf("the victim was revoked: %v", err)
	}
	if code, text := r.ask(t, c, http.MethodPost, "/change", revoke, nil); code != http.StatusNoContent {
		t.Errorf("the page itself: %d %s", code, text)
	}
	if err := victim.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err == nil {
		t.Error("the page revoked nobody")
	}
}

// A page that was not started for changes makes none.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	c := browser(t)
	r.enter(t, c)
	if code, _ := r.ask(t, c, http.MethodPost, "/change", `{"action":"revoke","name":"victim"}`, nil); code != http.StatusForbidden {
		t.Errorf("a read-only page changes: %d", code)
	}
	if _, err := page.New(page.Config{}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80}); err == nil {
		t.Error("the page is served beyond loopback")
	}
}

// The page loads nothing from elsewhere and lets nothing be markup or code.
func TestNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	c := browser(t)
	foreign := regexp.MustCompile(`(?i)(https?:)?//[a-z0-9]+\.[a-z]|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function|\bon\w+=`)
	for _, path := range []string{"/", "/app.js", "/graph.js", "/app.css"} {
		res, err := c.Get(r.base + path)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		found := foreign.FindString(strings.ReplaceAll(string(text), "http://www.w3.org/2000/svg", ""))
		if res.StatusCode != http.StatusOK || found != "" {
			t.Errorf("%s: %s, has %q", path, res.Status, found)
		}
		for header, parts := range map[string][]string{
			"Content-Security-Policy": {
				"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; ", "base-uri 'none'",
				"form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'; trusted-types 'none'",
			},
			"X-Frame-Options": {"DENY"}, "X-Content-Type-Options": {"nosniff"}, "Referrer-Policy": {"no-referrer"}, "Cache-Control": {"no-store"},
			"Cross-Origin-Opener-Policy": {"same-origin"}, "Cross-Origin-Resource-Policy": {"same-origin"},
		} {
			for _, part := range parts {
				if got := res.Header.Get(header); !strings.Contains(got, part) || strings.Contains(got, "unsafe") {
					t.Errorf("%s: %s: %s has no %s", path, header, got, part)
				}
			}
		}
	}
}

package page_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/console/page"
	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

const (
	entered = "live"
	outside = "not connected: open the link that connectpluginctl page prints"
)

func (b *chrome) says(t *testing.T, where, want string) {
	t.Helper()
	hosttest.Eventually(t, where+": the page says "+want, func() bool { return b.status(t) == want })
}

// mark is on a document until it is left.
func (b *chrome) mark(t *testing.T) { t.Helper(); b.evaluate(t, "window.marked = 'marked'") }

func (b *chrome) unmarked(t *testing.T, what string) {
	t.Helper()
	hosttest.Eventually(t, what, func() bool { return b.evaluate(t, "String(window.marked)") == "undefined" })
}

// Whoever is in stays so when the page is loaded again and in other tabs of the browser. Where the key is
// gone the page says so and shows nothing, until a link is opened in this tab or in another one.
func TestReloadAndTabs(t *testing.T) {
	t.Parallel()
	program := chromium(t)
	r := newRig(t, false)
	b := openBrowser(t, program, r.page.Link())
	b.says(t, "first", entered)
	b.mark(t)
	b.call(t, "Page.reload", map[string]any{}, &struct{}{})
	b.unmarked(t, "the page is loaded again")
	b.says(t, "loaded again", entered)
	second := b.another(t, r.base+"/")
	second.says(t, "in a second tab", entered)

	second.mark(t)
	second.evaluate(t, "localStorage.clear()")
	second.call(t, "Page.reload", map[string]any{}, &struct{}{})
	second.unmarked(t, "the second tab is loaded again")
	second.says(t, "without the key", outside)
	if text := second.evaluate(t, "document.body.textContent"); strings.Contains(text, r.Addr()) {
		t.Errorf("it shows the host all the same: %s", text)
	}
	b.mark(t)
	b.visit(t, r.page.Link()) // which changes nothing but what stands behind the #
	b.unmarked(t, "a link in the tab loads the page")
	b.says(t, "with another link", entered)
	second.says(t, "in the second tab, once the first has entered", entered)
	if hash := b.evaluate(t, "location.hash + document.cookie"); hash != "" {
		t.Errorf("the page leaves %q to be seen", hash)
	}
}

// A page on another port of the same address gets the cookie and can do nothing: it has no key, may not
// read what is answered, and its requests are refused.
func TestBrowserKeepsTheKeyFromOtherPorts(t *testing.T) {
	t.Parallel()
	program := chromium(t)
	r := newRig(t, true)
	cookies := make(chan string, 8)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/" {
			cookies <- q.Header.Get("Cookie")
		}
		w.Header().Set("Content-Type", "text/html")
	}))
	t.Cleanup(other.Close)
	b := openBrowser(t, program, r.page.Link())
	b.says(t, "first", entered)
	b.visit(t, other.URL)
	cookie := <-cookies
	if !strings.HasPrefix(cookie, "connectplugin_") {
		t.Fatalf("the other port got %q", cookie)
	}
	hosttest.Eventually(t, "the other page is there", func() bool { return b.evaluate(t, "location.origin") == other.URL })
	b.evaluate(t, `for (const [how, init] of [["GET", {}], ["POST", { method: "POST" }], ["POST with JSON", { method: "POST", headers: { "Content-Type": "application/json" } }]])
		for (const mode of ["cors", "no-cors"]) for (const path of ["events", "change", "enter"])
			fetch("`+r.base+`/" + path, { ...init, ...(init.method && { body: '{"action":"revoke","name":"victim","token":""}' }), mode, credentials: "include" })
				.then((r) => r.text()).then((x) => x && (window.got = [window.got, how, mode, path, x].join(" ")), () => {}).finally(() => { window.ended = (window.ended || 0) + 1; }); ""`)
	hosttest.Eventually(t, "its requests have ended", func() bool { return b.evaluate(t, "String(window.ended)") == "18" })
	if got := b.evaluate(t, "String(window.got) + localStorage.length"); got != "undefined0" {
		t.Errorf("the other port has %s", got)
	}
	r.nothingFor(t, "its server", browser(t), func(q *http.Request) { q.Header.Set("Cookie", cookie) })
	r.Enrol(t, "victim", nil) // which nobody revoked
	b.visit(t, r.base+"/")
	b.says(t, "back", entered)
}

// awayHost is a host that is followed, goes away twice and comes back.
type awayHost struct {
	adminv1connect.UnimplementedAdminReadServiceHandler

	attempts atomic.Int64
	end      chan struct{}
}

// Follow sends a snapshot, at the second and the third attempt nothing.
func (h *awayHost) Follow(ctx context.Context, _ *connect.Request[adminv1.FollowRequest], stream *connect.ServerStream[adminv1.FollowResponse]) error {
	n := h.attempts.Add(1)
	if n == 2 {
		return connect.NewError(connect.CodeUnavailable, nil)
	}
	if n == 3 {
		return nil
	}
	if err := stream.Send(&adminv1.FollowResponse{Snapshot: &adminv1.Snapshot{Host: &adminv1.HostInfo{Version: strconv.FormatInt(n, 10)}}}); err != nil {
		return err
	}
	select {
	case <-h.end:
		return connect.NewError(connect.CodeUnavailable, nil)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A host that goes away is said to be, and shown again when it is back, without a link.
func TestHostGoesAway(t *testing.T) {
	t.Parallel()
	program := chromium(t)
	away := &awayHost{end: make(chan struct{}, 1)}
	mux := http.NewServeMux()
	mux.Handle(adminv1connect.NewAdminReadServiceHandler(away))
	host := httptest.NewServer(mux)
	t.Cleanup(host.Close)
	s := servePage(t, page.Config{Read: adminv1connect.NewAdminReadServiceClient(host.Client(), host.URL)}, hosttest.Listen(t))
	b := openBrowser(t, program, s.Link())
	b.says(t, "first", entered)
	b.evaluate(t, `window.said = []; new MutationObserver(() => said.push(document.getElementById("status").textContent))
		.observe(document.getElementById("status"), { childList: true }); ""`)
	away.end <- struct{}{}
	hosttest.Eventually(t, "the page shows the host again", func() bool { return strings.Contains(b.evaluate(t, "document.body.textContent"), "version 4") })
	const want = "the connection ended; trying again|not connected (the host cannot be followed: unavailable); trying again|" +
		"not connected (the host cannot be followed: it ended the call); trying again|live"
	if got := b.evaluate(t, `said.join("|")`); got != want {
		t.Errorf("the page said %q, want %q", got, want)
	}
}

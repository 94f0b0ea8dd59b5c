package proxy_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// A call in flight goes on after a farewell, and a later one goes over another connection: a server may take no more on one on which
// it was said. A connection without calls is left as it is.
func TestFarewell(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	g := newRig(t, rigConfig{handler: func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/Held") {
			_ = http.NewResponseController(w).Flush()
			<-release
		}
		_, _ = io.WriteString(w, "done")
	}})
	again := func(conns int64) {
		t.Helper()
		if _, got := g.post(t, unaryType, strings.NewReader("x")); string(got) != "done" {
			t.Errorf("body %q", got)
		}
		g.wantClass(t, proxy.ClassOK)
		if n := g.conns.Load(); n != conns {
			t.Errorf("%d connections, want %d", n, conns)
		}
	}
	again(1)
	g.provider.Farewell()
	again(1)
	held := g.openAt(t, g.url("Held"), unaryType, strings.NewReader("x"))
	g.provider.Farewell()
	again(2)
	close(release)
	if got, err := io.ReadAll(held.Body); string(got) != "done" {
		t.Errorf("the call in flight got %q, %v", got, err)
	}
	g.wantClass(t, proxy.ClassOK)
}

package proxy_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/headers"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// The last call passes where others are refused, and says what it is. While a call is in flight nothing
// is sealed, and the next one passes.
func TestTheLastCallPasses(t *testing.T) {
	t.Parallel()
	const isLast = "X-Is-Last" // of the test's request
	said := make(chan string, 1)
	var g *rig
	g = newRig(t, rigConfig{
		handler: func(w http.ResponseWriter, r *http.Request) {
			said <- r.Header.Get(headers.LastCall)
			if r.Header.Get(headers.LastCall) == "" && g.provider.Seal() {
				t.Error("sealed, and a call is in flight")
			}
			_, _ = io.WriteString(w, "done")
		},
		call: func(r *http.Request, call *proxy.Call) *http.Request {
			call.Last = r.Header.Get(isLast) != ""
			return r
		},
	})
	for range 2 {
		if _, got := g.post(t, unaryType, strings.NewReader("x"), headers.LastCall, "forged"); string(got) != "done" {
			t.Fatalf("body %q", got)
		}
		g.wantClass(t, proxy.ClassOK)
		if got := <-said; got != "" {
			t.Errorf("a call says that it is the last one: %q", got)
		}
	}
	for range 2 {
		if !g.provider.Seal() {
			t.Error("not sealed, and no call is in flight")
		}
	}
	g.post(t, unaryType, strings.NewReader("x"))
	if r := g.wantClass(t, proxy.ClassUnavailable); !errors.Is(r.Err, proxy.ErrClosed) || !r.Retryable {
		t.Errorf("a call after it was sealed: %+v", r)
	}
	if _, got := g.post(t, unaryType, strings.NewReader("x"), isLast, "yes"); string(got) != "done" {
		t.Errorf("the last call: %q", got)
	}
	g.wantClass(t, proxy.ClassOK)
	if got := <-said; got != headers.Yes {
		t.Errorf("the last call says %q", got)
	}
	if err := g.provider.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

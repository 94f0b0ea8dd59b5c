package proxy_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// TestIdle follows one call in a provider in this process, on a clock of its own.
func TestIdle(t *testing.T) {
	t.Parallel()
	const idle = time.Minute
	tests := map[string]struct {
		idle    time.Duration
		handler http.HandlerFunc
		want    proxy.Class
	}{
		"nothing moves": {idle: idle, want: proxy.ClassIdle, handler: func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}},
		"messages move": {idle: idle, want: proxy.ClassOK, handler: func(w http.ResponseWriter, _ *http.Request) {
			for range 10 {
				time.Sleep(idle / 2)
				_, _ = io.WriteString(w, "x")
			}
		}},
		"no limit": {idle: -1, want: proxy.ClassOK, handler: func(http.ResponseWriter, *http.Request) { time.Sleep(1000 * idle) }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, err := proxy.New(proxy.Config{Handler: test.handler, CallIdle: test.idle})
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				begun := time.Now()
				req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
				r := p.Forward(httptest.NewRecorder(), req, proxy.Call{Path: "/a"})
				if r.Class != test.want {
					t.Errorf("class %v after %v", r.Class, time.Since(begun))
				}
				if took := time.Since(begun); test.want == proxy.ClassIdle && (took < idle || took > 2*idle) {
					t.Errorf("ended after %v", took)
				}
			})
		})
	}
}

func TestIdleCallOnTheNetworkEnds(t *testing.T) {
	t.Parallel()
	g := newRig(t, rigConfig{
		config:  func(c *proxy.Config) { c.CallIdle = 50 * time.Millisecond },
		handler: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	})
	res, _ := g.post(t, unaryType, strings.NewReader("x"))
	if res.StatusCode != http.StatusBadGateway {
		t.Errorf("status %d", res.StatusCode)
	}
	if r := g.wantClass(t, proxy.ClassIdle); !errors.Is(r.Err, proxy.ErrIdle) {
		t.Errorf("result %+v", r)
	}
}

package proxy_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// Two questions at once at a provider that is full of calls and takes one stream a connection: the
// second goes when the first is answered.
func TestBreaker9_SecondUrgentCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pd := &played{settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1}}}
		pd.on = func(c *playedConn, f http2.Frame) {
			if _, ok := f.(*http2.HeadersFrame); ok && c.dial == 2 {
				id := f.Header().StreamID
				pd.wg.Go(func() { time.Sleep(10 * time.Millisecond); c.answer(id, "200") })
			}
		}
		p := newPlayed(t, pd, func(c *proxy.Config) { c.MaxConns = 1 })
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { ask(ctx, p, proxy.Call{CallerID: "a"}) })
		synctest.Wait()
		var urgent sync.WaitGroup
		begun := time.Now()
		for range 2 {
			urgent.Go(func() {
				if r := ask(t.Context(), p, proxy.Call{Urgent: true}); r.Class != proxy.ClassOK {
					t.Errorf("result %+v", r)
				}
			})
		}
		urgent.Wait()
		if took := time.Since(begun); took > 20*time.Millisecond {
			t.Errorf("took %v", took)
		}
		cancel(errEnough)
		wg.Wait()
	})
}

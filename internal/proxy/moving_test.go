package proxy_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// limit has the provider state how many streams it takes on a connection.
func (c *playedConn) limit(streams uint32) {
	c.locked(func() { _ = c.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: streams}) })
	synctest.Wait()
}

// TestAudit_USE46_ALimitThatMoves has a provider that takes no more calls for a while, below what it
// has already, goes away with one connection meanwhile, and takes calls one by one again: each call
// is answered, none goes out beyond the limit, and no stream stays counted.
func TestAudit_USE46_ALimitThatMoves(t *testing.T) {
	t.Parallel()
	for name, goesAway := range map[string]bool{"stays": false, "goes away": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				pd, asked := newAsked(100)
				p := newPlayed(t, pd, func(c *proxy.Config) { c.MaxConns, c.RoomTimeout, c.CallIdle = 1, time.Hour, -1 })
				var wg sync.WaitGroup
				call := func(n int) {
					for i := range n {
						wg.Go(func() {
							if r := ask(t.Context(), p, proxy.Call{CallerID: string(rune('a' + i%5))}); r.Class != proxy.ClassOK {
								t.Errorf("%+v", r)
							}
						})
					}
					synctest.Wait()
				}
				call(5)
				var early []askedStream
				for range 5 {
					early = append(early, <-asked)
				}
				conn := early[0].conn
				conn.limit(0)
				call(40)
				if n := len(asked); n != 0 {
					t.Fatalf("%d calls went out where the provider takes none", n)
				}
				if goesAway {
					pd.settings = []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1}}
					conn.locked(func() { _ = conn.WriteGoAway(early[4].id, http2.ErrCodeNo, nil) })
					synctest.Wait()
				} else {
					conn.limit(1) // five are there
					if n := len(asked); n != 0 {
						t.Fatalf("%d calls went out beyond the limit", n)
					}
				}
				for _, s := range early {
					s.conn.answer(s.id, "200")
				}
				for range 40 {
					synctest.Wait()
					if n := len(asked); n != 1 {
						t.Fatalf("%d calls at a time, want 1", n)
					}
					s := <-asked
					s.conn.answer(s.id, "200")
				}
				wg.Wait()
				if n := p.Held(); n != 0 {
					t.Errorf("%d streams counted where there is no call", n)
				}
			})
		})
	}
}

// TestAudit_USE46_ALimitOfNothing has a provider that takes no call at all any more: who waits is told
// so within the bound, and the calls that it has go on.
func TestAudit_USE46_ALimitOfNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pd, asked := newAsked(100)
		p := newPlayed(t, pd, func(c *proxy.Config) { c.MaxConns, c.RoomTimeout, c.CallIdle = 2, 7*time.Second, -1 })
		var wg sync.WaitGroup
		wg.Go(func() {
			if r := ask(t.Context(), p, proxy.Call{CallerID: "a"}); r.Class != proxy.ClassOK {
				t.Errorf("the one that it has: %+v", r)
			}
		})
		first := <-asked
		pd.settings = []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 0}}
		first.conn.limit(0)
		begun := time.Now()
		for range 20 {
			wg.Go(func() {
				r := ask(t.Context(), p, proxy.Call{CallerID: "b"})
				if !errors.Is(r.Err, proxy.ErrBusy) || !r.Retryable || r.Sent || r.Fault || time.Since(begun) > 8*time.Second {
					t.Errorf("after %v: %+v", time.Since(begun), r)
				}
			})
		}
		time.Sleep(10 * time.Second)
		first.conn.answer(first.id, "200")
		wg.Wait()
	})
}

// TestAudit_USE46_BeyondFourThousand has 5,000 calls of 50 callers to a provider that takes 700 on a connection, and
// ends none: those beyond what its connections take are told so within the bound, and as many as
// ended then find room.
func TestAudit_USE46_BeyondFourThousand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const callers, each, takes = 50, 100, 700
		pd, asked := newAsked(takes)
		p := newPlayed(t, pd, func(c *proxy.Config) { c.RoomTimeout, c.CallIdle = 5*time.Second, -1 })
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		var told atomic.Int64
		begun := time.Now()
		for i := range callers * each {
			wg.Go(func() {
				r := ask(ctx, p, proxy.Call{CallerID: string(rune('a' + i%callers))})
				if errors.Is(r.Err, proxy.ErrBusy) {
					told.Add(1)
					if r.Sent || r.Fault || !r.Retryable || time.Since(begun) > 6*time.Second {
						t.Errorf("after %v: %+v", time.Since(begun), r)
					}
				}
			})
		}
		time.Sleep(10 * time.Second)
		if got := len(asked); got+int(told.Load()) != callers*each {
			t.Errorf("%d went out, %d were told that there is no room, of %d", got, told.Load(), callers*each)
		}
		for range 10 {
			s := <-asked
			s.conn.answer(s.id, "200")
		}
		synctest.Wait()
		late, end := context.WithTimeout(t.Context(), time.Second)
		defer end()
		before := len(asked)
		r := ask(late, p, proxy.Call{CallerID: "late"})
		if n := len(asked) - before; n != 1 {
			t.Errorf("where calls ended, %d of one went out: %+v", n, r)
		}
		cancel(errEnough)
		wg.Wait()
		if n := p.Held(); n != 0 {
			t.Errorf("%d streams counted where there is no call", n)
		}
	})
}

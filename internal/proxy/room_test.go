package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// TestAudit_USE46_WaitForRoomIsBounded has a provider that takes one call at a
// time, and never ends one.
func TestAudit_USE46_WaitForRoomIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pd := &played{settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1}}}
		p := newPlayed(t, pd, func(c *proxy.Config) { c.MaxConns, c.RoomTimeout = 1, 7*time.Second })
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { ask(ctx, p, proxy.Call{}) })
		synctest.Wait()
		for range 20 {
			wg.Go(func() {
				begun := time.Now()
				r := ask(t.Context(), p, proxy.Call{})
				if r.Class != proxy.ClassUnavailable || !errors.Is(r.Err, proxy.ErrBusy) || !r.Retryable || r.Sent || r.Fault || proxy.CodeOf(r.Err) != 8 {
					t.Errorf("result %+v", r)
				}
				if took := time.Since(begun); took != 7*time.Second {
					t.Errorf("took %v", took)
				}
			})
		}
		time.Sleep(10 * time.Second)
		cancel(errEnough)
		wg.Wait()
	})
}

// TestAudit_USE46_RoomGoesToWhoWaits ends calls one by one; callers take turns.
func TestAudit_USE46_RoomGoesToWhoWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pd := &played{settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1}}}
		streams := make(chan uint32, 100)
		conns := make(chan *playedConn, 100)
		pd.on = func(c *playedConn, f http2.Frame) {
			if _, ok := f.(*http2.HeadersFrame); ok {
				streams <- f.Header().StreamID
				conns <- c
			}
		}
		p := newPlayed(t, pd, func(c *proxy.Config) { c.MaxConns = 1 })
		order := make(chan string, 100)
		var wg sync.WaitGroup
		for _, caller := range []string{"a", "a", "a", "a", "b", "c"} {
			wg.Go(func() {
				if r := ask(t.Context(), p, proxy.Call{CallerID: caller}); r.Class != proxy.ClassOK {
					t.Errorf("result %+v", r)
				}
				order <- caller
			})
			synctest.Wait()
		}
		var got strings.Builder
		for range 6 {
			(<-conns).answer(<-streams, "200")
			got.WriteString(<-order)
		}
		wg.Wait()
		// Whoever of the two others comes first: neither waits for the third of a's.
		if order := got.String(); strings.Count(order[:4], "a") != 2 || order[0] != 'a' {
			t.Errorf("order %s", order)
		}
	})
}

// TestAudit_USE46_SoManyWait has as many calls wait as may, of one caller and of all; one more is
// told so at once, and one of them that goes makes room.
func TestAudit_USE46_SoManyWait(t *testing.T) {
	t.Parallel()
	const each = 32 // and four times as many of all
	synctest.Test(t, func(t *testing.T) {
		pd := &played{settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1}}}
		p := newPlayed(t, pd, func(c *proxy.Config) { c.MaxConns, c.MaxWaiting, c.RoomTimeout = 1, each, time.Hour })
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		wait := func(ctx context.Context, caller string, n int) {
			for range n {
				wg.Go(func() { ask(ctx, p, proxy.Call{CallerID: caller}) })
			}
			synctest.Wait()
		}
		refused := func(caller string) {
			t.Helper()
			begun := time.Now()
			if r := ask(t.Context(), p, proxy.Call{CallerID: caller}); !errors.Is(r.Err, proxy.ErrBusy) || !r.Retryable || r.Sent || r.Fault || time.Since(begun) > 0 {
				t.Errorf("one more of %s: %+v after %v", caller, r, time.Since(begun))
			}
		}
		wait(ctx, "whose turn it is", 1)
		first, give := context.WithCancelCause(ctx)
		wait(first, "a", 1)
		wait(ctx, "a", each-1)
		refused("a")
		if r := ask(t.Context(), p, proxy.Call{CallerID: "another", Account: "a"}); !errors.Is(r.Err, proxy.ErrBusy) {
			t.Errorf("one more of the same account: %+v", r)
		}
		for _, caller := range []string{"b", "c", "d"} {
			wait(ctx, caller, each)
		}
		refused("e")
		give(errEnough)
		synctest.Wait()
		refusedLater, end := context.WithTimeout(t.Context(), time.Minute)
		defer end()
		begun := time.Now()
		if r := ask(refusedLater, p, proxy.Call{CallerID: "e"}); errors.Is(r.Err, proxy.ErrBusy) || time.Since(begun) != time.Minute {
			t.Errorf("where there is room to wait: %+v after %v", r, time.Since(begun))
		}
		cancel(errEnough)
		wg.Wait()
	})
}

// TestAudit_USE03_HealthNeverQueuesBehindCalls asks urgently while the provider is
// full of calls.
func TestAudit_USE03_HealthNeverQueuesBehindCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pd := &played{settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 3}}}
		pd.on = func(c *playedConn, f http2.Frame) {
			if _, ok := f.(*http2.HeadersFrame); ok && c.dial == 3 {
				c.answer(f.Header().StreamID, "200")
			}
		}
		p := newPlayed(t, pd, func(c *proxy.Config) { c.MaxConns = 2 })
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() { ask(ctx, p, proxy.Call{CallerID: string(rune('a' + i%2))}) })
		}
		synctest.Wait()
		begun := time.Now()
		for range 100 {
			if r := ask(t.Context(), p, proxy.Call{Urgent: true}); r.Class != proxy.ClassOK {
				t.Fatalf("result %+v", r)
			}
		}
		if time.Since(begun) > 0 || pd.dials.Load() != 3 {
			t.Errorf("took %v, %d dials", time.Since(begun), pd.dials.Load())
		}
		cancel(errEnough)
		wg.Wait()
	})
}

// TestAudit_ATK14_OneCallerLeavesRoom has a provider that ends no call of A's, who makes
// more than it takes, as one or as many of one account. B's calls are answered at once, and A's go on where others end.
func TestAudit_ATK14_OneCallerLeavesRoom(t *testing.T) {
	t.Parallel()
	for name, mine := range callersOfA {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			oneCallerLeavesRoom(t, mine)
		})
	}
}

// callersOfA are the calls of one, and of so many that are counted as one.
var callersOfA = map[string]func(i int) proxy.Call{
	"one caller":  func(int) proxy.Call { return proxy.Call{CallerID: "a"} },
	"ten of them": func(i int) proxy.Call { return proxy.Call{CallerID: "a" + strconv.Itoa(i%10), Account: "A"} },
}

func oneCallerLeavesRoom(t *testing.T, mine func(i int) proxy.Call) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		const streams, conns, most = 8, 2, 12
		pd := &played{settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: streams}}}
		p := newPlayed(t, pd, func(c *proxy.Config) { c.MaxConns, c.RoomTimeout = conns, time.Hour })
		type stream struct {
			conn *playedConn
			id   uint32
		}
		asked := make(chan stream, 100)
		pd.on = func(c *playedConn, f http2.Frame) {
			if _, ok := f.(*http2.HeadersFrame); ok {
				asked <- stream{c, f.Header().StreamID}
			}
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() { ask(ctx, p, mine(i)) })
		}
		synctest.Wait()
		if n := len(asked); n != most {
			t.Errorf("A has %d of %d streams, want %d", n, streams*conns, most)
		}
		first := <-asked
		for len(asked) > 0 {
			<-asked
		}
		begun := time.Now()
		for range 3 * streams {
			wg.Go(func() {
				s := <-asked
				s.conn.answer(s.id, "200")
			})
			if r := ask(t.Context(), p, proxy.Call{CallerID: "b"}); r.Class != proxy.ClassOK || time.Since(begun) > 0 {
				t.Errorf("B: %+v, after %v", r, time.Since(begun))
			}
		}
		first.conn.answer(first.id, "200")
		synctest.Wait()
		if n := len(asked); n != 1 {
			t.Errorf("%d of A's calls go on where one ended", n)
		}
		cancel(errEnough)
		wg.Wait()
	})
}

// TestAudit_USE05_StalledConnectionIsLeftToItsOwner has a provider that reads nothing
// of A's uploads and gives nothing back. B's upload goes over another connection.
func TestAudit_USE05_StalledConnectionIsLeftToItsOwner(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pd := &played{on: func(c *playedConn, f http2.Frame) {
			if f, ok := f.(*http2.DataFrame); ok && f.StreamEnded() {
				c.answer(f.StreamID, "200")
			}
		}}
		p := newPlayed(t, pd, nil)
		upload := func(ctx context.Context, caller string, size int) proxy.Result {
			r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", bytes.NewReader(make([]byte, size)))
			return p.Forward(httptest.NewRecorder(), r, proxy.Call{Path: "/a", CallerID: caller})
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { upload(ctx, "a", 4<<20) })
		}
		synctest.Wait()
		if r := upload(t.Context(), "b", 40_000); r.Class != proxy.ClassOK { // more than A leaves of a window
			t.Errorf("result %+v", r)
		}
		if n := pd.dials.Load(); n < 2 || n > 3 { // A's ten may have asked for one more
			t.Errorf("%d dials", n)
		}
		cancel(errEnough)
		wg.Wait()
	})
}

// TestAudit_USE06_GivenUpCallsKeepNobodyOut has A give up calls whose handlers run
// on, on net/http's server, more of them than all connections have room for, and B
// call after that.
func TestAudit_USE06_GivenUpCallsKeepNobodyOut(t *testing.T) {
	t.Parallel()
	const perConn, most = 20, 8 * 20
	var begun, named atomic.Int64
	var waiting sync.Map // for the handlers of calls, by name
	stop := make(chan struct{})
	limited := newLimitedServer(t, perConn, func(w http.ResponseWriter, r *http.Request) {
		if leave, ok := waiting.Load(r.Header.Get("X-Stay")); ok {
			begun.Add(1)
			leave.(context.CancelFunc)()
			<-stop // whatever becomes of the call
		}
		readAllEcho(w, r)
	})
	g := newRig(t, rigConfig{handler: readAllEcho, config: func(c *proxy.Config) {
		c.Endpoint, c.TLS = endpointOf(t, limited.URL), &tls.Config{RootCAs: poolOf(limited)}
	}})
	t.Cleanup(func() { close(stop) })
	var wg sync.WaitGroup
	deadline := time.Now().Add(patience)
	for range perConn {
		wg.Go(func() {
			for begun.Load() < most && time.Now().Before(deadline) {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				name := fmt.Sprint(named.Add(1))
				waiting.Store(name, cancel)
				giveUp(ctx, t, g, name)
				cancel()
			}
		})
	}
	wg.Wait()
	if begun.Load() < most {
		t.Fatalf("%d calls began", begun.Load())
	}
	if _, got := g.post(t, unaryType, strings.NewReader("hello")); string(got) != "hello" {
		t.Errorf("body %q", got)
	}
	if n := g.conns.Load(); n > 2*proxy.DefaultMaxConns {
		t.Errorf("%d connections", n)
	}
}

// giveUp makes a call that its handler ends, by ending ctx, and runs on.
func giveUp(ctx context.Context, t *testing.T, g *rig, name string) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url("Call"), strings.NewReader("x"))
	if err != nil {
		t.Error(err)
		return
	}
	r.Header.Set("X-Stay", name)
	r.Header.Set("Content-Type", unaryType)
	if res, err := g.client.Do(r); err == nil {
		res.Body.Close()
	}
}

// TestAudit_ATK14_TheNextConnectionIsThere has others open calls and give calls up, and a provider to
// which a dial takes a second: B never waits for one.
func TestAudit_ATK14_TheNextConnectionIsThere(t *testing.T) {
	t.Parallel()
	for name, givenUp := range map[string]bool{"calls that stay": false, "calls that are given up": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				pd := &played{settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 16}}}
				pd.on = func(c *playedConn, f http2.Frame) {
					if h, ok := f.(*http2.HeadersFrame); ok && h.StreamEnded() && !pd.stays.Load() {
						c.answer(f.Header().StreamID, "200")
					}
				}
				p := newPlayed(t, pd, func(c *proxy.Config) {
					dial := c.Dial
					c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
						time.Sleep(time.Second)
						return dial(ctx, network, address)
					}
				})
				ask(t.Context(), p, proxy.Call{CallerID: "b"}) // dials
				ctx, cancel := context.WithCancelCause(t.Context())
				var wg sync.WaitGroup
				var ended []context.CancelCauseFunc
				for i := range 40 {
					own, stop := context.WithCancelCause(ctx)
					pd.stays.Store(true)
					wg.Go(func() { ask(own, p, proxy.Call{CallerID: "a" + string(rune('0'+i%3))}) }) // none has too many
					synctest.Wait()
					pd.stays.Store(false)
					if givenUp {
						stop(errEnough)
						synctest.Wait()
					}
					time.Sleep(300 * time.Millisecond)
					begun := time.Now()
					if r := ask(t.Context(), p, proxy.Call{CallerID: "b"}); r.Class != proxy.ClassOK || time.Since(begun) > 0 {
						t.Errorf("after %d of their calls: %v, after %v", i+1, r.Class, time.Since(begun))
					}
					ended = append(ended, stop)
				}
				cancel(errEnough)
				for _, stop := range ended {
					stop(nil)
				}
				wg.Wait()
			})
		})
	}
}

// TestAudit_USE06_ReplacementIsBounded gives up calls without end to a provider that
// takes one at a time.
func TestAudit_USE06_ReplacementIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pd := &played{settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1}}}
		p := newPlayed(t, pd, nil)
		for range 400 {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errEnough)
			if r := ask(ctx, p, proxy.Call{}); r.Class != proxy.ClassCanceled || r.Fault {
				t.Fatalf("result %+v", r)
			}
			cancel()
		}
		if n := pd.dials.Load(); n > 8 { // in 0.4 seconds
			t.Errorf("%d dials", n)
		}
	})
}

// TestAudit_USE46_WhoStatesATimeIsToldWithinIt has calls that state less time than the bound: whoever made
// them listens no longer.
func TestAudit_USE46_WhoStatesATimeIsToldWithinIt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, value string
		want        time.Duration
	}{
		{"Connect-Timeout-Ms", "1600", 1400 * time.Millisecond},
		{"Grpc-Timeout", "1600m", 1400 * time.Millisecond},
		{"Connect-Timeout-Ms", "8", 8 * time.Millisecond}, // or who asks again until it is over does so ever faster
	} {
		t.Run(tt.name+" "+tt.value, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				pd := &played{settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1}}}
				p := newPlayed(t, pd, func(c *proxy.Config) { c.MaxConns, c.RoomTimeout = 1, 7*time.Second })
				ctx, cancel := context.WithCancelCause(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() { ask(ctx, p, proxy.Call{}) })
				synctest.Wait()
				begun := time.Now()
				req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", http.NoBody)
				req.Header.Set("Content-Type", "application/proto")
				req.Header.Set(tt.name, tt.value)
				r := p.Forward(httptest.NewRecorder(), req, proxy.Call{Path: "/a"})
				if took := time.Since(begun); !errors.Is(r.Err, proxy.ErrBusy) || !r.Retryable || r.Sent || r.Fault || took != tt.want {
					t.Errorf("after %v: %+v", took, r)
				}
				cancel(errEnough)
				wg.Wait()
			})
		})
	}
}

package proxy_test

import (
	"context"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// askedStream is a request as the provider has it.
type askedStream struct {
	conn *playedConn
	id   uint32
}

// newAsked returns a provider that takes so many calls on a connection, over one connection, and
// answers none by itself; its requests come from the channel.
func newAsked(streams uint32) (*played, chan askedStream) {
	asked := make(chan askedStream, 8192)
	pd := &played{settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: streams}}}
	pd.on = func(c *playedConn, f http2.Frame) {
		if _, ok := f.(*http2.HeadersFrame); ok {
			asked <- askedStream{c, f.Header().StreamID}
		}
	}
	return pd, asked
}

// stuckWriter is a caller that does not take its answer until it is let.
type stuckWriter struct {
	*httptest.ResponseRecorder

	let chan struct{}
}

func (w *stuckWriter) WriteHeader(status int) {
	<-w.let
	w.ResponseRecorder.WriteHeader(status)
}

// TestAudit_USE03_AnswerThatNobodyTakesKeepsNobodyOut has the provider answer A, who does not take the
// answer: its stream has ended, and B, who waits for one, gets it.
func TestAudit_USE03_AnswerThatNobodyTakesKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pd, asked := newAsked(1)
		p := newPlayed(t, pd, func(c *proxy.Config) { c.MaxConns, c.RoomTimeout = 1, time.Hour })
		slow := &stuckWriter{httptest.NewRecorder(), make(chan struct{})}
		var wg sync.WaitGroup
		wg.Go(func() {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", http.NoBody)
			if r := p.Forward(slow, r, proxy.Call{Path: "/a", CallerID: "a"}); r.Class != proxy.ClassOK {
				t.Errorf("A: %+v", r)
			}
		})
		first := <-asked
		wg.Go(func() {
			if r := ask(t.Context(), p, proxy.Call{CallerID: "b"}); r.Class != proxy.ClassOK {
				t.Errorf("B: %+v", r)
			}
		})
		synctest.Wait()
		if len(asked) > 0 {
			t.Fatal("B has a stream where the provider takes one at a time")
		}
		first.conn.answer(first.id, "200")
		synctest.Wait()
		if len(asked) == 0 {
			t.Error("B waits for a stream that has ended")
		}
		close(slow.let)
		next := <-asked
		next.conn.answer(next.id, "200")
		wg.Wait()
	})
}

// TestAudit_USE46_CallThatIsSentAgainHoldsNothing has a provider leave that looked at none of A's calls,
// and come back with room for fewer: what is sent again waits for none of its own kind.
func TestAudit_USE46_CallThatIsSentAgainHoldsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const calls = 6 // three quarters of the streams at first, and more than there are later
		pd, asked := newAsked(8)
		p := newPlayed(t, pd, func(c *proxy.Config) { c.MaxConns, c.RoomTimeout = 1, time.Hour })
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		var wg sync.WaitGroup
		begun := time.Now()
		for range calls {
			wg.Go(func() {
				if r := ask(ctx, p, proxy.Call{CallerID: "a"}); r.Class != proxy.ClassOK || time.Since(begun) > time.Second {
					t.Errorf("%+v after %v", r, time.Since(begun))
				}
			})
		}
		synctest.Wait()
		if len(asked) != calls || pd.dials.Load() != 1 {
			t.Fatalf("%d calls of %d, %d connections", len(asked), calls, pd.dials.Load())
		}
		pd.settings = []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 2}}
		first := <-asked
		for range calls - 1 {
			<-asked
		}
		first.conn.locked(func() { _ = first.conn.WriteGoAway(0, http2.ErrCodeNo, nil) })
		for range calls {
			select {
			case next := <-asked:
				next.conn.answer(next.id, "200")
			case <-time.After(time.Minute):
				t.Error("those that are sent again wait for one another")
				cancel(errEnough)
			}
		}
		wg.Wait()
	})
}

// TestAudit_USE03_StreamsThatEndElsewhereBarNobody has a provider leave that still serves A's calls: over
// its next connection, which is empty, A has room as well.
func TestAudit_USE03_StreamsThatEndElsewhereBarNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const streams, most = 8, 6
		pd, asked := newAsked(streams)
		p := newPlayed(t, pd, func(c *proxy.Config) { c.MaxConns, c.RoomTimeout = 1, time.Hour })
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		for range most + 1 {
			wg.Go(func() { ask(ctx, p, proxy.Call{CallerID: "a"}) })
		}
		first := <-asked
		first.conn.answer(first.id, "200") // the connection is of use
		synctest.Wait()
		first.conn.locked(func() { _ = first.conn.WriteGoAway(math.MaxInt32, http2.ErrCodeNo, nil) })
		synctest.Wait()
		for len(asked) > 0 {
			<-asked
		}
		wg.Go(func() { ask(ctx, p, proxy.Call{CallerID: "a"}) })
		synctest.Wait()
		if n := pd.dials.Load(); len(asked) == 0 || n != 2 {
			t.Errorf("A waits beside an empty connection, or over the first: %d dials", n)
		}
		cancel(errEnough)
		wg.Wait()
	})
}

// crowd is many callers of a provider with little room, to whom everything happens in any order.
type crowd struct {
	t     *testing.T
	p     *proxy.Provider
	asked chan askedStream
	rand  *rand.Rand
	open  []askedStream
	ends  []context.CancelCauseFunc
	wg    sync.WaitGroup
	good  int
	mu    sync.Mutex
}

// step lets one thing happen, and everybody come to rest.
func (c *crowd) step() {
	for len(c.asked) > 0 {
		c.open = append(c.open, <-c.asked)
	}
	switch n := c.rand.IntN(20); {
	case n < 9:
		c.call()
	case n < 11 && len(c.ends) > 0:
		c.ends[c.rand.IntN(len(c.ends))](errEnough)
	case n == 11:
		time.Sleep(time.Duration(c.rand.IntN(300)) * time.Millisecond)
	case len(c.open) > 0:
		at := c.rand.IntN(len(c.open))
		s := c.open[at]
		c.open = append(c.open[:at], c.open[at+1:]...)
		c.end(s, n)
	}
	synctest.Wait()
}

func (c *crowd) call() {
	ctx, cancel := context.WithCancelCause(c.t.Context())
	c.ends = append(c.ends, cancel)
	how := proxy.Call{CallerID: string(rune('a' + c.rand.IntN(4)))}
	if c.rand.IntN(10) == 0 {
		how = proxy.Call{Urgent: true}
	}
	c.wg.Go(func() {
		if r := ask(ctx, c.p, how); r.Class == proxy.ClassOK {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.good++
		}
	})
}

// end ends a stream, in one way or another.
func (c *crowd) end(s askedStream, n int) {
	switch n {
	case 12:
		s.conn.locked(func() { _ = s.conn.WriteRSTStream(s.id, http2.ErrCodeRefusedStream) })
	case 13:
		s.conn.answer(s.id, "200")
		s.conn.locked(func() { _ = s.conn.WriteGoAway(s.id, http2.ErrCodeNo, nil) })
	case 14:
		s.conn.locked(func() {
			_ = s.conn.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: c.rand.Uint32N(4) + 1})
		})
		fallthrough
	default:
		s.conn.answer(s.id, "200")
	}
}

// TestAudit_USE46_NobodyWaitsBesideRoom has calls come, end, break and be given up, and connections
// come and go: whenever all rest, no call waits while there is a stream that its caller may have.
func TestAudit_USE46_NobodyWaitsBesideRoom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) {
			pd, asked := newAsked(3)
			p := newPlayed(t, pd, func(c *proxy.Config) { c.MaxConns, c.RoomTimeout, c.CallIdle = 2, 24*time.Hour, -1 })
			c := &crowd{t: t, p: p, asked: asked, rand: rand.New(rand.NewPCG(seed, 46))}
			for i := range 300 {
				c.step()
				if why := p.Stalled(); why != "" {
					t.Fatalf("seed %d, step %d: %s", seed, i, why)
				}
			}
			for _, end := range c.ends {
				end(errEnough)
			}
			c.wg.Wait()
			if n := p.Held(); n != 0 || c.good < 20 {
				t.Errorf("seed %d: %d streams counted where there is no call, %d calls answered", seed, n, c.good)
			}
		})
	}
}

// TestAudit_USE03_SecondUrgentCallGoesNext asks twice at once at a provider that is full of calls and takes one
// stream a connection: the second question goes when the first is answered.
func TestAudit_USE03_SecondUrgentCallGoesNext(t *testing.T) {
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

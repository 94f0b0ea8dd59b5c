package proxy_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// crowded is a provider that answers at once, or never, and where its calls were.
type crowded struct {
	*proxy.Provider
	*played

	keeps atomic.Bool // it answers nothing
	mu    sync.Mutex
	kept  map[int64]int // calls, by the number of the connection
	last  int64         // the connection of the last call
	conn  *playedConn   // as above
	calls sync.WaitGroup
}

func newCrowded(t *testing.T, change func(*proxy.Config)) *crowded {
	t.Helper()
	c := &crowded{played: &played{}, kept: make(map[int64]int)}
	c.on = func(conn *playedConn, f http2.Frame) {
		if _, ok := f.(*http2.HeadersFrame); !ok {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.last, c.conn = conn.dial, conn; c.keeps.Load() {
			c.kept[c.last]++
			return
		}
		go conn.answer(f.Header().StreamID, "200")
	}
	c.Provider = newPlayed(t, c.played, change)
	return c
}

// hold has a caller make so many calls that are not answered until ctx ends.
func (c *crowded) hold(ctx context.Context, caller string, n int) {
	c.holdAs(ctx, func(int) proxy.Call { return proxy.Call{CallerID: caller} }, n)
}

// holdAs does what hold does, for who makes the i-th of them.
func (c *crowded) holdAs(ctx context.Context, caller func(i int) proxy.Call, n int) {
	c.keeps.Store(true)
	for i := range n {
		c.calls.Go(func() { ask(ctx, c.Provider, caller(i)) })
	}
	synctest.Wait()
	c.keeps.Store(false)
}

// one has a caller make a call that is answered, and returns on which connection and after how long.
func (c *crowded) one(t *testing.T, caller string) (conn int64, took time.Duration) {
	t.Helper()
	begun := time.Now()
	if r := ask(t.Context(), c.Provider, proxy.Call{CallerID: caller}); r.Class != proxy.ClassOK {
		t.Errorf("%s: %+v", caller, r)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, time.Since(begun)
}

// keptOn is how many calls are held on a connection, on all of them for zero.
func (c *crowded) keptOn(conn int64) (sum int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at, n := range c.kept {
		if conn == 0 || at == conn {
			sum += n
		}
	}
	return sum
}

// A caller with many calls at once has connections of its own: what is moved for it stands in front of nobody else's
// answers. That holds whoever came first, and nobody waits for it but the crowd, for a moment.
func TestAudit_ATK14_ACrowdHasConnectionsOfItsOwn(t *testing.T) {
	t.Parallel()
	for who, mine := range callersOfA {
		for name, first := range map[string]bool{"others were there": true, "others come": false} {
			t.Run(who+", "+name, func(t *testing.T) {
				t.Parallel()
				aCrowdHasItsOwn(t, mine, first)
			})
		}
	}
}

func aCrowdHasItsOwn(t *testing.T, mine func(i int) proxy.Call, first bool) {
	t.Helper()
	const crowd, few = 100, 8
	synctest.Test(t, func(t *testing.T) {
		c := newCrowded(t, nil)
		ctx, cancel := context.WithCancelCause(t.Context())
		if first {
			c.one(t, "b")
		}
		c.holdAs(ctx, mine, crowd)
		c.one(t, "b") // has another one dialled where there is none
		synctest.Wait()
		for _, caller := range []string{"b", "c"} {
			if at, took := c.one(t, caller); c.keptOn(at) > few || took > 0 {
				t.Errorf("%s's call is among %d of a crowd's, and took %v", caller, c.keptOn(at), took)
			}
		}
		if n := c.keptOn(0); n != crowd {
			t.Errorf("%d of %d calls of the crowd came", n, crowd)
		}
		cancel(errEnough)
		c.calls.Wait()
		synctest.Wait()
		time.Sleep(2 * time.Second)
		if at, _ := c.one(t, "b"); at != 1 {
			t.Errorf("a call goes over connection %d when the crowd has gone", at)
		}
	})
}

// Who is alone with its calls, however many, needs no connection more for that; and one is that of others for a
// second after their last call only.
func TestAudit_ATK14_ACrowdAloneSharesWithNobody(t *testing.T) {
	t.Parallel()
	for name, other := range map[string]bool{"nobody else": false, "somebody else, long ago": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCrowded(t, nil)
				ctx, cancel := context.WithCancelCause(t.Context())
				if other {
					c.one(t, "b")
					time.Sleep(time.Second)
				}
				c.hold(ctx, "a", 100)
				if n := c.dials.Load(); n != 1 {
					t.Errorf("%d connections", n)
				}
				cancel(errEnough)
				c.calls.Wait()
			})
		})
	}
}

// firstOnly has no dial but the first come to an end.
func firstOnly(cfg *proxy.Config) {
	var dials atomic.Int32
	dial := cfg.Dial
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if dials.Add(1) == 1 {
			return dial(ctx, network, address)
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
}

// Where no other connection comes, a crowd waits for it for a moment and then goes on with what there is; others
// do not wait at all.
func TestAudit_ATK14_ACrowdWaitsNotForLong(t *testing.T) {
	t.Parallel()
	const moment = 100 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		c := newCrowded(t, firstOnly)
		c.one(t, "b")
		ctx, cancel := context.WithCancelCause(t.Context())
		c.hold(ctx, "a", 30)
		if n := c.keptOn(1); n != 8 {
			t.Errorf("%d calls of the crowd go on at once beside somebody else", n)
		}
		if _, took := c.one(t, "b"); took > 0 {
			t.Errorf("somebody else waits %v", took)
		}
		c.keeps.Store(true)
		time.Sleep(moment + time.Millisecond)
		synctest.Wait()
		c.keeps.Store(false)
		if n := c.keptOn(1); n != 30 {
			t.Errorf("%d calls of the crowd go on after %v", n, moment)
		}
		cancel(errEnough)
		c.calls.Wait()
	})
	synctest.Test(t, func(t *testing.T) {
		c := newCrowded(t, firstOnly)
		ctx, cancel := context.WithCancelCause(t.Context())
		c.hold(ctx, "a", 30)
		if _, took := c.one(t, "b"); took > 0 {
			t.Errorf("who comes to a crowd waits %v", took)
		}
		cancel(errEnough)
		c.calls.Wait()
	})
}

// A provider that takes one connection is not dialled again and again for another one, however much it answers on that
// which it has; the log says so, less and less often.
func TestAudit_ATK14_AConnectionMoreIsTriedLessAndLess(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]func(context.Context) (net.Conn, error){
		"refused": func(context.Context) (net.Conn, error) { return nil, errEnough },
		"closed": func(context.Context) (net.Conn, error) {
			near, far := net.Pipe()
			_ = far.Close()
			return near, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log lockedBuffer
				var dials atomic.Int32
				c := newCrowded(t, func(cfg *proxy.Config) {
					dial := cfg.Dial
					cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
					cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
						if dials.Add(1) == 1 {
							return dial(ctx, network, address)
						}
						return fails(ctx)
					}
				})
				ctx, cancel := context.WithCancelCause(t.Context())
				c.hold(ctx, "a", 30)
				for range 10_000 { // ten seconds
					c.one(t, "b")
					time.Sleep(time.Millisecond)
				}
				if n := dials.Load(); n < 3 || n > 12 {
					t.Errorf("dialled %d times", n)
				}
				if n := strings.Count(log.String(), "one more connection"); n < 2 || n > 5 {
					t.Errorf("%d lines: %s", n, log.String())
				}
				cancel(errEnough)
				c.calls.Wait()
			})
		})
	}
}

// Where a connection is lost while another one is dialled that comes to nothing, a third one is dialled at once.
func TestAudit_USE43_ALostConnectionWaitsForNoSpareOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int32
		c := newCrowded(t, func(cfg *proxy.Config) {
			dial := cfg.Dial
			cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				if dials.Add(1) == 2 {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return dial(ctx, network, address)
			}
		})
		c.hold(t.Context(), "a", 30)
		c.one(t, "b") // has another one dialled
		c.mu.Lock()
		_ = c.conn.nc.Close()
		c.mu.Unlock()
		c.calls.Wait()
		if at, took := c.one(t, "b"); at != 2 || took > 100*time.Millisecond {
			t.Errorf("a call goes over connection %d after %v", at, took)
		}
		if n := dials.Load(); n != 3 {
			t.Errorf("%d dials", n)
		}
	})
}

package catalog_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

func TestChangesOfOtherTypesWakeNobody(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		c := offers(t, catalog.Config{})

		const watchers = 200

		var mu sync.Mutex

		woken := map[string]int{}

		for i := range watchers {
			serviceType := []string{"log", "mail"}[i%2]
			w := watch(t, c, catalog.WatchRequest{Type: serviceType})

			go func() {
				for {
					if _, err := w.Next(t.Context()); err != nil {
						return
					}

					mu.Lock()
					woken[serviceType]++
					mu.Unlock()
				}
			}()
		}

		synctest.Wait()
		clear(woken)
		register(t, c, reg("a", "log", "1.0.0"))
		synctest.Wait()

		if woken["log"] != watchers/2 || woken["mail"] != 0 {
			t.Errorf("woken %v", woken)
		}

		c.CloseWatches()
		synctest.Wait()
	})
}

// A thousand consumers are cut and come back at random while the state changes;
// each ends with the right state, and has seen the numbers in order.
func TestThousandCutWatchersConverge(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		const (
			consumers = 1000
			types     = 7
		)

		c := offers(t, catalog.Config{RingSize: 8})
		random := rand.New(rand.NewPCG(9, 9))
		name := func(i int) string { return fmt.Sprint("type", i%types) }
		last := make([]catalog.Event, consumers)
		ctx, stop := context.WithCancel(t.Context())

		var done sync.WaitGroup

		for i := range consumers {
			seed := random.Uint64()

			done.Go(func() { last[i] = consume(ctx, t, c, name(i), seed) })
		}

		for range 250 {
			r, s := fmt.Sprint("r", random.IntN(20)), random.IntN(types)

			switch random.IntN(6) {
			case 0, 1, 2:
				register(t, c, reg(r, name(s), "1.0.0"))
			case 3:
				setHealth(c, r, catalog.Health(random.IntN(4)))
			case 4:
				_ = c.Unregister(r+"/"+name(s), r)
			case 5:
				c.RemoveRuntime(r)
			}

			pause(t.Context(), time.Duration(random.IntN(20))*time.Millisecond)
		}

		pause(t.Context(), 10*time.Second)
		stop()
		done.Wait()

		for i := range consumers {
			w := watch(t, c, catalog.WatchRequest{Type: name(i)})
			if now := next(t, w); short(last[i]) != short(now) && !last[i].Resync || last[i].Provider.ID != now.Provider.ID || last[i].State != now.State {
				t.Errorf("consumer %d ends with %s, want %s", i, short(last[i]), short(now))
			}

			w.Close()
		}

		if got := c.Watches(); got != 0 {
			t.Errorf("%d watches are left", got)
		}
	})
}

// pause waits in a bubble. It does not use the channel of a timer: in Go 1.26 the
// race detector crashes when many goroutines of a bubble do.
func pause(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()

	<-ctx.Done()
}

// consume follows a type through random cuts and pauses and returns what it saw
// last.
func consume(ctx context.Context, t *testing.T, c *catalog.Catalog, serviceType string, seed uint64) catalog.Event {
	t.Helper()

	random := rand.New(rand.NewPCG(seed, 1))

	var last catalog.Event

	for ctx.Err() == nil {
		w, err := c.Watch(catalog.WatchRequest{Type: serviceType, ResumeAfter: last.Sequence, Epoch: last.Epoch})
		if err != nil {
			t.Error(err)

			return last
		}

		// The cut comes at any moment; after the changes there is one more.
		cut, cancel := context.WithTimeout(ctx, time.Duration(random.IntN(3000))*time.Millisecond)

		for {
			event, err := w.Next(cut)
			if err != nil {
				break
			}

			if last.Epoch == event.Epoch && event.Sequence != last.Sequence+event.Missed+1 {
				t.Errorf("%s after %s", short(event), short(last))
			}

			last = event

			pause(ctx, time.Duration(random.IntN(100))*time.Millisecond)
		}

		cancel()
		w.Close()
	}

	return last
}

// Everything at once, for the race detector.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{RingSize: 4, History: 1, Observe: func(catalog.Change) {}})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)

	defer cancel()

	var done sync.WaitGroup

	run := func(seed uint64, do func(random *rand.Rand)) {
		done.Go(func() {
			for random := rand.New(rand.NewPCG(seed, 2)); ctx.Err() == nil; {
				do(random)
			}
		})
	}
	names := []string{"log", "mail", "cache"}
	pick := func(random *rand.Rand) (string, string) {
		return fmt.Sprint("r", random.IntN(5)), names[random.IntN(len(names))]
	}

	for seed := range uint64(2) {
		run(seed, func(random *rand.Rand) {
			r, s := pick(random)
			_ = c.Register(reg(r, s, fmt.Sprintf("1.%d.0", random.IntN(3))))
			c.SetEndpoint(r, s)
		})
		run(seed, func(random *rand.Rand) {
			r, s := pick(random)
			_ = c.Unregister(r+"/"+s, r)
			setHealth(c, r, catalog.Health(random.IntN(4)))
		})
		run(seed, func(random *rand.Rand) {
			r, s := pick(random)
			_, _, _ = c.Select(s, catalog.Constraint{})
			c.Report(s, r, false, 0)
			c.SetStrategy(s, catalog.Strategy(random.IntN(4)))
			c.Has(s, catalog.Constraint{})
			c.Stats()
			c.ByType(s)
			c.ByRuntime(r)
			c.Endpoint(r)
		})
		run(seed, func(random *rand.Rand) {
			r, s := pick(random)

			w, err := c.Watch(catalog.WatchRequest{Type: s, RuntimeID: r})
			if err != nil {
				t.Error(err)

				return
			}

			cut, cancel := context.WithTimeout(ctx, time.Duration(random.IntN(1000))*time.Microsecond)
			defer cancel()

			for err == nil {
				_, err = w.Next(cut)
			}

			w.Close()
		})
	}

	run(5, func(random *rand.Rand) {
		r, s := pick(random)
		c.RemoveRuntime(r)
		c.RemoveWhere(func(reg catalog.Registration) bool { return reg.Type == s })
		c.EndWatches(func(serviceType, _ string) bool { return serviceType == s })
	})
	done.Wait()

	for i := range 5 {
		c.RemoveRuntime(fmt.Sprint("r", i))
	}

	if got := c.Stats(); got.Registrations+got.Types+got.Runtimes+got.Watches != 0 {
		t.Errorf("left behind: %+v", got)
	}
}

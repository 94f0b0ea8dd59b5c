package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

func TestAudit_H40_H41_EveryChangeNotifies(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		c := offers(t, catalog.Config{})
		w := watch(t, c, catalog.WatchRequest{Type: "log"})

		if got := short(next(t, w)); got != "0 unavailable " {
			t.Errorf("the first event is %q", got)
		}

		steps := []struct {
			name string
			do   func()
			want string // nothing if there is no event
		}{
			{"register", func() { register(t, c, reg("a", "log", "1.0.0")) }, "1 available a"},
			{"another provider", func() { register(t, c, reg("b", "log", "1.0.0")) }, "2 available a"},
			{"another type", func() { register(t, c, reg("a", "mail", "1.0.0")) }, ""},
			{"healthy instead of unknown", func() { setHealth(c, "b", catalog.HealthHealthy) }, ""},
			{"the other one degraded", func() { setHealth(c, "b", catalog.HealthDegraded) }, "3 available a"},
			{"the same again", func() { setHealth(c, "b", catalog.HealthDegraded) }, ""},
			{"the used one unhealthy", func() { setHealth(c, "a", catalog.HealthUnhealthy) }, "4 degraded b"},
			{"somebody else's health", func() { setHealth(c, "x", catalog.HealthUnhealthy) }, ""},
			{"all unhealthy", func() { setHealth(c, "b", catalog.HealthUnhealthy) }, "5 unavailable "},
			{"an unhealthy one registers", func() {
				setHealth(c, "u", catalog.HealthUnhealthy)
				register(t, c, reg("u", "log", "1.0.0"))
			}, ""},
			{"and leaves", func() { c.RemoveRuntime("u") }, ""},
			{"healthy again", func() { setHealth(c, "a", catalog.HealthHealthy) }, "6 available a"},
			{"replaced", func() { register(t, c, reg("a", "log", "1.0.0")) }, "7 available a"},
			{"an endpoint", func() { c.SetEndpoint("a", "https://127.0.0.1:1") }, ""},
			{"a strategy", func() { c.SetStrategy("log", catalog.StrategyWeighted) }, ""},
			{"unregister", func() { unregister(t, c, "a/log") }, "8 unavailable "},
			{"health of somebody without a registration", func() { setHealth(c, "a", catalog.HealthDegraded) }, ""},
			{"degraded when it registers", func() { register(t, c, reg("a", "log", "1.0.0")) }, "9 degraded a"},
			{"the runtime removed", func() { c.RemoveRuntime("a") }, "10 unavailable "},
			{"two as one change", func() {
				register(t, c, reg("c", "log", "1.0.0"), reg("d", "log", "1.0.0"))

				if next(t, w).Sequence != 11 || next(t, w).Sequence != 12 {
					t.Error("two registrations are two events")
				}

				c.RemoveWhere(func(r catalog.Registration) bool { return r.Type == "log" })
			}, "13 unavailable "},
		}

		for _, step := range steps {
			step.do()

			if step.want == "" {
				silent(t, w)
			} else if got := short(next(t, w)); got != step.want {
				t.Errorf("%s: %q, want %q", step.name, got, step.want)
			}
		}
	})
}

// Next waits, and a change wakes it.
func TestNextWaits(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		c := offers(t, catalog.Config{})
		w := watch(t, c, catalog.WatchRequest{Type: "log"})
		next(t, w)

		var got string

		go func() { got = short(next(t, w)) }()

		synctest.Wait()

		if got != "" {
			t.Fatalf("did not wait: %s", got)
		}

		register(t, c, reg("a", "log", "1.0.0"))
		synctest.Wait()

		if got != "1 available a" {
			t.Errorf("woken with %q", got)
		}
	})
}

func TestNextEnds(t *testing.T) {
	t.Parallel()

	for name, end := range map[string]func(*catalog.Catalog, *catalog.Watcher, func()){
		"close":          func(_ *catalog.Catalog, w *catalog.Watcher, _ func()) { w.Close() },
		"close watches":  func(c *catalog.Catalog, _ *catalog.Watcher, _ func()) { c.CloseWatches() },
		"remove runtime": func(c *catalog.Catalog, _ *catalog.Watcher, _ func()) { c.RemoveRuntime("r") },
		"end watches": func(c *catalog.Catalog, _ *catalog.Watcher, _ func()) {
			if n := c.EndWatches(func(serviceType, runtime string) bool { return serviceType == "log" && runtime == "r" }); n != 1 {
				panic(n)
			}
		},
		"context": func(_ *catalog.Catalog, _ *catalog.Watcher, cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				c := offers(t, catalog.Config{})
				w := watch(t, c, catalog.WatchRequest{Type: "log", RuntimeID: "r"})
				next(t, w)

				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()

				var err error

				go func() { _, err = w.Next(ctx) }()

				synctest.Wait()
				end(c, w, cancel)
				synctest.Wait()

				want := catalog.ErrClosed
				if name == "context" {
					want = context.Canceled
				}

				if !errors.Is(err, want) {
					t.Errorf("error %v, want %v", err, want)
				}

				w.Close()
				w.Close()

				if _, err := w.Next(t.Context()); !errors.Is(err, catalog.ErrClosed) {
					t.Errorf("after Close: %v", err)
				}

				if got := c.Stats(); got != (catalog.Stats{}) {
					t.Errorf("left behind: %+v", got)
				}
			})
		})
	}
}

func TestAudit_H46_ClosedCatalogueTakesNoWatches(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	c.CloseWatches()
	c.CloseWatches()

	if _, err := c.Watch(catalog.WatchRequest{Type: "log"}); !errors.Is(err, catalog.ErrClosed) {
		t.Errorf("error %v", err)
	}

	if c.Stats() != (catalog.Stats{}) {
		t.Errorf("left behind: %+v", c.Stats())
	}
}

func TestWatchLimits(t *testing.T) {
	t.Parallel()

	c := catalog.New(catalog.Config{MaxWatches: 4, MaxWatchesPerRuntime: 2})
	open := func(runtime string) (*catalog.Watcher, error) {
		return c.Watch(catalog.WatchRequest{Type: fmt.Sprint("t", c.Watches()), RuntimeID: runtime})
	}

	first, err := open("r")
	if err != nil {
		t.Fatal(err)
	}

	for _, step := range []struct {
		runtime string
		want    error
	}{{"r", nil}, {"r", catalog.ErrLimit}, {"", nil}, {"", nil}, {"", catalog.ErrLimit}, {"s", catalog.ErrLimit}} {
		if _, err := open(step.runtime); !errors.Is(err, step.want) {
			t.Errorf("%q: %v, want %v", step.runtime, err, step.want)
		}
	}

	if got := c.Stats(); got.Watches != 4 || got.Types != 4 || got.Runtimes != 1 {
		t.Errorf("a refused watch left something: %+v", got)
	}

	first.Close()

	if _, err := open("r"); err != nil {
		t.Errorf("after one closed: %v", err)
	}
}

func TestAudit_H43_ClosedWatchesLeaveNothing(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	register(t, c, reg("a", "known", "1.0.0"))

	before := c.Stats()

	for i := range 20 {
		for _, serviceType := range []string{"known", fmt.Sprint("unknown", i)} {
			w := watch(t, c, catalog.WatchRequest{Type: serviceType, RuntimeID: fmt.Sprint("r", i)})
			next(t, w)
			w.Close()
		}
	}

	if got := c.Stats(); got != before {
		t.Errorf("left behind: %+v, before %+v", got, before)
	}
}

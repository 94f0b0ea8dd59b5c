package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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

func TestAudit_REG10_StalledWatcher(t *testing.T) {
	t.Parallel()

	var behind []catalog.Change

	c := offers(t, catalog.Config{RingSize: 32, Observe: func(change catalog.Change) {
		if change.Kind == catalog.ChangeWatcherBehind {
			behind = append(behind, change)
		}
	}})
	register(t, c, reg("a", "log", "1.0.0"))

	stalled := watch(t, c, catalog.WatchRequest{Type: "log", RuntimeID: "slow"})
	before := next(t, stalled)

	var early, late runtime.MemStats

	flap := func(n int) {
		for range n {
			setHealth(c, "a", catalog.HealthUnhealthy)
			register(t, c, reg("b", "log", "1.0.0"))
			setHealth(c, "a", catalog.HealthHealthy)
			unregister(t, c, "b/log")
		}
	}

	flap(1000)
	runtime.GC()
	runtime.ReadMemStats(&early)
	flap(1500)
	runtime.GC()
	runtime.ReadMemStats(&late)

	if grown := int64(late.HeapAlloc) - int64(early.HeapAlloc); grown > 1<<20 {
		t.Errorf("a stalled watcher grows the heap by %d bytes", grown)
	}

	got := next(t, stalled)
	if got.Missed != 10_000-1 || !got.Resync || got.Sequence != before.Sequence+10_000 || got.Epoch != before.Epoch ||
		got.State != catalog.StateAvailable || got.Provider.RuntimeID != "a" {
		t.Errorf("after 10000 events: %+v", got)
	}

	want := catalog.Change{Kind: catalog.ChangeWatcherBehind, Type: "log", RuntimeID: "slow", Missed: 9999}
	if c.Slow() != 1 || len(behind) != 1 || behind[0] != want {
		t.Errorf("observed %d, %+v", c.Slow(), behind)
	}

	// It is up to date now, and follows.
	register(t, c, reg("b", "log", "1.0.0"))

	if after := next(t, stalled); after.Resync || after.Sequence != got.Sequence+1 {
		t.Errorf("the next one: %+v", after)
	}
}

// What comes and goes leaves no metadata behind in the ring.
func TestRingKeepsNoMetadataOfTheGone(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	w := watch(t, c, catalog.WatchRequest{Type: "log"})
	next(t, w)

	r := reg("a", "log", "1.0.0")
	r.Metadata = map[string]string{"k": "v"}
	register(t, c, r)

	r.Path = "/renewed"
	register(t, c, r)

	r.Version = "2.0.0"
	register(t, c, r, reg("b", "log", "1.0.0"))

	for _, want := range []int{0, 0, 1, 1} {
		if got := next(t, w); len(got.Provider.Metadata) != want || got.Provider.RuntimeID != "a" {
			t.Errorf("event %+v, want %d metadata", got, want)
		}
	}

	unregister(t, c, "a/log")

	if got := next(t, w); got.Provider.RuntimeID != "b" {
		t.Errorf("event %+v", got)
	}

	again := watch(t, c, catalog.WatchRequest{Type: "log", ResumeAfter: 3, Epoch: next(t, watch(t, c, catalog.WatchRequest{Type: "log"})).Epoch})
	if got := next(t, again); got.Sequence != 4 || got.Provider.RuntimeID != "a" || got.Provider.Metadata != nil {
		t.Errorf("overtaken event %+v", got)
	}
}

// Up to the size of the ring nothing is lost; one more, and the reader is told.
func TestRingBoundary(t *testing.T) {
	t.Parallel()

	for _, ring := range []int{1, 2, 7} {
		for events := range 2*ring + 2 {
			c := offers(t, catalog.Config{RingSize: ring})
			w := watch(t, c, catalog.WatchRequest{Type: "log"})
			next(t, w)

			for i := range events {
				register(t, c, reg(fmt.Sprint(i), "log", "1.0.0"))
			}

			got := 0

			for last := uint64(0); last < uint64(events); {
				event := next(t, w)
				if event.Sequence != last+event.Missed+1 || event.Resync != (events > ring) || event.Resync != (event.Missed > 0) && ring > 1 {
					t.Errorf("ring %d, %d events: %+v after %d", ring, events, event, last)
				}

				last = event.Sequence
				got++
			}

			if want := events; events > ring && got != 1 || events <= ring && got != want {
				t.Errorf("ring %d, %d events: read %d", ring, events, got)
			}
		}
	}
}

func TestResume(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		c := offers(t, catalog.Config{RingSize: 3})
		epoch := next(t, watch(t, c, catalog.WatchRequest{Type: "log"})).Epoch

		for i := range 5 {
			register(t, c, reg(fmt.Sprint(i), "log", "1.0.0"))
		}

		tests := []struct {
			name  string
			after uint64
			epoch string
			want  []string
		}{
			{"a new consumer", 0, "", []string{"5 available 0"}},
			{"nothing missed", 5, epoch, nil},
			{"one missed", 4, epoch, []string{"5 available 0"}},
			{"as much as the ring holds", 2, epoch, []string{"3 available 0", "4 available 0", "5 available 0"}},
			{"one more", 1, epoch, []string{"5 available 0 resync 3"}},
			{"from the beginning", 0, epoch, []string{"5 available 0 resync 4"}},
			{"another epoch", 5, "other", []string{"5 available 0 resync 0"}},
			{"another epoch from the beginning", 0, "other", []string{"5 available 0 resync 0"}},
			{"no epoch", 4, "", []string{"5 available 0 resync 0"}},
			{"the future", 6, epoch, []string{"5 available 0 resync 0"}},
			{"the far future", 1<<64 - 1, epoch, []string{"5 available 0 resync 0"}},
		}

		for _, tt := range tests {
			w := watch(t, c, catalog.WatchRequest{Type: "log", ResumeAfter: tt.after, Epoch: tt.epoch})

			var got []string
			for range tt.want {
				got = append(got, short(next(t, w)))
			}

			silent(t, w)
			w.Close()

			if strings.Join(got, ", ") != strings.Join(tt.want, ", ") {
				t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
			}
		}
	})
}

// A type that vanished while nobody watched is resumed as long as it is
// remembered; afterwards its numbers belong to another epoch.
func TestResumeAfterTheTypeWasGone(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		c := offers(t, catalog.Config{History: 2})
		cycle := func(serviceType string) {
			register(t, c, reg("a", serviceType, "1.0.0"))
			unregister(t, c, "a/"+serviceType)
		}
		see := func(serviceType string) catalog.Event {
			w := watch(t, c, catalog.WatchRequest{Type: serviceType})
			defer w.Close()

			return next(t, w)
		}
		resume := func(seen catalog.Event) *catalog.Watcher {
			return watch(t, c, catalog.WatchRequest{Type: seen.Type, ResumeAfter: seen.Sequence, Epoch: seen.Epoch})
		}

		never := see("never")
		cycle("log")

		log := see("log")
		if short(log) != "2 unavailable " || c.Stats().Types != 0 || c.Stats().Remembered != 1 {
			t.Fatalf("%s, %+v", short(log), c.Stats())
		}

		// Remembered, and more happens.
		cycle("mail")
		cycle("log")

		w := resume(log)
		if got := short(next(t, w)) + short(next(t, w)); got != "3 available a4 unavailable " {
			t.Errorf("remembered: %s", got)
		}

		silent(t, w)
		w.Close()

		if got := short(see("mail")); got != "2 unavailable " {
			t.Errorf("mail: %s", got)
		}

		// Two others push it out.
		log = see("log")
		cycle("x")
		cycle("y")

		if c.Stats().Remembered != 2 {
			t.Errorf("%+v", c.Stats())
		}

		w = resume(log)
		if got := next(t, w); short(got) != "0 unavailable  resync 0" || got.Epoch == log.Epoch {
			t.Errorf("forgotten: %+v, before %+v", got, log)
		}

		silent(t, w)
		w.Close()

		// Even at the same number the old epoch does not count.
		cycle("log")
		register(t, c, reg("a", "log", "1.0.0"))

		if got := short(next(t, resume(log))); got != "3 available a resync 0" {
			t.Errorf("forgotten and repeated: %s", got)
		}

		// What never had an event cannot have missed one, but nobody knows any more.
		if got := short(next(t, resume(never))); got != "0 unavailable  resync 0" {
			t.Errorf("never: %s", got)
		}
	})
}

func TestEpochsDiffer(t *testing.T) {
	t.Parallel()

	epochs := map[string]bool{}

	for range 10 {
		c := offers(t, catalog.Config{})
		epochs[next(t, watch(t, c, catalog.WatchRequest{Type: "log"})).Epoch] = true
	}

	if len(epochs) != 10 || epochs[""] {
		t.Errorf("epochs %v", epochs)
	}
}

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

		for range 2000 {
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

			<-time.After(time.Duration(random.IntN(10)) * time.Millisecond)
		}

		<-time.After(10 * time.Second)
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

			<-time.After(time.Duration(random.IntN(100)) * time.Millisecond)
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

func TestObserve(t *testing.T) {
	t.Parallel()

	var (
		c       *catalog.Catalog
		changes []catalog.Change
	)

	c = catalog.New(catalog.Config{Observe: func(change catalog.Change) {
		// It is called outside the locks.
		c.SetEndpoint("observer", "x")

		changes = append(changes, change)
	}})

	check := func(what string, want ...catalog.Change) {
		t.Helper()

		if fmt.Sprint(changes) != fmt.Sprint(want) {
			t.Errorf("%s: %+v, want %+v", what, changes, want)
		}

		changes = nil
	}

	a := catalog.Change{Kind: catalog.ChangeRegistered, Type: "log", RegistrationID: "a/log", RuntimeID: "a", SelfID: "self"}

	register(t, c, reg("a", "log", "1.0.0"))
	check("register", a)

	register(t, c, reg("a", "log", "1.0.0"))

	a.Kind = catalog.ChangeReplaced
	check("replace", a)

	stranger := reg("b", "log", "1.0.0")
	stranger.SelfID = "stranger"
	_ = c.Register(stranger)
	check("conflict", catalog.Change{
		Kind: catalog.ChangeConflict, Type: "log", RegistrationID: "b/log", RuntimeID: "b", SelfID: "stranger", Owner: "self",
	})

	setHealth(c, "a", catalog.HealthDegraded)
	setHealth(c, "a", catalog.HealthDegraded)
	check("health", catalog.Change{Kind: catalog.ChangeHealth, RuntimeID: "a", Health: catalog.HealthDegraded})

	unregister(t, c, "a/log")

	a.Kind, a.Health = catalog.ChangeUnregistered, catalog.HealthDegraded
	check("unregister", a)
}

package catalog_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

// It measures the heap, so no other test runs beside it.
func TestAudit_REG10_StalledWatcher(t *testing.T) {
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

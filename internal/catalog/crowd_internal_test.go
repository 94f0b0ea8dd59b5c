package catalog

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
)

// crowded has so many watchers of a type.
func crowded(t *testing.T, n int) (*Catalog, []*Watcher) {
	t.Helper()

	c := New(Config{MaxWatches: -1})
	all := make([]*Watcher, n)

	for i := range all {
		w, err := c.Watch(WatchRequest{Type: "log"})
		if err != nil {
			t.Fatal(err)
		}

		all[i] = w
	}

	return c, all
}

// Whoever makes a change wakes a few watchers himself, and finds somebody for a crowd, once.
func TestCrowd_IsSummonedByOne(t *testing.T) {
	t.Parallel()

	c, few := crowded(t, wakeBatch)
	if crowd, summons := few[0].service.feed.crowd(); crowd || summons {
		t.Errorf("%d are a crowd", wakeBatch)
	}

	c.CloseWatches()

	_, many := crowded(t, 3*wakeBatch+1)
	f := many[0].service.feed

	for i, want := range []bool{true, false, false} {
		if crowd, summons := f.crowd(); !crowd || summons != want {
			t.Errorf("change %d: %t, %t", i, crowd, summons)
		}
	}

	between := 0
	f.wakeAll(func() { between++ })

	if between != 3 {
		t.Errorf("others had their turn %d times", between)
	}

	for i, w := range many {
		select {
		case <-w.wake:
		default:
			t.Errorf("watcher %d sleeps", i)
		}
	}

	f.summon()

	if _, summons := f.crowd(); !summons {
		t.Error("nobody is found for a later change")
	}
}

// Every watcher of a crowd is told of every change, and the end waits for nobody.
func TestCrowd_EverybodyIsTold(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		const changes = 5

		c, all := crowded(t, 10*wakeBatch)
		told := make([]int, len(all))

		for i, w := range all {
			go func() {
				for {
					if _, err := w.Next(context.Background()); err != nil {
						return
					}

					told[i]++
				}
			}()
		}

		synctest.Wait()

		for i := range changes {
			if err := c.Register(Registration{ID: strconv.Itoa(i), RuntimeID: strconv.Itoa(i), SelfID: "self", Type: "log"}); err != nil {
				t.Fatal(err)
			}
		}

		synctest.Wait()

		for i, n := range told {
			if n != changes+1 {
				t.Errorf("watcher %d: told %d times, want %d", i, n, changes+1)
			}
		}

		c.CloseWatches()
		synctest.Wait()

		if err := c.Register(Registration{ID: "late", RuntimeID: "late", SelfID: "self", Type: "log"}); err != nil {
			t.Error(err)
		}
	})
}

// When the host shuts down whoever makes a change wakes a crowd himself, each time: nobody is begun who would
// have to be waited for, and nobody sleeps on.
func TestCrowd_WhenTheHostShutsDown(t *testing.T) {
	t.Parallel()

	c, all := crowded(t, 3*wakeBatch)
	f := all[0].service.feed

	for _, closed := range []bool{false, true, true} {
		tr := transition{c: c}

		c.mu.Lock()
		c.closed = closed
		tr.wakeLocked(f)
		c.mu.Unlock()

		if closed != (len(tr.feeds) == 1) || closed == (len(tr.crowds) == 1) {
			t.Errorf("closed: %t; %d are woken at once, %d by a goroutine", closed, len(tr.feeds), len(tr.crowds))
		}

		for range tr.crowds {
			f.summon()
			c.summoning.Done()
		}
	}
}

package catalog_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

// fail reports n failures.
func fail(c *catalog.Catalog, runtime string, n int) {
	for range n {
		c.Report("log", runtime, false, 0)
	}
}

func TestOutlierIsSetAsideForAGrowingWhile(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		c := offers(t, catalog.Config{})
		register(t, c, reg("a", "log", "1.0.0"), reg("b", "log", "1.0.0"))

		want := []time.Duration{
			10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second,
			5 * time.Minute, 5 * time.Minute,
		}

		aside := func() time.Duration {
			fail(c, "a", 4)

			if selected(t, c, "log", "") != "a" {
				t.Error("four failures are enough")
			}

			fail(c, "a", 1)

			since := time.Now()
			for selected(t, c, "log", "") == "b" && time.Since(since) < time.Hour {
				<-time.After(time.Second)
			}

			return time.Since(since)
		}

		for i, d := range want {
			if got := aside(); got != d {
				t.Errorf("time %d it is set aside for %v, want %v", i+1, got, d)
			}

			// A success in between makes it no better by itself.
			c.Report("log", "a", true, time.Millisecond)
		}

		<-time.After(5 * time.Minute)

		if got := aside(); got != want[0] {
			t.Errorf("after it worked for long it is set aside for %v", got)
		}
	})
}

func TestOutlierFailuresMustBeInARow(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	register(t, c, reg("a", "log", "1.0.0"), reg("b", "log", "1.0.0"))

	for range 10 {
		fail(c, "a", 4)
		c.Report("log", "a", true, time.Millisecond)
	}

	// Those of strangers and of the unknown count for nobody.
	for range 5 {
		c.Report("log", "nobody", false, 0)
		c.Report("mail", "a", false, 0)
	}

	if got := selected(t, c, "log", ""); got != "a" {
		t.Errorf("selected %q", got)
	}
}

func TestOutliersAreNeverMoreThanHalf(t *testing.T) {
	t.Parallel()

	for providers := 1; providers <= 7; providers++ {
		synctest.Test(t, func(t *testing.T) {
			c := offers(t, catalog.Config{})
			c.SetStrategy("log", catalog.StrategyRoundRobin)

			for i := range providers {
				register(t, c, reg(fmt.Sprint(i), "log", "1.0.0"))
			}

			routed := func() int { return len(share(t, c, "", 10*providers)) }

			for i := range providers {
				fail(c, fmt.Sprint(i), 8)
			}

			if got, want := routed(), providers-providers/2; got != want {
				t.Errorf("of %d failing providers %d are routed, want %d", providers, got, want)
			}

			// Those who were set aside come back when the others go.
			for i := providers - 1; i > 0; i-- {
				c.RemoveRuntime(fmt.Sprint(i))

				if got, left := routed(), i; 2*got < left {
					t.Errorf("of %d left, %d are routed", left, got)
				}
			}

			if routed() != 1 {
				t.Error("the last one is not routed")
			}
		})
	}
}

// Of several, each returns when its own time is over, and where too few are left
// the one that would return first.
func TestOutliersReturnEachInItsTime(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		c := offers(t, catalog.Config{})
		c.SetStrategy("log", catalog.StrategyRoundRobin)

		for i := range 6 {
			register(t, c, reg(fmt.Sprint(i), "log", "1.0.0"))
		}

		routed := func(want string) {
			t.Helper()

			if got := strings.Join(slices.Sorted(maps.Keys(share(t, c, "", 12))), ""); got != want {
				t.Errorf("routed are %s, want %s", got, want)
			}
		}

		fail(c, "0", 5)
		<-time.After(10 * time.Second)
		routed("012345")

		fail(c, "0", 5) // for 20 s
		<-time.After(time.Second)
		fail(c, "1", 5) // for 10 s
		<-time.After(time.Second)
		fail(c, "2", 5)
		routed("345")

		<-time.After(9 * time.Second)
		routed("1345")
		<-time.After(time.Second)
		routed("12345")

		fail(c, "3", 5) // returns after 0
		routed("1245")
		c.RemoveRuntime("1")
		routed("245")
		c.RemoveRuntime("2")
		routed("45")
		c.RemoveRuntime("4")
		routed("05")
	})
}

func TestOutlierStaysAsideWhateverItSays(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		c := offers(t, catalog.Config{})
		register(t, c, reg("a", "log", "1.0.0"), reg("b", "log", "1.0.0"))
		fail(c, "a", 5)

		stays := func(after string) {
			t.Helper()

			if got := selected(t, c, "log", ""); got != "b" {
				t.Errorf("after %s it is back", after)
			}
		}
		stays("five failures")
		setHealth(c, "a", catalog.HealthUnhealthy)
		stays("unhealthy")
		setHealth(c, "a", catalog.HealthHealthy)
		stays("healthy")
		register(t, c, reg("a", "log", "1.0.0"))
		stays("registering again")
		register(t, c, reg("a", "log", "1.0.1"))
		stays("registering another version")

		if got := selected(t, c, "log", "1.0.1"); got != "a" {
			t.Errorf("a constraint that leaves no other selects %q", got)
		}

		if !c.Has("log", constraint(t, "1.0.1")) {
			t.Error("Has and Select differ")
		}
	})
}

func TestOutlierMovesWatchersAndBack(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		type change struct {
			kind    catalog.ChangeKind
			runtime string
		}

		var changes []change

		c := offers(t, catalog.Config{Observe: func(ch catalog.Change) {
			if ch.Kind == catalog.ChangeEjected || ch.Kind == catalog.ChangeReadmitted {
				changes = append(changes, change{ch.Kind, ch.RuntimeID})
			}
		}})
		register(t, c, reg("a", "log", "1.0.0"), reg("b", "log", "1.0.0"), reg("c", "log", "1.0.0"))
		w := watch(t, c, catalog.WatchRequest{Type: "log"})
		next(t, w)

		fail(c, "b", 5)
		silent(t, w)
		c.RemoveRuntime("b")
		next(t, w)

		fail(c, "a", 5)

		if got := short(next(t, w)); got != "5 available c" {
			t.Errorf("set aside: %s", got)
		}

		<-time.After(10 * time.Second)

		if got := selected(t, c, "log", ""); got != "a" {
			t.Errorf("selected %q", got)
		}

		if got := short(next(t, w)); got != "6 available a" {
			t.Errorf("back: %s", got)
		}

		want := []change{{catalog.ChangeEjected, "b"}, {catalog.ChangeEjected, "a"}, {catalog.ChangeReadmitted, "a"}}
		if !slices.Equal(changes, want) {
			t.Errorf("observed %v, want %v", changes, want)
		}
	})
}

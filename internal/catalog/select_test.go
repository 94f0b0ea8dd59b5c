package catalog_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

func TestSelectByHealth(t *testing.T) {
	t.Parallel()

	const (
		unknown, healthy = catalog.HealthUnknown, catalog.HealthHealthy
		degraded, ill    = catalog.HealthDegraded, catalog.HealthUnhealthy
	)

	tests := []struct {
		name    string
		healths []catalog.Health
		want    string
		state   catalog.State
	}{
		{name: "nobody"},
		{name: "the first", healths: []catalog.Health{healthy, healthy}, want: "0", state: catalog.StateAvailable},
		{name: "unknown is like healthy", healths: []catalog.Health{unknown, healthy}, want: "0", state: catalog.StateAvailable},
		{name: "degraded last", healths: []catalog.Health{degraded, unknown}, want: "1", state: catalog.StateAvailable},
		{name: "degraded before nobody", healths: []catalog.Health{ill, degraded}, want: "1", state: catalog.StateDegraded},
		{name: "unhealthy never", healths: []catalog.Health{ill, ill}},
		{name: "what is no health never", healths: []catalog.Health{99}},
	}

	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			c := offers(t, catalog.Config{})

			for i, health := range tt.healths {
				// Health may be known before or after the registration.
				if i%2 == 0 {
					setHealth(c, fmt.Sprint(i), health)
				}

				register(t, c, reg(fmt.Sprint(i), "log", "1.0.0"))
				setHealth(c, fmt.Sprint(i), health)
			}

			for strategy := range catalog.StrategyWeighted + 1 {
				c.SetStrategy("log", strategy)

				if strategy == catalog.StrategyFirst || tt.want == "" {
					if got := selected(t, c, "log", ""); got != tt.want {
						t.Errorf("strategy %d selects %q, want %q", strategy, got, tt.want)
					}
				}

				if c.Has("log", catalog.Constraint{}) != (tt.want != "") {
					t.Error("Has and Select differ")
				}
			}

			if got := next(t, watch(t, c, catalog.WatchRequest{Type: "log"})); got.State != tt.state || got.Provider.RuntimeID != tt.want {
				t.Errorf("state %v of %q, want %v of %q", got.State, got.Provider.RuntimeID, tt.state, tt.want)
			}
		})
	}
}

func TestSelectReturnsHealthAndNotFound(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	register(t, c, reg("a", "log", "1.0.0"))
	setHealth(c, "a", catalog.HealthDegraded)

	if _, health, err := c.Select("log", catalog.Constraint{}); err != nil || health != catalog.HealthDegraded {
		t.Errorf("health %v, %v", health, err)
	}

	for _, text := range []string{"2.0.0", "<1"} {
		if _, _, err := c.Select("log", constraint(t, text)); !errors.Is(err, catalog.ErrNotFound) {
			t.Errorf("%s: %v", text, err)
		}
	}

	if _, _, err := c.Select("mail", catalog.Constraint{}); !errors.Is(err, catalog.ErrNotFound) {
		t.Error(err)
	}
}

func TestSelectByVersion(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	for i, version := range []string{"1.9.0", "2.0.0-rc.1", "1.10.0", "not a version", "2.0.0", "1.9.0"} {
		register(t, c, reg(fmt.Sprint(i), "log", version))
	}

	setHealth(c, "4", catalog.HealthDegraded)

	for text, want := range map[string]string{
		"": "0", "1.9.0": "0", "1.10.0": "1", ">=1.10, <2": "2", "2.0.0-rc.1": "1", "2.0.0": "4", ">=2": "4", "3": "", "<1": "",
	} {
		if got := selected(t, c, "log", text); got != want {
			t.Errorf("%q selects %q, want %q", text, got, want)
		}

		if c.Has("log", constraint(t, text)) != (want != "") {
			t.Errorf("has %q differs", text)
		}
	}
}

func TestAudit_H44_HasTakesNoTurn(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	c.SetStrategy("log", catalog.StrategyRoundRobin)

	for i := range 3 {
		register(t, c, reg(fmt.Sprint(i), "log", "1.0.0"))
	}

	var got strings.Builder

	for range 7 {
		for range 2 {
			c.Has("log", constraint(t, "1.0.0"))
		}

		got.WriteString(selected(t, c, "log", ""))
	}

	if got.String() != "0120120" {
		t.Errorf("turns %s", got.String())
	}
}

func TestRoundRobinByVersionIsFair(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	c.SetStrategy("log", catalog.StrategyRoundRobin)

	for i := range 9 {
		register(t, c, reg(fmt.Sprint(i), "log", fmt.Sprintf("%d.0.0", i%3)))
	}

	counts := map[string]int{}
	for range 60 {
		counts[selected(t, c, "log", ">=1")]++
	}

	for i := range 9 {
		if got := counts[fmt.Sprint(i)]; got != []int{0, 10, 10}[i%3] {
			t.Errorf("provider %d has %d turns", i, got)
		}
	}
}

// share counts how often each runtime is selected.
func share(tb testing.TB, c *catalog.Catalog, text string, n int) map[string]float64 {
	tb.Helper()

	allowed := constraint(tb, text)
	shares := map[string]float64{}

	for range n {
		r, _, err := c.Select("log", allowed)
		if err != nil {
			tb.Fatal(err)
		}

		shares[r.RuntimeID] += 1 / float64(n)
	}

	return shares
}

func TestRandomIsEven(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	for i := range 4 {
		register(t, c, reg(fmt.Sprint(i), "log", fmt.Sprintf("1.%d.0", i/2)))
	}

	c.SetStrategy("log", catalog.StrategyRandom)

	for text, want := range map[string]float64{"": 0.25, "1.1": 0.5} {
		for runtime, got := range share(t, c, text, 20_000) {
			if got < want-0.03 || got > want+0.03 {
				t.Errorf("%q: %s has %.3f, want %.3f", text, runtime, got, want)
			}
		}
	}
}

// reported is the result of one call of a provider.
type reported struct {
	ok      bool
	latency time.Duration
}

// repeated is n times the same results.
func repeated(n int, r ...reported) []reported {
	var all []reported
	for range n {
		all = append(all, r...)
	}

	return all
}

// goodCall is a result like any other.
var goodCall = reported{true, 10 * time.Millisecond}

// weightedShares are weights and results of three providers, and which shares of the calls these get.
var weightedShares = []struct {
	name    string
	weights [3]int
	results [3][]reported
	want    [3]float64
}{
	{name: "even", weights: [3]int{1, 1, 1}, want: [3]float64{1, 1, 1}},
	{name: "declared", weights: [3]int{1, 3, 6}, want: [3]float64{1, 3, 6}},
	{name: "zero is one", weights: [3]int{0, -5, 2}, want: [3]float64{1, 1, 2}},
	{name: "a weight has a limit", weights: [3]int{1000, 500, 1 << 40}, want: [3]float64{2, 1, 2}},
	{
		name: "success", weights: [3]int{1, 1, 1},
		results: [3][]reported{repeated(50, goodCall), repeated(50, goodCall), repeated(50, goodCall, reported{false, 0})},
		want:    [3]float64{1, 1, 0.5},
	},
	{
		name: "who always fails is still tried", weights: [3]int{1, 1, 1},
		// Never five in a row, and a good reported first, which makes the latency known.
		results: [3][]reported{repeated(5, goodCall), repeated(5, goodCall), append(repeated(50, reported{}, reported{}, reported{}, reported{}, goodCall), repeated(4, reported{})...)},
		want:    [3]float64{1, 1, 0.16},
	},
	{
		name: "speed", weights: [3]int{1, 1, 1},
		results: [3][]reported{
			repeated(100, reported{true, 10 * time.Millisecond}), repeated(100, reported{true, 20 * time.Millisecond}),
			repeated(100, reported{true, 40 * time.Millisecond}),
		},
		want: [3]float64{4, 2, 1},
	},
	{
		name: "speed counts up to a limit", weights: [3]int{1, 1, 1},
		results: [3][]reported{
			repeated(100, reported{true, time.Millisecond}), repeated(100, reported{true, time.Millisecond}),
			repeated(100, reported{true, time.Hour}),
		},
		// The mean follows the newest reported, so it is 0.38 of the slow one's when that reports.
		want: [3]float64{4, 4, 0.38},
	},
	{
		name: "weight and speed", weights: [3]int{4, 1, 1},
		results: [3][]reported{
			repeated(100, reported{true, 40 * time.Millisecond}), repeated(100, reported{true, 10 * time.Millisecond}),
			repeated(100, reported{true, 10 * time.Millisecond}),
		},
		want: [3]float64{1, 1, 1},
	},
}

func TestWeighted(t *testing.T) {
	t.Parallel()

	for _, tt := range weightedShares {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			c := offers(t, catalog.Config{})

			for i, weight := range tt.weights {
				r := reg(fmt.Sprint(i), "log", fmt.Sprintf("1.%d.0", i))
				r.Weight = weight
				register(t, c, r)
			}

			// The strategy may come after or before the results. In turn, so that no mean runs
			// away from the others.
			c.SetStrategy("log", catalog.StrategyWeighted)

			for n := range 300 {
				for i := range tt.results {
					if n < len(tt.results[i]) {
						c.Report("log", fmt.Sprint(i), tt.results[i][n].ok, tt.results[i][n].latency)
					}
				}
			}

			sum := tt.want[0] + tt.want[1] + tt.want[2]

			for _, text := range []string{"", "1.0.0"} {
				shares := share(t, c, text, 10_000)
				for i, want := range tt.want {
					if got := shares[fmt.Sprint(i)]; got < want/sum*0.8-0.01 || got > want/sum*1.2+0.01 {
						t.Errorf("%q: %d has %.3f, want %.3f", text, i, got, want/sum)
					}
				}
			}
		})
	}
}

package spread_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/spread"
)

func TestLeast(t *testing.T) {
	t.Parallel()

	const ms = time.Millisecond

	for name, c := range map[string]struct {
		loads  []spread.Load
		chance float64
		want   int
	}{
		"nobody":                    {nil, 0.9, -1},
		"one":                       {[]spread.Load{{InFlight: 9}}, 0.9, 0},
		"the first of equals":       {[]spread.Load{{InFlight: 1}, {InFlight: 1}}, 0.9, 0},
		"the idle one":              {[]spread.Load{{InFlight: 3}, {InFlight: 2}, {}, {}}, 0.9, 2},
		"one alone is down":         {[]spread.Load{{Down: true}}, 0.9, 0},
		"not the one that is down":  {[]spread.Load{{Down: true}, {InFlight: 100}}, 0.9, 1},
		"down, in the second place": {[]spread.Load{{InFlight: 100}, {Down: true}}, 0.9, 0},
		"slow":                      {[]spread.Load{{Latency: 100 * ms}, {Latency: 10 * ms}}, 0.9, 1},
		"slow, in its turn":         {[]spread.Load{{Latency: 100 * ms}, {Latency: 10 * ms}}, 0.1, 0},
		"not slow enough":           {[]spread.Load{{Latency: 39 * ms}, {Latency: 10 * ms}}, 0.9, 0},
		"fast enough":               {[]spread.Load{{Latency: 19 * ms}, {Latency: ms / 10}}, 0.9, 0},
		"all are slow alike":        {[]spread.Load{{Latency: 2000 * ms}, {Latency: 1000 * ms}}, 0.9, 0},
		"not known yet":             {[]spread.Load{{}, {Latency: 100 * ms}}, 0.9, 0},
		"fails":                     {[]spread.Load{{Failing: 0.5}, {}}, 0.9, 1},
		"failed once":               {[]spread.Load{{Failing: 0.125}, {}}, 0.9, 0},
		"slow, but free":            {[]spread.Load{{Latency: 100 * ms}, {Latency: 10 * ms, InFlight: 20}}, 0.9, 0},
	} {
		if got := spread.Least(c.loads, func() float64 { return c.chance }); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// Providers that are alike get the same share, one that is slow a smaller one and not none.
func TestLeastShares(t *testing.T) {
	t.Parallel()

	const calls = 3000

	r := rand.New(rand.NewPCG(1, 2))
	all := []spread.Load{{Latency: 10 * time.Millisecond}, {Latency: 12 * time.Millisecond}, {Latency: time.Second}}
	got := make([]int, len(all))

	for turn := range calls {
		loads := make([]spread.Load, len(all))
		for i := range all {
			loads[i] = all[(turn+i)%len(all)]
		}

		got[(turn+spread.Least(loads, r.Float64))%len(all)]++
	}

	if got[2] < calls/50 || got[2] > calls/12 || got[0] < calls/4 || got[1] < calls/4 {
		t.Errorf("shares %v", got)
	}
}

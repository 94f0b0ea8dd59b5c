package eyeballs_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/eyeballs"
)

var errRefused = errors.New("refused")

func ports(of ...uint16) []netip.AddrPort {
	out := make([]netip.AddrPort, len(of))
	for i, p := range of {
		out[i] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), p)
	}
	return out
}

// TestAudit_USE08_EachSilentAddressCostsAFraction has addresses that swallow everything (0), that
// refuse (1), that are slow (2 and more, in seconds), and 9 that answers.
func TestAudit_USE08_EachSilentAddressCostsAFraction(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		addrs []uint16
		won   uint16
		took  time.Duration
	}{
		"one that answers":          {[]uint16{9}, 9, 0},
		"one silent":                {[]uint16{0, 9}, 9, 250 * time.Millisecond},
		"three silent":              {[]uint16{0, 0, 0, 9}, 9, 750 * time.Millisecond},
		"refused costs nothing":     {[]uint16{1, 1, 9}, 9, 0},
		"silent, then refused":      {[]uint16{0, 1, 9}, 9, 250 * time.Millisecond},
		"slow, and a faster one":    {[]uint16{5, 2, 0}, 2, 2250 * time.Millisecond},
		"slow alone":                {[]uint16{3, 1}, 3, 3 * time.Second},
		"all refuse":                {[]uint16{1, 1}, 0, 0},
		"silent and refused, in 7s": {[]uint16{0, 1}, 0, 7 * time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var running, dropped, made atomic.Int32
				try := func(ctx context.Context, at netip.AddrPort) (uint16, error) {
					running.Add(1)
					defer running.Add(-1)
					after := time.Duration(at.Port()) * time.Second
					switch at.Port() {
					case 0:
						after = time.Hour
					case 1:
						return 0, errRefused
					case 9:
						after = 0
					}
					select {
					case <-time.After(after):
						made.Add(1)
						return at.Port(), nil
					case <-ctx.Done():
						return 0, ctx.Err()
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
				defer cancel()
				begun := time.Now()
				won, err := eyeballs.Race(ctx, ports(tt.addrs...), try, func(uint16) { dropped.Add(1) })
				if won != tt.won || (err == nil) != (tt.won > 0) || time.Since(begun) != tt.took {
					t.Errorf("%d, %v after %v; want %d after %v", won, err, time.Since(begun), tt.won, tt.took)
				}
				if err != nil && slices.Contains(tt.addrs, 1) && !errors.Is(err, errRefused) {
					t.Errorf("error %v", err)
				}
				if running.Load() != 0 || err == nil && made.Load() != dropped.Load()+1 {
					t.Errorf("%d attempts are left, %d connections were made and %d dropped", running.Load(), made.Load(), dropped.Load())
				}
			})
		})
	}
}

// One that comes at the same moment as the first is dropped.
func TestRace_DropsWhatComesLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dropped := 0
		won, err := eyeballs.Race(t.Context(), ports(2, 1), func(_ context.Context, at netip.AddrPort) (uint16, error) {
			time.Sleep(time.Duration(at.Port()) * 250 * time.Millisecond) // whatever ctx says
			return at.Port(), nil
		}, func(uint16) { dropped++ })
		if err != nil || won == 0 || dropped != 1 {
			t.Errorf("%d, %v, %d dropped", won, err, dropped)
		}
	})
}

func TestAlternate(t *testing.T) {
	t.Parallel()
	var in, want []netip.AddrPort
	for _, a := range []string{"[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"} {
		in = append(in, netip.MustParseAddrPort(a))
	}
	for _, a := range []string{"[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"} {
		want = append(want, netip.MustParseAddrPort(a))
	}
	if got := eyeballs.Alternate(in); !slices.Equal(got, want) {
		t.Errorf("order %v", got)
	}
}

package catalog_test

import (
	"errors"
	"strconv"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

// Runtimes that belong together have a quarter of what there is, or eight each where that is more; what stands by
// counts apart, who replaces its own needs no room, and what is gone leaves room.
func TestAudit_ATK14_AFleetHasAQuarter(t *testing.T) {
	t.Parallel()

	const all = 80

	for size, most := range map[int]int{1: all / 4, 2: all / 4, 3: 24} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			t.Parallel()

			c := catalog.New(catalog.Config{
				MaxRegistrations: all, MaxPerRuntime: all / 4, MaxWatches: all, MaxWatchesPerRuntime: all / 4,
				AllowMultiple: func(string) bool { return true },
			})
			fleet := &catalog.Fleet{Size: func() int { return size }}
			of := func(i int) string { return "r" + strconv.Itoa(i%3) }
			offer := func(i int, standby bool) error {
				offered := reg(of(i), "t"+strconv.Itoa(i), "1.0.0")
				offered.Fleet, offered.Standby = fleet, standby

				return c.Register(offered)
			}
			follow := func(i int) error {
				_, err := c.Watch(catalog.WatchRequest{Type: "t", RuntimeID: of(i), Fleet: fleet})

				return err
			}

			for i := range 2*most + 2 {
				other := reg("other", "t"+strconv.Itoa(i), "1.0.0")
				other.RuntimeID += strconv.Itoa(i % 5)
				register(t, c, other)
			}

			for name, take := range map[string]func(i int) error{
				"registrations": func(i int) error { return offer(i, false) },
				"standing by":   func(i int) error { return offer(most+1+i, true) },
				"watches":       follow,
			} {
				for i := range most {
					if err := take(i); err != nil {
						t.Fatalf("%s: %d of %d: %v", name, i+1, most, err)
					}
				}

				if err := take(most); !errors.Is(err, catalog.ErrLimitOfFleet) {
					t.Errorf("%s: beyond %d: %v", name, most, err)
				}
			}

			if err := offer(0, false); err != nil {
				t.Errorf("it may not replace its own: %v", err)
			}

			c.RemoveRuntime(of(0))

			if err := errors.Join(offer(most, false), offer(2*most+1, true), follow(0)); err != nil {
				t.Errorf("what is gone leaves no room: %v", err)
			}
		})
	}
}

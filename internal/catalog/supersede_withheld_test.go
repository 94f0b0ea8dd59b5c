package catalog_test

import (
	"errors"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

// An instance that takes the place of another needs no room beside it, whichever bound is reached; more than that is refused.
func TestSupersede_WhereABoundIsReached(t *testing.T) {
	t.Parallel()
	reg := func(id, runtime, service string, of *catalog.Fleet) catalog.Registration {
		return catalog.Registration{ID: id, RuntimeID: runtime, SelfID: "p", Type: service, Version: "1.0.0", Fleet: of}
	}
	for name, tt := range map[string]struct {
		cfg  catalog.Config
		more error
	}{
		"of a type":  {catalog.Config{MaxPerType: 1}, nil},
		"in all":     {catalog.Config{MaxRegistrations: 2}, catalog.ErrLimitInAll},
		"of one":     {catalog.Config{MaxPerRuntime: 2}, catalog.ErrLimit},
		"of a fleet": {catalog.Config{MaxRegistrations: 8, MaxPerRuntime: 2}, catalog.ErrLimit},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.cfg.AllowMultiple = func(string) bool { return true }
			c, fleet := catalog.New(tt.cfg), &catalog.Fleet{Size: func() int { return 1 }}
			for _, service := range []string{"a", "b"} {
				if err := c.Register(reg("old-"+service, "old", service, fleet)); err != nil {
					t.Fatal(err)
				}
			}
			three := []catalog.Registration{reg("x", "third", "a", fleet), reg("y", "third", "b", fleet), reg("z", "third", "c", fleet)}
			if err := c.Supersede("old", three); !errors.Is(err, tt.more) {
				t.Errorf("by three: %v, want %v", err, tt.more)
			}
			if tt.more == nil {
				return
			}
			if err := c.Supersede("old", []catalog.Registration{reg("1", "new", "a", fleet), reg("2", "new", "b", fleet)}); err != nil {
				t.Errorf("by as many: %v", err)
			}
			if all := c.ByRuntime("new"); len(all) != 2 || len(c.ByRuntime("old")) != 0 {
				t.Errorf("of the new one: %v", all)
			}
		})
	}
}

// What was withheld of an instance whose successor took its place does not come back beside that.
func TestAudit_ATK17_WhatIsWithheldOfAPredecessorStaysAway(t *testing.T) {
	t.Parallel()
	c := catalog.New(catalog.Config{})
	if err := c.Register(catalog.Registration{ID: "1", RuntimeID: "old", SelfID: "p", Type: "a", Version: "1.0.0"}); err != nil {
		t.Fatal(err)
	}
	if n := len(c.Withhold(func(catalog.Registration) bool { return true })); n != 1 {
		t.Fatalf("%d withheld", n)
	}
	if err := c.Supersede("old", []catalog.Registration{{ID: "2", RuntimeID: "new", SelfID: "p", Type: "b", Version: "1.0.0"}}); err != nil {
		t.Fatal(err)
	}
	if back := c.Restore(func(catalog.Registration) bool { return true }); len(back) != 0 {
		t.Errorf("given back to an instance that was replaced: %v", back)
	}
}

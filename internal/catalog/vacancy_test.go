package catalog_test

import (
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

// What is withheld is offered to be restored when what was in its way is gone, and not before.
func TestVacatedConcernsWhatWasInTheWay(t *testing.T) {
	t.Parallel()

	for name, tt := range map[string]struct {
		cfg  catalog.Config
		take catalog.Registration // what comes while log of a is withheld
		free func(c *catalog.Catalog)
		want bool
	}{
		"the type":         {take: of("b", "log"), free: func(c *catalog.Catalog) { c.RemoveRuntime("b") }, want: true},
		"the path":         {take: at(of("a", "mail"), "/log/"), free: func(c *catalog.Catalog) { _ = c.Unregister("a/mail", "a") }, want: true},
		"the place":        {cfg: catalog.Config{MaxRegistrations: 1}, take: of("c", "mail"), free: func(c *catalog.Catalog) { c.RemoveRuntime("c") }, want: true},
		"of its own":       {cfg: catalog.Config{MaxPerRuntime: 1}, take: of("a", "mail"), free: func(c *catalog.Catalog) { c.RemoveWhere(ofType("mail")) }, want: true},
		"nothing":          {take: of("c", "mail"), free: func(c *catalog.Catalog) { c.RemoveRuntime("c") }},
		"it is still away": {take: of("c", "mail"), free: func(c *catalog.Catalog) { c.RemoveRuntime("a") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var c *catalog.Catalog

			back := 0
			tt.cfg.Vacated = func(concerns func(catalog.Registration) bool) { back += len(c.Restore(concerns)) }
			c = catalog.New(tt.cfg)
			register(t, c, at(of("a", "log"), "/log/"))
			c.Withhold(everything)
			register(t, c, tt.take)

			if free := len(c.Restore(everything)) > 0; free == tt.want {
				t.Fatalf("in its way is nothing, or something: %v", c.ByType("log"))
			} else if free {
				c.Withhold(ofType("log"))
			}

			tt.free(c)

			if (back == 1) != tt.want {
				t.Errorf("%d came back: %v", back, c.ByType("log"))
			}
		})
	}
}

// What stood by leaves room to what is withheld, whether it is taken back or ends.
func TestVacatedByWhoStoodBy(t *testing.T) {
	t.Parallel()

	waiting := func(runtimeID, serviceType string) catalog.Registration {
		r := of(runtimeID, serviceType)
		r.Standby = true

		return r
	}

	for name, tt := range map[string]struct {
		cfg   catalog.Config
		first catalog.Registration // that is withheld
		then  catalog.Registration
		free  func(c *catalog.Catalog)
	}{
		"of another": {catalog.Config{MaxPerType: 1}, waiting("a", "log"), waiting("b", "log"), func(c *catalog.Catalog) { c.RemoveRuntime("b") }},
		"of its own": {catalog.Config{MaxPerRuntime: 1}, of("a", "mail"), waiting("a", "log"), func(c *catalog.Catalog) { _ = c.Unregister("a/log", "a") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var c *catalog.Catalog

			back := 0
			tt.cfg.Vacated = func(concerns func(catalog.Registration) bool) { back += len(c.Restore(concerns)) }
			c = catalog.New(tt.cfg)
			register(t, c, of("x", "log"), tt.first)
			c.Withhold(func(r catalog.Registration) bool { return r.RuntimeID == "a" })
			register(t, c, tt.then)

			if !c.StandsBy(tt.then.ID) || len(c.Restore(everything)) > 0 {
				t.Fatal("nothing is in its way")
			}

			tt.free(c)

			if back != 1 {
				t.Errorf("%d came back", back)
			}
		})
	}
}

func of(runtimeID, serviceType string) catalog.Registration {
	r := reg(runtimeID, serviceType, "1.0.0")
	r.SelfID = runtimeID

	return r
}

func at(r catalog.Registration, path string) catalog.Registration {
	r.Path = path

	return r
}

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

func of(runtimeID, serviceType string) catalog.Registration {
	r := reg(runtimeID, serviceType, "1.0.0")
	r.SelfID = runtimeID

	return r
}

func at(r catalog.Registration, path string) catalog.Registration {
	r.Path = path

	return r
}

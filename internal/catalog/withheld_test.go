package catalog_test

import (
	"slices"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

func everything(catalog.Registration) bool { return true }

func ofType(serviceType string) func(catalog.Registration) bool {
	return func(r catalog.Registration) bool { return r.Type == serviceType }
}

// What is withheld is offered to nobody, claims nothing, and is restored as it was.
func TestWithheldIsRestoredAsItWas(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	logs := reg("a", "log", "1.0.0")
	logs.Path = "/log.v1.Log/"
	register(t, c, logs, reg("a", "mail", "1.0.0"))

	if out := c.Withhold(ofType("log")); len(out) != 1 || out[0].ID != logs.ID {
		t.Fatalf("withheld %v", out)
	}

	if selected(t, c, "log", "") != "" || len(c.ByRuntime("a")) != 1 || !slices.Equal(c.Withheld("a"), []string{"log"}) {
		t.Errorf("offered: %v, withheld: %q", c.ByRuntime("a"), c.Withheld("a"))
	}

	if c.OpenedByOther("self", "mail", "/log.v1.Log/Write") || c.Stats().Registrations != 1 {
		t.Error("its path or its place is taken")
	}

	if back := c.Restore(ofType("mail")); len(back) != 0 || selected(t, c, "log", "") != "" {
		t.Errorf("restored without being allowed: %v", back)
	}

	if back := c.Restore(everything); len(back) != 1 || selected(t, c, "log", "") != "a" || len(c.Withheld("a")) != 0 {
		t.Errorf("restored %v, withheld %q", back, c.Withheld("a"))
	}

	if got, ok := c.Get(logs.ID); !ok || got.Path != logs.Path || !c.OpenedByOther("self", "mail", "/log.v1.Log/Write") {
		t.Errorf("restored as %v", got)
	}
}

// What is set aside before it was offered is restored as what was withheld, and is in no way of what
// its runtime offers by then.
func TestSetAside(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	c.SetAside(reg("a", "log", "1.0.0"))

	if selected(t, c, "log", "") != "" || !slices.Equal(c.Withheld("a"), []string{"log"}) {
		t.Errorf("offered: %v, withheld: %q", c.ByRuntime("a"), c.Withheld("a"))
	}

	if back := c.Restore(everything); len(back) != 1 || back[0].RegisteredAt.IsZero() || selected(t, c, "log", "") != "a" {
		t.Errorf("restored %v", back)
	}

	c.SetAside(reg("a", "log", "0.9.0"))

	if got := c.Withheld("a"); len(got) != 0 || len(c.ByRuntime("a")) != 1 {
		t.Errorf("withheld beside what it offers: %q", got)
	}
}

// What is withheld goes when its runtime does, takes it back or registers the type again.
func TestWithheldEndsWithItsRuntime(t *testing.T) {
	t.Parallel()

	newer := reg("a", "log", "2.0.0")
	newer.ID = "newer"

	for name, end := range map[string]func(c *catalog.Catalog){
		"removed":          func(c *catalog.Catalog) { c.RemoveRuntime("a") },
		"taken back":       func(c *catalog.Catalog) { _ = c.Unregister("a/log", "a") },
		"removed with all": func(c *catalog.Catalog) { c.RemoveWhere(everything) },
		"registered again": func(c *catalog.Catalog) { _ = c.Register(newer) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			c := offers(t, catalog.Config{})
			register(t, c, reg("a", "log", "1.0.0"))
			c.Withhold(everything)

			if err := c.Unregister("a/log", "b"); err == nil {
				t.Error("another took it back")
			}

			end(c)

			if back := c.Restore(everything); len(back) != 0 || len(c.Withheld("a")) != 0 {
				t.Errorf("restored %v", back)
			}

			if _, ok := c.Get("a/log"); ok {
				t.Error("it is there again")
			}
		})
	}
}

// A type that another has meanwhile stays with that; so much is kept of a runtime as it may have.
func TestWithheldTakesNothingFromOthers(t *testing.T) {
	t.Parallel()

	c := catalog.New(catalog.Config{MaxPerRuntime: 2})
	register(t, c, reg("a", "log", "1.0.0"), reg("a", "mail", "1.0.0"))
	c.Withhold(everything)

	other := reg("b", "log", "1.0.0")
	other.SelfID = "other"
	register(t, c, other, reg("a", "open", "1.0.0"))
	c.Withhold(ofType("open"))

	if got := c.Withheld("a"); !slices.Equal(got, []string{"log", "mail"}) {
		t.Errorf("kept %q", got)
	}

	if back := c.Restore(everything); len(back) != 1 || back[0].Type != "mail" {
		t.Errorf("restored %v", back)
	}

	c.RemoveRuntime("b")

	if back := c.Restore(everything); len(back) != 1 || selected(t, c, "log", "") != "a" {
		t.Errorf("restored %v", back)
	}
}

// Where another type has the path or the place by then, what is withheld waits.
func TestWithheldIsInNobodysWay(t *testing.T) {
	t.Parallel()

	c := catalog.New(catalog.Config{MaxPerRuntime: 1, MaxRegistrations: 1})
	logs, mail := reg("a", "log", "1.0.0"), reg("a", "mail", "1.0.0")
	logs.Path, mail.Path = "/same/", "/same/"
	register(t, c, logs)
	c.Withhold(everything)
	register(t, c, mail)

	if back := c.Restore(everything); len(back) != 0 {
		t.Errorf("restored %v", back)
	}

	unregister(t, c, mail.ID)

	if back := c.Restore(everything); len(back) != 1 {
		t.Errorf("restored %v", back)
	}
}

// What stood by stands by again, behind who provides the type.
func TestWithheldStandsByAgain(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	waiting := reg("b", "log", "1.0.0")
	waiting.Standby = true
	register(t, c, reg("a", "log", "1.0.0"), waiting)
	c.Withhold(func(r catalog.Registration) bool { return r.RuntimeID == "b" })
	c.Restore(everything)

	if got := selected(t, c, "log", ""); got != "a" || !c.StandsBy(waiting.ID) {
		t.Errorf("%s provides, and b stands by: %v", got, c.StandsBy(waiting.ID))
	}

	c.RemoveRuntime("a")

	if got := selected(t, c, "log", ""); got != "b" {
		t.Errorf("%q took over", got)
	}
}

// One that may stand by and provides a type goes on when it registers that again, also beside who waits.
func TestAudit_USE39_WhoRegistersAgainWaitsForNobody(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	first, again, waiting := reg("a", "log", "1.0.0"), reg("a", "log", "1.0.1"), reg("b", "log", "1.0.0")
	first.Standby, again.Standby, waiting.Standby = true, true, true
	register(t, c, first, waiting, again)

	if got := selected(t, c, "log", ""); got != "a" || c.StandsBy(again.ID) || !c.StandsBy(waiting.ID) || len(c.ByRuntime("a")) != 1 {
		t.Errorf("%q provides, and what was registered again stands by: %v", got, c.StandsBy(again.ID))
	}
}

// What the host itself registered is restored beside another owner of its type, as it was registered.
func TestWithheldOfTheHostIsRestoredBesideOthers(t *testing.T) {
	t.Parallel()

	c := catalog.New(catalog.Config{})
	launched, other := reg("a", "log", "1.0.0"), reg("b", "log", "1.0.0")
	launched.ByHost, other.SelfID = true, "other"
	register(t, c, launched)
	c.Withhold(everything)
	register(t, c, other)

	if back := c.Restore(everything); len(back) != 1 || len(c.ByType("log")) != 2 {
		t.Errorf("restored %v beside %v", back, c.ByType("log"))
	}
}

// What is replaced or taken back while somebody is asked whether it is allowed is not restored.
func TestWithheldThatChangesMeanwhileIsNotRestored(t *testing.T) {
	t.Parallel()

	newer := reg("a", "log", "2.0.0")
	newer.ID = "newer"

	for name, change := range map[string]func(c *catalog.Catalog){
		"registered again": func(c *catalog.Catalog) { _ = c.Register(newer) },
		"taken back":       func(c *catalog.Catalog) { _ = c.Unregister("a/log", "a") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			c := offers(t, catalog.Config{})
			register(t, c, reg("a", "log", "1.0.0"))
			c.Withhold(everything)

			back := c.Restore(func(catalog.Registration) bool {
				change(c)

				return true
			})

			if _, ok := c.Get("a/log"); ok || len(back) != 0 {
				t.Errorf("restored %v", back)
			}
		})
	}
}

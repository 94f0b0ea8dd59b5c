package catalog_test

import (
	"fmt"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

func TestObserve(t *testing.T) {
	t.Parallel()

	var (
		c       *catalog.Catalog
		changes []catalog.Change
	)

	c = catalog.New(catalog.Config{Observe: func(change catalog.Change) {
		// It is called outside the locks.
		c.SetEndpoint("observer", "x")

		changes = append(changes, change)
	}})

	check := func(what string, want ...catalog.Change) {
		t.Helper()

		if fmt.Sprint(changes) != fmt.Sprint(want) {
			t.Errorf("%s: %+v, want %+v", what, changes, want)
		}

		changes = nil
	}

	a := catalog.Change{Kind: catalog.ChangeRegistered, Type: "log", RegistrationID: "a/log", RuntimeID: "a", SelfID: "self"}

	register(t, c, reg("a", "log", "1.0.0"))
	check("register", a)

	register(t, c, reg("a", "log", "1.0.0"))

	a.Kind = catalog.ChangeReplaced
	check("replace", a)

	stranger := reg("b", "log", "1.0.0")
	stranger.SelfID = "stranger"
	_ = c.Register(stranger)
	check("conflict", catalog.Change{
		Kind: catalog.ChangeConflict, Type: "log", RegistrationID: "b/log", RuntimeID: "b", SelfID: "stranger", Owner: "self",
	})

	setHealth(c, "a", catalog.HealthDegraded)
	setHealth(c, "a", catalog.HealthDegraded)
	check("health", catalog.Change{Kind: catalog.ChangeHealth, RuntimeID: "a", Health: catalog.HealthDegraded})

	unregister(t, c, "a/log")

	a.Kind, a.Health = catalog.ChangeUnregistered, catalog.HealthDegraded
	check("unregister", a)
}

package catalog_test

import (
	"fmt"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

func TestSubstitute(t *testing.T) {
	t.Parallel()

	c := catalog.New(catalog.Config{AllowMultiple: func(string) bool { return true }})
	offer := func(runtimeID, version, path, endpoint string, health catalog.Health) {
		t.Helper()

		if err := c.Register(catalog.Registration{
			ID: "reg-" + runtimeID, RuntimeID: runtimeID, SelfID: runtimeID, Type: "echo", Version: version, Path: path,
		}); err != nil {
			t.Fatal(err)
		}

		if endpoint != "" {
			c.SetEndpoint(runtimeID, endpoint)
		}

		c.SetHealth(runtimeID, catalog.HealthReport{Health: health})
	}
	want := func(what string, ids ...string) {
		t.Helper()

		for range 50 { // chance decides
			got, ok := c.Substitute("echo", "asked")
			good := !ok && len(ids) == 0

			for _, id := range ids {
				good = good || ok && got.RuntimeID == id
			}

			if !good {
				t.Fatalf("%s: got %q, want one of %q", what, got.RuntimeID, ids)
			}
		}
	}

	want("nobody registered")
	offer("asked", "1.0.0", "/a/", "https://h:1", catalog.HealthHealthy)
	want("nobody else")
	offer("older", "0.9.0", "/a/", "https://h:1", catalog.HealthHealthy)
	offer("newer", "1.0.1", "/a/", "https://h:1", catalog.HealthHealthy)
	offer("elsewhere", "1.0.0", "/b/", "https://h:1", catalog.HealthHealthy)
	offer("nowhere", "1.0.0", "/a/", "", catalog.HealthHealthy)
	offer("ill", "1.0.0", "/a/", "https://h:1", catalog.HealthUnhealthy)
	want("nobody like it")
	offer("degraded", "1.0.0", "/a/", "https://h:1", catalog.HealthDegraded)
	want("a degraded one", "degraded")
	offer("first", "1.0.0", "/a/", "https://h:1", catalog.HealthHealthy)
	offer("second", "1.0.0", "/a/", "https://h:1", catalog.HealthUnknown)
	want("two healthy ones", "first", "second")

	for range 100 {
		c.Report("echo", "first", false, 0)
	}

	want("one of them fails", "second")
	c.RemoveRuntime("second")
	c.RemoveRuntime("asked")
	want("the one that was asked is gone")

	if _, ok := c.Substitute("unknown", "first"); ok {
		t.Error("a substitute of an unknown type")
	}
}

// Whatever the number of providers, a search is short, and everybody's turn comes.
func TestSubstitute_SpreadsOverMany(t *testing.T) {
	t.Parallel()

	c := catalog.New(catalog.Config{})
	for i := range 1000 {
		id := fmt.Sprint(i)
		if err := c.Register(catalog.Registration{ID: id, RuntimeID: id, SelfID: "s", Type: "echo", Version: "1.0.0"}); err != nil {
			t.Fatal(err)
		}

		c.SetEndpoint(id, "https://h:1")
	}

	seen := map[string]bool{}

	for range 1000 {
		got, ok := c.Substitute("echo", "0")
		if !ok || got.RuntimeID == "0" {
			t.Fatalf("got %q, %v", got.RuntimeID, ok)
		}

		seen[got.RuntimeID] = true
	}

	if len(seen) < 400 {
		t.Errorf("only %d of 999 were chosen", len(seen))
	}
}

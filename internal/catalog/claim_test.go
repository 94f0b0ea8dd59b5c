package catalog_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

const storageURL = "https://127.0.0.1:9443"

func claimed(t *testing.T, c *catalog.Catalog, runtime, self, endpoint string, byHost bool, want error) catalog.Vacated {
	t.Helper()

	got, err := c.ClaimEndpoint(catalog.Claim{RuntimeID: runtime, SelfID: self, Endpoint: endpoint, ByHost: byHost})
	if !errors.Is(err, want) {
		t.Errorf("%s of %s claims %s: %v, want %v", runtime, self, endpoint, err, want)
	}

	return got
}

// One endpoint has one spelling.
func TestAudit_USE27_SitesAreComparedNotSpellings(t *testing.T) {
	t.Parallel()

	for want, spellings := range map[catalog.Site][]string{
		"127.0.0.1 9443": {
			storageURL, "https://127.0.0.1:9443/", "http://127.0.0.1:9443", "https://[::ffff:127.0.0.1]:9443", "https://127.0.0.1:09443",
			"https://127.0.0.1:9443/other", "HTTPS://127.0.0.1:9443",
		},
		"::1 443":          {"https://[::1]", "https://[0:0::1]:443", "https://[::1%25lo]"},
		"h.example 443":    {"https://h.example", "https://H.Example.:443", "https://h.example./x"},
		"h.example 80":     {"http://h.example", "https://h.example:80"},
		"h.example 8443":   {"https://h.example:8443"},
		"h.example.x 8443": {"https://h.example.x:8443"},
	} {
		for _, endpoint := range spellings {
			if got, err := catalog.ParseSite(endpoint); err != nil || got != want {
				t.Errorf("%s: %q, %v, want %q", endpoint, got, err, want)
			}
		}
	}

	for _, endpoint := range []string{"", "x", "https://", "https://:1", "https://h:0", "https://h:70000", "https://h:x", "other://h", "https://.", "\x7f"} {
		if got, err := catalog.ParseSite(endpoint); !errors.Is(err, catalog.ErrInvalid) {
			t.Errorf("%q: %q, %v", endpoint, got, err)
		}
	}
}

// Whoever names an endpoint first has it, whatever others say and however they spell it,
// until it ends.
func TestAudit_USE27_AnEndpointBelongsToWhoNamedItFirst(t *testing.T) {
	t.Parallel()

	var conflicts []catalog.Change

	c := catalog.New(catalog.Config{Observe: func(change catalog.Change) {
		if change.Kind == catalog.ChangeEndpointConflict {
			conflicts = append(conflicts, change)
		}
	}})
	claimed(t, c, "s1", "storage", storageURL, false, nil)

	for _, endpoint := range []string{storageURL, "https://127.0.0.1:9443/", "https://[::ffff:127.0.0.1]:9443", "http://127.0.0.1:9443"} {
		claimed(t, c, "e1", "evil", endpoint, false, catalog.ErrTaken)

		if got, ok := c.Endpoint("e1"); ok {
			t.Errorf("evil is reached at %q", got)
		}
	}

	want := catalog.Change{Kind: catalog.ChangeEndpointConflict, RuntimeID: "e1", SelfID: "evil", Owner: "storage"}
	if len(conflicts) != 4 || conflicts[0] != want {
		t.Errorf("the observer heard %+v", conflicts)
	}

	if !c.Taken(storageURL, "evil") || c.Taken(storageURL, "storage") || c.Taken("https://127.0.0.1:9444", "evil") || !c.Taken("x", "evil") {
		t.Error("Taken is wrong")
	}

	claimed(t, c, "e1", "evil", "https://127.0.0.1:9444", false, nil)
	claimed(t, c, "e1", "evil", storageURL, false, catalog.ErrTaken)

	if got, _ := c.Endpoint("e1"); got != "https://127.0.0.1:9444" {
		t.Errorf("after a refused claim evil is reached at %q", got)
	}

	c.RemoveRuntime("s1")
	claimed(t, c, "o1", "other", storageURL, false, nil)
}

// What the host's operator says goes before what a runtime said of itself, and ends it.
func TestAudit_USE27_TheOperatorsEndpointIsNobodyElses(t *testing.T) {
	t.Parallel()

	c := catalog.New(catalog.Config{})
	claimed(t, c, "e1", "evil", storageURL, false, nil)

	if got := claimed(t, c, "s1", "storage", storageURL, true, nil); !slices.Equal(got.Ousted, []string{"e1"}) || len(got.Replaced) > 0 {
		t.Errorf("vacated %+v", got)
	}

	if got, ok := c.Endpoint("e1"); ok {
		t.Errorf("evil is still reached at %q", got)
	}

	claimed(t, c, "e1", "evil", storageURL, false, catalog.ErrTaken)
	// Two of whom the operator says it share it.
	claimed(t, c, "b1", "backup", storageURL, true, nil)

	for _, id := range []string{"s1", "b1"} {
		if got, _ := c.Endpoint(id); got != storageURL {
			t.Errorf("%s is reached at %q", id, got)
		}
	}
	// What the host sets without a claim keeps nobody's place.
	c.SetEndpoint("s1", storageURL)
	c.SetEndpoint("b1", storageURL)
	claimed(t, c, "o1", "other", storageURL, false, nil)
}

// A process is one provider: the self id that comes back to its endpoint replaces what
// it was before, and two instances at two endpoints stay two.
func TestAudit_USE26_AProcessIsOneProvider(t *testing.T) {
	t.Parallel()

	c := catalog.New(catalog.Config{})
	claimed(t, c, "s1", "storage", storageURL, false, nil)
	claimed(t, c, "s2", "storage", "https://127.0.0.1:9444", false, nil)

	if got := claimed(t, c, "s3", "storage", "https://127.0.0.1:9443/", false, nil); !slices.Equal(got.Replaced, []string{"s1"}) {
		t.Errorf("vacated %+v", got)
	}

	if got := claimed(t, c, "s3", "storage", storageURL, false, nil); len(got.Replaced)+len(got.Ousted) > 0 {
		t.Errorf("a claim of what it has vacated %+v", got)
	}

	for id, want := range map[string]bool{"s1": false, "s2": true, "s3": true} {
		if _, ok := c.Endpoint(id); ok != want {
			t.Errorf("%s has an endpoint: %t", id, ok)
		}
	}
}

// Where the host says anew where several runtimes of a self id are, all of them are there, until one
// comes that was not.
func TestAudit_USE26_WhereTheHostPutsSeveralTheyStay(t *testing.T) {
	t.Parallel()

	const shared = "https://127.0.0.1:9999"

	c := catalog.New(catalog.Config{})

	for id, own := range map[string]string{"s1": storageURL, "s2": "https://127.0.0.1:9444"} {
		claimed(t, c, id, "storage", own, false, nil)

		if got, err := c.ClaimEndpoint(catalog.Claim{
			RuntimeID: id, SelfID: "storage", Endpoint: shared, ByHost: true, Beside: true,
		}); err != nil || len(got.Replaced)+len(got.Ousted) > 0 {
			t.Errorf("%s: %+v, %v", id, got, err)
		}
	}

	if !c.Shares("s1") || !c.Shares("s2") || c.Shares("s3") {
		t.Error("Shares is wrong")
	}

	if got := claimed(t, c, "s1", "storage", shared+"/", true, nil); len(got.Replaced) > 0 {
		t.Errorf("a claim of what it has vacated %+v", got)
	}

	got := claimed(t, c, "s3", "storage", shared, true, nil)
	slices.Sort(got.Replaced)

	if !slices.Equal(got.Replaced, []string{"s1", "s2"}) || c.Shares("s3") {
		t.Errorf("a later life vacated %+v", got)
	}
}

// Claims of everybody, against a plain list of who is where.
func TestAudit_USE27_ClaimsAgainstAList(t *testing.T) {
	t.Parallel()

	type place struct {
		runtime, self, endpoint string
		byHost                  bool
	}

	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		c := catalog.New(catalog.Config{})

		var list []place

		leave := func(gone func(place) bool) { list = slices.DeleteFunc(list, gone) }

		for range 300 {
			n := rng.IntN(8)
			p := place{fmt.Sprint("r", n), fmt.Sprint("self", n/2), fmt.Sprint("https://h:", 1+rng.IntN(4)), rng.IntN(5) == 0}

			if rng.IntN(6) == 0 {
				c.RemoveRuntime(p.runtime)
				leave(func(o place) bool { return o.runtime == p.runtime })

				continue
			}

			taken := slices.ContainsFunc(list, func(o place) bool { return o.endpoint == p.endpoint && o.self != p.self }) && !p.byHost

			_, err := c.ClaimEndpoint(catalog.Claim{RuntimeID: p.runtime, SelfID: p.self, Endpoint: p.endpoint, ByHost: p.byHost})
			if errors.Is(err, catalog.ErrTaken) != taken || err != nil && !taken {
				t.Fatalf("seed %d: %+v beside %+v: %v", seed, p, list, err)
			}

			if !taken {
				leave(func(o place) bool {
					return o.runtime == p.runtime || o.endpoint == p.endpoint && (o.self == p.self || p.byHost && !o.byHost)
				})
				list = append(list, p)
			}

			for r := range 8 {
				id := fmt.Sprint("r", r)
				i := slices.IndexFunc(list, func(o place) bool { return o.runtime == id })

				if got, ok := c.Endpoint(id); ok != (i >= 0) || ok && got != list[i].endpoint {
					t.Fatalf("seed %d: %s is at %q, want %+v", seed, id, got, list)
				}
			}
		}
	}
}

func TestAudit_ATK16_PathsOfOnePluginDoNotOverlap(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"/a/", "/a/", true},
		{"/a", "/a/", true},
		{"/a", "/a/b", true},
		{"/a/", "/a/b/c/", true},
		{"/", "/a", true},
		{"/", "/", true},
		{"/a", "/ab", false},
		{"/a/", "/ab/", false},
		{"/a/b", "/a/c", false},
		{"", "", false},
		{"", "/", false},
		{"", "/a", false},
	} {
		if catalog.PathsOverlap(test.a, test.b) != test.want || catalog.PathsOverlap(test.b, test.a) != test.want {
			t.Errorf("%q and %q overlap: %t", test.a, test.b, !test.want)
		}

		c := catalog.New(catalog.Config{})
		register := func(id, runtime, serviceType, path string) error {
			return c.Register(catalog.Registration{ID: id, RuntimeID: runtime, SelfID: "s", Type: serviceType, Version: "1.0.0", Path: path})
		}

		if err := register("1", "r1", "x", test.a); err != nil {
			t.Fatal(err)
		}

		if err := register("2", "r1", "y", test.b); errors.Is(err, catalog.ErrOverlap) != test.want {
			t.Errorf("%q beside %q: %v", test.b, test.a, err)
		}

		if err := register("3", "r1", "x", test.a); err != nil {
			t.Errorf("the same type again: %v", err)
		}

		if err := register("4", "r2", "z", test.b); err != nil {
			t.Errorf("another runtime: %v", err)
		}
	}
}

package catalog_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

// Who has little mass beside the others is found all the same, once those were tried.
func TestCandidates_PassOverNobody(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})
	weights := []int{1, 1000, 1, 1000, 1}

	for i, weight := range weights {
		r := reg(fmt.Sprint(i), "log", fmt.Sprintf("1.%d.0", i%2))
		r.Weight = weight
		register(t, c, r)
		c.SetEndpoint(r.RuntimeID, "https://h:1")
	}

	c.SetStrategy("log", catalog.StrategyWeighted)

	for _, text := range []string{"", ">=1.0.0"} {
		for range 200 { // each begins with another one
			var tried []string

			for range weights {
				found := c.Candidates("log", constraint(t, text), tried, nil)
				if len(found) != len(weights)-len(tried) {
					t.Fatalf("constraint %q: %d of %d candidates after %q", text, len(found), len(weights)-len(tried), tried)
				}

				if slices.Contains(tried, found[0].RuntimeID) {
					t.Fatalf("constraint %q: %q again after %q", text, found[0].RuntimeID, tried)
				}

				tried = append(tried, found[0].RuntimeID)
			}
		}
	}
}

// However many are out of use, the one that is not stands in.
func TestSubstitute_FindsTheOneOfMany(t *testing.T) {
	t.Parallel()

	c := offers(t, catalog.Config{})

	const many = 300
	for i := range many {
		r := reg(fmt.Sprint(i), "log", "1.0.0")
		register(t, c, r)
		c.SetEndpoint(r.RuntimeID, "https://h:1")

		if i > 1 {
			setHealth(c, r.RuntimeID, catalog.HealthUnhealthy)
		}
	}

	for range 100 { // chance decides where the search begins
		if got, ok := c.Substitute("log", "0"); !ok || got.RuntimeID != "1" {
			t.Fatalf("got %q, %t", got.RuntimeID, ok)
		}
	}
}

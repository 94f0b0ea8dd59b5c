package headers_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/headers"
)

// long are names of 25 KB, which callers choose: each once took the host a millisecond of a call. No name that is reserved is
// that long, nor does one begin or stand in them.
var long = map[string]string{
	"underscores":      strings.Repeat("_", 25<<10),
	"words":            "A" + strings.Repeat("_a", 25<<9),
	"almost a part":    "X" + strings.Repeat("_secre", 25<<10/6),
	"begins of parts":  "C" + strings.Repeat("c", 25<<10),
	"dashes":           strings.Repeat("A-", 25<<9),
	"a trailer":        "Trailer-X" + strings.Repeat("_", 25<<10),
	"a reserved part":  strings.Repeat("_", 25<<10) + "bearer",
	"a reserved start": "X_plugin_" + strings.Repeat("_", 25<<10),
}

// Whether a name passes is decided where it stands: no copy of it is made, however long it is.
func TestNoCopyOfANameIsMade(t *testing.T) {
	rules := headers.NewRules("X-Company-Key")
	for what, name := range long {
		if n := testing.AllocsPerRun(10, func() { rules.Passes(res, name) }); n != 0 {
			t.Errorf("%s: %.0f allocations", what, n)
		}
	}
}

// What is decided of a long name is what the rulebook says.
func TestLongNames(t *testing.T) {
	t.Parallel()
	for what, name := range long {
		for _, d := range []headers.Direction{req, res, trl} {
			if got, want := headers.NewRules().Passes(d, name), wantDirections(name)&d != 0; got != want {
				t.Errorf("%s in %v: %t, want %t", what, d, got, want)
			}
		}
	}
}

// A name that the operator reserves may be longer than all that the rules know.
func TestALongNameIsReserved(t *testing.T) {
	t.Parallel()
	name := "X-" + strings.Repeat("Long-", 100) + "Key"
	rules := headers.NewRules(name)
	for _, spelled := range []string{name, strings.ReplaceAll(name, "-Long-", "-Long_"), "X_" + strings.ToLower(strings.ReplaceAll(name, "-", "_"))[2:]} {
		if !headers.NewRules().Passes(req, http.CanonicalHeaderKey(spelled)) || rules.Passes(req, http.CanonicalHeaderKey(spelled)) {
			t.Errorf("%s passes: %t", spelled, rules.Passes(req, http.CanonicalHeaderKey(spelled)))
		}
	}
	if !rules.Passes(req, name+"s") || !rules.Passes(req, http.CanonicalHeaderKey(strings.ReplaceAll(name, "-Long-", "-Long_")+"s")) {
		t.Error("a longer name does not pass")
	}
}

func BenchmarkPasses(b *testing.B) {
	rules := headers.NewRules()
	for what, name := range long {
		b.Run(what, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(name)))
			for b.Loop() {
				rules.Passes(res, name)
			}
		})
	}
}

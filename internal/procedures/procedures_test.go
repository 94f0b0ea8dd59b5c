package procedures_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/procedures"
)

func TestSetKnowsWhatItLearned(t *testing.T) {
	t.Parallel()

	var s procedures.Set
	if got := s.Name("kv", "/kv/Get"); got != "" {
		t.Errorf("an empty set knows %q", got)
	}

	if got := s.Learn("kv", "/kv/Get"); got != "/kv/Get" {
		t.Errorf("learned %q", got)
	}

	if got := s.Name("kv", "/kv/Put") + s.Name("other", "/kv/Get"); got != "" {
		t.Errorf("it knows %q", got)
	}

	if got := s.Name("kv", "/kv/Get"); got != "/kv/Get" || s.Learn("kv", "/kv/Get") != got {
		t.Errorf("it knows %q", got)
	}
}

// However many paths are answered, and by however many at a time, a set keeps so many.
func TestSetIsBounded(t *testing.T) {
	t.Parallel()

	var s procedures.Set

	s.Learn("honest", "/a")

	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for i := range 200 {
				s.Learn("hostile", fmt.Sprintf("/%d/%d", w, i))
			}
		})
	}

	all.Wait()

	known := 0
	for w := range 4 {
		for i := range 200 {
			if s.Name("hostile", fmt.Sprintf("/%d/%d", w, i)) != "" {
				known++
			}
		}
	}

	if known != procedures.MaxPerGroup {
		t.Errorf("%d of one group, want %d", known, procedures.MaxPerGroup)
	}

	if s.Learn("honest", "/b") != "/b" || s.Name("honest", "/a") != "/a" {
		t.Error("one group takes the room of another")
	}

	total := 0
	for g := range procedures.MaxTotal {
		for i := range 3 {
			if s.Learn(fmt.Sprint(g), fmt.Sprint("/", i)) != "" {
				total++
			}
		}
	}

	if total+known+2 != procedures.MaxTotal {
		t.Errorf("%d in all, want %d", total+known+2, procedures.MaxTotal)
	}
}

// What somebody answers has no name where it could be no procedure.
func TestSetTakesNoFreeText(t *testing.T) {
	t.Parallel()

	var s procedures.Set

	for _, path := range []string{
		"", "/", "kv/Get", "/kv/Get me", "/kv/Get%20me", "/kv/Get?x=1", "/kv/G\u00e4t", "/kv/\x1b[2J", "/kv/\xff", "/kv/a=b",
		"/" + strings.Repeat("a", procedures.MaxLength),
	} {
		if got := s.Learn("kv", path); got != "" {
			t.Errorf("learned %q", got)
		}
	}

	for _, path := range []string{"/acme.v1.Store_2/Get-All", "/Get", "/a/b/c", "/" + strings.Repeat("a", procedures.MaxLength-1)} {
		if got := s.Learn("kv", path); got != path {
			t.Errorf("%q is learned as %q", path, got)
		}
	}
}

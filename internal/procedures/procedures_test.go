package procedures_test

import (
	"fmt"
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

	for what, got := range map[string]string{
		"":         s.Name("kv", "/kv/Put") + s.Name("other", "/kv/Get"),
		"/kv/Get":  s.Name("kv", "/kv/Get"),
		"/kv/Get ": s.Learn("kv", "/kv/Get") + " ",
	} {
		if got != what {
			t.Errorf("got %q, want %q", got, what)
		}
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
			if s.Learn(fmt.Sprint(g), fmt.Sprint(i)) != "" {
				total++
			}
		}
	}

	if total+known+2 != procedures.MaxTotal {
		t.Errorf("%d in all, want %d", total+known+2, procedures.MaxTotal)
	}
}

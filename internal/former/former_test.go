package former_test

import (
	"strconv"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/former"
)

func knows(p *former.Places, name string) bool {
	_, known := p.Known(name)
	return known
}

// A place is known from when it was left, as long as there is room or somebody comes to it.
func TestPlaces(t *testing.T) {
	t.Parallel()
	var p former.Places
	if knows(&p, "a") {
		t.Error("a place is known that nobody left")
	}
	p.Left("a", "/first")
	p.Left("a", "/below")
	p.Left("b", "")
	if path, known := p.Known("a"); !known || path != "/below" || !knows(&p, "b") || knows(&p, "c") {
		t.Error("it knows other places than those that were left")
	}
	for n := range 2 * former.Most {
		p.Left(strconv.Itoa(n), "")
		p.Left(strconv.Itoa(n), "") // which takes no room twice
		if !knows(&p, "a") {
			t.Fatalf("a place that is in use is forgotten after %d others", n+1)
		}
	}
	if knows(&p, "b") || knows(&p, "0") || !knows(&p, strconv.Itoa(2*former.Most-1)) || !knows(&p, strconv.Itoa(former.Most+1)) {
		t.Error("what is forgotten is not what nobody came to for the longest")
	}
}

package former_test

import (
	"strconv"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/former"
)

// A place is known from when it was left, as long as there is room or somebody comes to it.
func TestPlaces(t *testing.T) {
	t.Parallel()
	var p former.Places
	if p.Known("a") {
		t.Error("a place is known that nobody left")
	}
	p.Left("a")
	p.Left("b")
	if !p.Known("a") || !p.Known("b") || p.Known("c") {
		t.Error("it knows other places than those that were left")
	}
	for n := range 2 * former.Most {
		p.Left(strconv.Itoa(n))
		p.Left(strconv.Itoa(n)) // which takes no room twice
		if !p.Known("a") {
			t.Fatalf("a place that is in use is forgotten after %d others", n+1)
		}
	}
	if p.Known("b") || p.Known("0") || !p.Known(strconv.Itoa(2*former.Most-1)) || !p.Known(strconv.Itoa(former.Most+1)) {
		t.Error("what is forgotten is not what nobody came to for the longest")
	}
}

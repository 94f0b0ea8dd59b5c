package h2serve

import (
	"strconv"
	"strings"
	"testing"
)

// A peer that has ever new names of fields, or long ones, fills no memory with them.
func TestNames_AreBounded(t *testing.T) {
	t.Parallel()
	c := &conn{}
	for i := range 10 * mostNames {
		name := "x-" + strconv.Itoa(i)
		if got := c.canonical(name); got != "X-"+strconv.Itoa(i) {
			t.Fatalf("%q is %q for a handler", name, got)
		}
		if got, ok := c.lowerLocked("X-" + strconv.Itoa(i)); got != name || !ok {
			t.Fatalf("%q is sent as %q, %t", name, got, ok)
		}
	}
	if len(c.names) > mostNames || len(c.lower) > mostNames {
		t.Errorf("%d and %d names are remembered", len(c.names), len(c.lower))
	}
	long := &conn{}
	name := strings.Repeat("x", longestName+1)
	if got := long.canonical(name); !strings.EqualFold(got, name) {
		t.Errorf("a long name is %q", got)
	}
	if got, ok := long.lowerLocked("X" + name[1:]); got != name || !ok {
		t.Errorf("a long name is sent as %q, %t", got, ok)
	}
	if len(long.names)+len(long.lower) > 0 {
		t.Error("a long name is remembered")
	}
}

package h2serve

import (
	"strconv"
	"strings"
	"testing"
)

// A peer that has ever new names of fields, or long ones, fills no memory with them.
func TestNames_AreBounded(t *testing.T) {
	t.Parallel()
	var n names
	for i := range 10 * mostNames {
		name := "x-" + strconv.Itoa(i)
		if got := n.canonicalName(name); got != "X-"+strconv.Itoa(i) {
			t.Fatalf("%q is %q for a handler", name, got)
		}
		if got, ok := n.lowerName("X-" + strconv.Itoa(i)); got != name || !ok {
			t.Fatalf("%q is sent as %q, %t", name, got, ok)
		}
	}
	if len(n.canonical) > mostNames || len(n.lower) > mostNames {
		t.Errorf("%d and %d names are remembered", len(n.canonical), len(n.lower))
	}
	var long names
	name := strings.Repeat("x", longestName+1)
	if got := long.canonicalName(name); !strings.EqualFold(got, name) {
		t.Errorf("a long name is %q", got)
	}
	if got, ok := long.lowerName("X" + name[1:]); got != name || !ok {
		t.Errorf("a long name is sent as %q, %t", got, ok)
	}
	if len(long.canonical)+len(long.lower) > 0 {
		t.Error("a long name is remembered")
	}
}

// What is not sent is not sent the second time either.
func TestNames_NotSent(t *testing.T) {
	t.Parallel()
	var n names
	for range 2 {
		for _, name := range []string{"Connection", "Transfer-Encoding", "bad name", ""} {
			if got, ok := n.lowerName(name); ok {
				t.Errorf("%q is sent as %q", name, got)
			}
		}
	}
}

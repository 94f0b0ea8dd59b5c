package h2serve

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unsafe"
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

// What many requests of a connection say alike is one text for all of them, and no more than a few of those are held.
func TestTexts_AreSharedAndFew(t *testing.T) {
	t.Parallel()
	same := func(a, b string) bool { return unsafe.StringData(a) == unsafe.StringData(b) }
	const token = "Bearer abcdefghijklmnopqrstuvwxyz"
	var c texts
	first := c.shared(strings.Clone(token))
	for i := range 10 * usualTexts {
		if got := c.shared(strings.Clone(token)); got != token || !same(got, first) {
			t.Fatalf("request %d has %q, of its own: %t", i, got, !same(got, first))
		}
		if i%2 == 0 {
			continue
		}
		for range usualTexts { // others come as well, and push it out
			_ = c.shared(fmt.Sprintf("another text, number %d", i))
		}
		first = c.shared(strings.Clone(token))
	}
	for _, s := range []string{strings.Repeat("s", shortestText-1), strings.Repeat("l", longestText+1)} {
		if before := c; c.shared(s) != s || c != before {
			t.Errorf("one of %d bytes is held, or another one", len(s))
		}
	}
}

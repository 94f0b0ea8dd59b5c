package heirs_test

import (
	"strconv"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/heirs"
)

// purse is what somebody has, of which something may be missing.
type purse struct{ spent bool }

func TestWhoComesNextHasWhatIsLeft(t *testing.T) {
	t.Parallel()
	var b heirs.Book[*purse]
	inherit := func(key string, ended *bool) *purse {
		return b.Inherit(key, func() bool { return *ended }, func() *purse { return new(purse) }, func(p *purse) bool { return !p.spent })
	}
	var gone, lives bool
	first := inherit("a", &gone)
	gone, first.spent = true, true
	if inherit("a", &lives) != first || inherit("b", &lives) == first {
		t.Error("a has not what its former life left, or b has it, too")
	}
}

// What nobody has and of which nothing is missing is forgotten, and nothing else.
func TestWhatIsWholeIsForgotten(t *testing.T) {
	t.Parallel()
	const living, spent, many = 100, 100, 100_000
	var b heirs.Book[*purse]
	kept := map[string]*purse{}
	most := 0
	for i := range living + spent + many {
		key := strconv.Itoa(i)
		p := b.Inherit(key, func() bool { return i >= living }, func() *purse { return new(purse) }, func(p *purse) bool { return !p.spent })
		if i < living+spent {
			kept[key], p.spent = p, i >= living
		}
		most = max(most, b.Len())
	}
	if most > 2*(living+spent)+256 {
		t.Errorf("%d are kept", most)
	}
	for key, p := range kept {
		if b.Inherit(key, func() bool { return false }, func() *purse { return nil }, nil) != p {
			t.Errorf("%s is forgotten", key)
		}
	}
}

// What several have is kept until all of them ended, whoever came last.
func TestWhatSeveralHaveIsKept(t *testing.T) {
	t.Parallel()
	var b heirs.Book[*purse]
	inherit := func(key string, ended *bool) *purse {
		return b.Inherit(key, func() bool { return *ended }, func() *purse { return new(purse) }, func(p *purse) bool { return !p.spent })
	}
	gone, lives := true, false
	first := inherit("a", &lives)
	for range 100 {
		if inherit("a", &gone) != first {
			t.Fatal("two that live at the same time have not the same")
		}
	}
	others := 0
	crowd := func() {
		for range 10_000 {
			others++
			inherit("other "+strconv.Itoa(others), &gone)
		}
	}
	if crowd(); inherit("a", &gone) != first {
		t.Error("it is forgotten while one of them lives")
	}
	if lives = true; b.Len() > 1_000 {
		t.Errorf("%d are kept", b.Len())
	}
	if crowd(); inherit("a", &gone) == first {
		t.Error("it is kept when all have ended")
	}
}

package semrange

import (
	"testing"

	"github.com/Masterminds/semver/v3"
)

// plain are constraints that nearly everybody writes, and notPlain are others: right or wrong.
var (
	plain = []string{
		"1", "v1.2", "1.2.0", "1.2.0-rc.1", ">=1.2", ">=1.2, <2", ">= 1.2 , < 2", ">=1.2 <2 || ^3.1", "^1.4", "~1.4.2", "~>1.2", "=1.2.0", "!=1.2.0",
		"1.x", "1.2.X", "*", "x", "1.x || 3.x", "1.x, !=1.3", ">=1.0.0-0", ">=1.2-0", "1.2 - 1.4", "v1 - v2", "=>1", "=<1", "1.2.0 || 1.4.0", ">=1.2.0-beta <2",
	}
	notPlain = []string{
		"", " ", "||", "1 ||", ",", "1,", "1, 2", "1 2", "1.2.3.4", "1.2-1.4", "1.2.0-1.4.0", "1.x.3", "1.x.x", "1.x.|", "latest", "<1 >", ">=", "1.2.0+5",
		"1.2.0-a-b", "1.2.0-v1", "1.2-rc", "1 - 2, <3", "1 - 2 || 3", ">=1 - 2", "1 -2", "1<2", "1.2.0-a..b", "1.2.0-a.01", "1.", "1..2", "1.x-a", "1.x-0", "-1", "v", "1.2.0-",
		"1234567890123456", "1.2,,3", "0 - 0\v",
	}
)

// A plain constraint is one that the library reads, and that reads as it looks, so that neither has to be asked.
func checkPlain(t *testing.T, s string) {
	t.Helper()
	if len(s) > MaxLength || words(s) > MaxComparisons || !isPlain(s) {
		return
	}
	if err := misread(s); err != nil {
		t.Errorf("%q is plain, and %v", s, err)
	}
	if _, err := semver.NewConstraint(s); err != nil {
		t.Errorf("%q is plain, and the library: %v", s, err)
	}
}

func TestIsPlain(t *testing.T) {
	t.Parallel()
	for _, s := range plain {
		if !isPlain(s) {
			t.Errorf("%q is not plain", s)
		}
		checkPlain(t, s)
	}
	for _, s := range notPlain {
		if isPlain(s) {
			t.Errorf("%q is plain", s)
		}
	}
	// What is made of their letters in all ways.
	const letters = "1.x-0a >=,|v"
	var all func(s string, more int)
	all = func(s string, more int) {
		checkPlain(t, s)
		if more > 0 {
			for _, c := range letters {
				all(s+string(c), more-1)
			}
		}
	}
	all("", 4)
}

func FuzzIsPlain(f *testing.F) {
	for _, s := range plain {
		f.Add(s)
	}
	for _, s := range notPlain {
		f.Add(s)
	}
	f.Fuzz(checkPlain)
}

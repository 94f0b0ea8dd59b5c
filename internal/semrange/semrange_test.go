package semrange_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/semrange"
)

// ordered is the example of Semantic Versioning 2.0.0 section 11, and more.
var ordered = []string{
	"0.9.9", "1.0.0-0", "1.0.0-2", "1.0.0-10", "1.0.0-99999999999999999999", "1.0.0-999999999999999999990",
	"1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11",
	"1.0.0-beta.11.0", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.9.0", "1.10.0-rc.1", "1.10.0", "2.0.0", "10.0.0",
}

func parse(tb testing.TB, s string) semrange.Version {
	tb.Helper()

	v, err := semrange.ParseVersion(s)
	if err != nil {
		tb.Fatal(err)
	}

	return v
}

func TestCompare(t *testing.T) {
	t.Parallel()

	for i, a := range ordered {
		for j, b := range ordered {
			got := parse(t, a).Compare(parse(t, b))
			if got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("%s against %s is %d", a, b, got)
			}
		}
	}

	if parse(t, "1.2.3+a").Compare(parse(t, "v1.2.3+b")) != 0 {
		t.Error("build metadata or a leading v counts")
	}

	var zero semrange.Version
	if !zero.IsZero() || zero.Compare(parse(t, "0.0.0-0")) >= 0 || parse(t, "0.0.0-0").Compare(zero) <= 0 || zero.Compare(semrange.Version{}) != 0 {
		t.Error("what is no version is not before all versions")
	}
}

func TestParseVersionRefuses(t *testing.T) {
	t.Parallel()

	for _, s := range []string{"", "one", "1.2.3.4", "1.2.3-", "1.2.3-a..b", "-1", strings.Repeat("1", 400)} {
		if v, err := semrange.ParseVersion(s); err == nil || !v.IsZero() {
			t.Errorf("%q is read as %v", s, v)
		}
	}
}

var constraints = []struct {
	text      string
	yes, no   []string
	wantError bool
}{
	{text: "", yes: []string{"1.0.0", "0.0.1-rc.1", "no version", ""}},
	{text: " \t", yes: []string{"no version"}},
	{text: "1.2.0", yes: []string{"1.2.0", "1.2.1", "1.10.0", "2.0.0", "1.3.0-rc.1", "v1.2.0", "1.2.0+x"}, no: []string{"1.2.0-rc.1", "1.1.9", "x", ""}},
	{text: "v1.2", yes: []string{"1.2.0"}, no: []string{"1.1.9"}},
	{text: "1", yes: []string{"1.0.0", "2.0.0"}, no: []string{"0.9.0"}},
	{text: "1.0.0-rc.1", yes: []string{"1.0.0-rc.1", "1.0.0-rc.2", "1.0.0"}, no: []string{"1.0.0-beta.9"}},
	{text: ">=1.2, <2", yes: []string{"1.2.0", "1.99.0"}, no: []string{"1.1.9", "2.0.0", "1.5.0-rc.1", "x"}},
	{text: ">=1.2 <2 || ^3.1", yes: []string{"1.2.0", "3.1.0", "3.9.9"}, no: []string{"2.0.0", "3.0.0", "4.0.0"}},
	{text: "^1.4", yes: []string{"1.4.0", "1.9.0"}, no: []string{"1.3.9", "2.0.0"}},
	{text: "~1.4.2", yes: []string{"1.4.2", "1.4.9"}, no: []string{"1.5.0"}},
	{text: "=1.2.0", yes: []string{"1.2.0"}, no: []string{"1.2.1"}},
	{text: "!=1.2.0", yes: []string{"1.2.1"}, no: []string{"1.2.0"}},
	{text: "1.x", yes: []string{"1.9.0"}, no: []string{"2.0.0"}},
	{text: "*", yes: []string{"0.1.0"}, no: []string{"0.1.0-rc.1", "x"}},
	{text: ">=1.0.0-0", yes: []string{"1.0.0-rc.1", "1.0.0"}, no: []string{"0.9.0"}},
	{text: "<1 >", wantError: true},
	{text: "latest", wantError: true},
	{text: "1.2.3.4", wantError: true},
	{text: "||", wantError: true},
	{text: strings.Repeat("1", 300), wantError: true},
}

func TestConstraint(t *testing.T) {
	t.Parallel()

	for _, tt := range constraints {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()

			c, err := semrange.ParseConstraint(tt.text)
			if (err != nil) != tt.wantError {
				t.Fatalf("error %v", err)
			}

			// Twice, as ranges remember.
			for range 2 {
				for _, version := range tt.yes {
					if !c.Allows(version) {
						t.Errorf("%q is refused", version)
					}
				}

				for _, version := range tt.no {
					if c.Allows(version) {
						t.Errorf("%q is allowed", version)
					}
				}
			}

			if !tt.wantError && c.String() != strings.TrimSpace(tt.text) {
				t.Errorf("text %q", c)
			}
		})
	}
}

func TestConstraintSaysHow(t *testing.T) {
	t.Parallel()

	for _, wrong := range []string{"rubbish", "1.2-1.4"} {
		if _, err := semrange.ParseConstraint(wrong); err == nil || !strings.Contains(err.Error(), `write for example ">=1.2, <2"`) {
			t.Errorf("%s: error %v", wrong, err)
		}
	}
}

func TestConstraintTooLong(t *testing.T) {
	t.Parallel()

	if _, err := semrange.ParseConstraint(strings.Repeat(" ", semrange.MaxLength+1)); !errors.Is(err, semrange.ErrTooLong) {
		t.Errorf("error %v", err)
	}

	if _, err := semrange.ParseConstraint(strings.Repeat(" ", semrange.MaxLength)); err != nil {
		t.Errorf("error %v", err)
	}
}

func TestAnyIsZero(t *testing.T) {
	t.Parallel()

	var zero semrange.Constraint
	if !zero.IsAny() || !semrange.Any.IsAny() || !zero.AllowsVersion(semrange.Version{}) {
		t.Error("the zero constraint refuses something")
	}

	if c, err := semrange.ParseConstraint("*"); err != nil || c.IsAny() || c.AllowsVersion(semrange.Version{}) {
		t.Error("a star allows what is no version")
	}
}

// A range that has seen more versions than it remembers still answers right.
func TestRangeForgetsAndStaysRight(t *testing.T) {
	t.Parallel()

	c, err := semrange.ParseConstraint("<1")
	if err != nil {
		t.Fatal(err)
	}

	for range 2 {
		for major := range 2 {
			for patch := range 600 {
				version := fmt.Sprintf("%d.0.%d", major, patch)
				if c.Allows(version) != (major == 0) {
					t.Fatalf("%s: %v", version, c.Allows(version))
				}
			}
		}
	}
}

func TestAllowsVersionAllocatesNothing(t *testing.T) {
	v, pre := parse(t, "1.5.0"), parse(t, "1.5.0-rc.1")

	for _, text := range []string{"", "1.2.0", "1.5.0-beta.2", ">=1.2, <2", ">=1.2.0-0 <2 || >=3"} {
		c, err := semrange.ParseConstraint(text)
		if err != nil {
			t.Fatal(err)
		}

		if n := testing.AllocsPerRun(100, func() { c.AllowsVersion(v); c.AllowsVersion(pre) }); n != 0 {
			t.Errorf("%q allocates %v times", text, n)
		}
	}
}

func FuzzParseConstraint(f *testing.F) {
	for _, tt := range constraints {
		for _, version := range slices.Concat(tt.yes, tt.no, []string{"1.0.0"}) {
			f.Add(tt.text, version)
		}
	}

	f.Fuzz(func(t *testing.T, text, version string) {
		c, err := semrange.ParseConstraint(text)
		if err != nil {
			if !c.IsAny() || c.String() != "" {
				t.Fatalf("%q: a constraint beside the error %v", text, err)
			}

			return
		}

		allowed := c.Allows(version)
		if c.Allows(version) != allowed {
			t.Fatalf("%q changes its mind about %q", text, version)
		}

		again, err := semrange.ParseConstraint(c.String())
		if err != nil || again.Allows(version) != allowed {
			t.Fatalf("%q read again: %v", text, err)
		}

		v, err := semrange.ParseVersion(version)
		if err != nil && allowed && !c.IsAny() {
			t.Fatalf("%q allows %q", text, version)
		}

		// A minimum allows itself and is monotonic.
		if minimum, err := semrange.ParseVersion(text); err == nil && !v.IsZero() && allowed != (v.Compare(minimum) >= 0) {
			t.Fatalf("%q allows %q: %v", text, version, allowed)
		}
	})
}

func FuzzCompare(f *testing.F) {
	for i := range ordered {
		f.Add(ordered[i], ordered[(i+1)%len(ordered)], ordered[(i+7)%len(ordered)])
	}

	f.Fuzz(func(t *testing.T, x, y, z string) {
		a, errA := semrange.ParseVersion(x)
		b, errB := semrange.ParseVersion(y)
		c, errC := semrange.ParseVersion(z)

		if errors.Join(errA, errB, errC) != nil {
			return
		}

		if a.Compare(parse(t, x)) != 0 || a.Compare(b) != -b.Compare(a) {
			t.Fatalf("%q and %q: no order", x, y)
		}

		if a.Compare(b) <= 0 && b.Compare(c) <= 0 && a.Compare(c) > 0 {
			t.Fatalf("%q, %q, %q: not transitive", x, y, z)
		}
	})
}

func TestAudit_ATK03_ConstraintsCompareWithFewVersions(t *testing.T) {
	t.Parallel()

	for _, one := range []string{"x ", "1.x,", "1||", ">=1.0.0-a ", "<2\t", "* ", "^1.2 || "} {
		text := strings.Repeat(one, semrange.MaxComparisons) + ">0.0"
		if _, err := semrange.ParseConstraint(text); !errors.Is(err, semrange.ErrTooMany) {
			t.Errorf("%q: %v", text, err)
		}

		if _, err := semrange.ParseConstraint(strings.Repeat("^1 || ", semrange.MaxComparisons-1) + "^2"); err != nil {
			t.Error(err)
		}
	}
}

// What is asked for again and again is read right, whatever others ask for meanwhile.
func TestWhatIsAskedForOften(t *testing.T) {
	t.Parallel()

	ask := func() {
		if c, err := semrange.ParseConstraint(">=1.2, <2 || >=7.7"); err != nil || !c.Allows("7.8.0") || c.Allows("2.0.0") {
			t.Errorf("%v, %v", c, err)
		}
	}
	ask()

	for i := range 2_000 { // of somebody who asks for something else each time
		c, err := semrange.ParseConstraint(fmt.Sprintf(">=3.%d", i))
		if err != nil || c.Allows(fmt.Sprintf("3.%d.0", i-1)) || !c.Allows(fmt.Sprintf("3.%d.0", i)) {
			t.Fatalf("%v, %v", c, err)
		}

		if i%100 == 0 {
			ask()
		}
	}
}

package semrange

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// ErrMisread says that a constraint would be read as something else than it looks.
var ErrMisread = errors.New("constraint: reads differently than it looks")

// term is one comparison of a constraint: an operator, the numbers or wildcards of a
// version, and its pre-release.
var term = regexp.MustCompile(`(!=|=>|>=|=<|<=|~>|=|>|<|~|\^)?\s*v?([0-9xX*]+(?:\.[0-9xX*]+)*)` +
	`(?:-([0-9A-Za-z.\-*]+))?(?:\+[0-9A-Za-z.\-]+)?`)

// Parts of a term.
const (
	termOperator = 1
	termCore     = 2
	termPre      = 3
)

// numeric is what somebody writes who means a version and not a pre-release.
var numeric = regexp.MustCompile(`^v?(\d+|[xX*])(\.(\d+|[xX*]))*$`)

// span is a range from one version to another, which has blanks around its hyphen.
var span = regexp.MustCompile(`\s+-\s+`)

// misread refuses a constraint whose author would be surprised by what it accepts: a
// range without blanks ("1.2-1.4"), in which what follows the hyphen is a pre-release;
// a number after a wildcard ("1.x.3"), which nobody looks at; and a version without an
// operator beside another condition ("1.2, <2"), which is then that version alone.
func misread(s string) error {
	for group := range strings.SplitSeq(s, "||") {
		terms := term.FindAllStringSubmatch(group, -1)

		for _, t := range terms {
			if err := misreadTerm(t); err != nil {
				return err
			}

			bare := t[termOperator] == "" && !strings.ContainsAny(t[termCore], "xX*")
			if bare && len(terms) > 1 && !span.MatchString(group) {
				return fmt.Errorf("%w: %q beside another condition is that version alone; write \">=%s\" or \"=%s\"",
					ErrMisread, t[termCore], t[termCore], t[termCore])
			}
		}
	}

	return nil
}

func misreadTerm(t []string) error {
	core, pre := t[termCore], t[termPre]

	if i := strings.IndexAny(core, "xX*"); i >= 0 && strings.ContainsAny(core[i:], "0123456789") {
		return fmt.Errorf("%w: in %q nothing counts after the wildcard; leave it out", ErrMisread, core)
	}

	if looksLikeRange(t[termOperator], core, pre) {
		return fmt.Errorf("%w: in %q, %q would be a pre-release; for a range write \"%s - %s\" with blanks, or \">=%s, <=%s\"",
			ErrMisread, strings.TrimSpace(t[0]), pre, core, pre, core, pre)
	}

	return nil
}

// looksLikeRange reports whether a pre-release looks like the upper end of a range. A
// version has three numbers before its pre-release, and "-0" after an operator is the
// usual way to say that pre-releases count too.
func looksLikeRange(operator, core, pre string) bool {
	end, _, _ := strings.Cut(strings.TrimLeft(pre, "-"), "-")
	if !numeric.MatchString(end) {
		return false
	}

	whole, wild := strings.Count(core, ".") > 1, strings.ContainsAny(core, "xX*")
	if !whole || wild {
		return operator == "" || pre != "0"
	}

	if !strings.Contains(end, ".") {
		return false
	}

	const most = "999999" // a wildcard is the end of a range

	from, errFrom := ParseVersion(core)
	to, errTo := ParseVersion(strings.NewReplacer("x", most, "X", most, "*", most).Replace(end))

	return errFrom != nil || errTo != nil || from.Compare(to) < 0
}

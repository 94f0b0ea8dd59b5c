package semrange

import (
	"cmp"
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
	termBefore   = 4 // what stands between it and the term before, with blanks on both sides
)

const spaces = " \t\n\v\f\r"

// numeric is what somebody writes who means a version and not a pre-release.
var numeric = regexp.MustCompile(`^v?(\d+|[xX*])(\.(\d+|[xX*]))*$`)

// misread refuses a constraint whose author would be surprised by what it accepts: a
// range without blanks ("1.2-1.4"), in which what follows the hyphen is a pre-release, and
// one that ends before it begins ("1.4 - 1.2") or at a wildcard ("1.2 - x"); a number after a
// wildcard ("1.x.3"), which nobody looks at; a wildcard alone behind an operator that leaves none
// or every one of all versions ("<=*"); and a version without an operator beside another condition
// ("1.2, <2"), which is then that version alone.
func misread(s string) error {
	for group := range strings.SplitSeq(s, "||") {
		terms := termsOf(group)
		before := false // the term before is the beginning of a range, and this one its end

		for i, t := range terms {
			if err := misreadTerm(t); err != nil {
				return err
			}

			begins := !before && i+1 < len(terms) && terms[i+1][termBefore] == "-"
			if begins {
				if err := misreadSpan(t, terms[i+1]); err != nil {
					return err
				}
			}

			bare := t[termOperator] == "" && !strings.ContainsAny(t[termCore], "xX*")
			if bare && len(terms) > 1 && !begins && !before {
				return fmt.Errorf("%w: %q beside another condition is that version alone; write \">=%s\" or \"=%s\"",
					ErrMisread, t[termCore], t[termCore], t[termCore])
			}

			before = begins
		}
	}

	return nil
}

// termsOf returns the terms of what has to hold together, and what stands between them.
func termsOf(group string) (terms [][]string) {
	end := 0

	for _, at := range term.FindAllStringSubmatchIndex(group, -1) {
		t := make([]string, termBefore+1)

		for i := range termBefore {
			if from, to := at[2*i], at[2*i+1]; from >= 0 {
				t[i] = group[from:to]
			}
		}

		between := group[end:at[2*termCore]]
		if end > 0 && strings.TrimLeft(between, spaces) != between && strings.TrimRight(between, spaces+"v") != between {
			t[termBefore] = strings.Trim(between, spaces+"v")
		}

		terms, end = append(terms, t), at[1]
	}

	return terms
}

// misreadSpan refuses a range from one version to another that has no version.
func misreadSpan(from, to []string) error {
	if isWild(to[termCore]) {
		return fmt.Errorf("%w: a range that ends with %q has no version; write \">=%s\"", ErrMisread, to[termCore], from[termCore])
	}

	if backward(from[termCore], to[termCore]) {
		return fmt.Errorf("%w: a range from %q to %q has no version; write \"%s - %s\"",
			ErrMisread, from[termCore], to[termCore], to[termCore], from[termCore])
	}

	return nil
}

// backward reports whether a range from one version to another ends before it begins. Numbers that one of them
// does not have do not count: "1.4.2 - 1.4" ends behind all of 1.4.
func backward(from, to string) bool {
	ends := strings.Split(strings.TrimPrefix(to, "v"), ".")

	for i, begin := range strings.Split(strings.TrimPrefix(from, "v"), ".") {
		if i == len(ends) || isWild(begin) || isWild(ends[i]) {
			return false
		}

		begin, end := strings.TrimLeft(begin, "0"), strings.TrimLeft(ends[i], "0")
		if order := cmp.Or(cmp.Compare(len(begin), len(end)), cmp.Compare(begin, end)); order != 0 {
			return order > 0
		}
	}

	return false
}

// isWild reports whether a version begins with a wildcard.
func isWild(core string) bool { return core != "" && strings.IndexByte("xX*", core[0]) >= 0 }

// endless reports whether an operator asks for what lies beyond a version, where a wildcard alone has nothing beyond it.
func endless(operator string) bool {
	switch operator {
	case "<", "<=", "=<", ">", "!=", "^":
		return true
	default:
		return false
	}
}

func misreadTerm(t []string) error {
	core, pre := t[termCore], t[termPre]

	if i := strings.IndexAny(core, "xX*"); i >= 0 && strings.ContainsAny(core[i:], "0123456789") {
		return fmt.Errorf("%w: in %q nothing counts after the wildcard; leave it out", ErrMisread, core)
	}

	if isWild(core) && endless(t[termOperator]) {
		return fmt.Errorf("%w: %q is for no version or for all of them; write \"*\" for any", ErrMisread, t[termOperator]+core)
	}

	if looksLikeRange(t[termOperator], core, pre) && isWild(pre) {
		return fmt.Errorf("%w: in %q, %q would be a pre-release; write \">=%s\"", ErrMisread, strings.TrimSpace(t[0]), pre, core)
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

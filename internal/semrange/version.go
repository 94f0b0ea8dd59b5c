// Package semrange orders versions and decides which of them a consumer accepts.
//
// It holds the one meaning of the field min_version that the registry, the
// dependency graph and the capability broker share. Versions compare as
// Semantic Versioning 2.0.0 section 11 says, so 1.10.0 is above 1.9.0 and
// 1.0.0-rc.1 is below 1.0.0; build metadata does not count.
package semrange

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// Version is a parsed version that compares without allocating. The zero value
// is what [ParseVersion] returns beside an error: only [Any] allows it. A
// Version is a value and safe for concurrent use.
type Version struct {
	parsed *semver.Version
	pre    string
}

// ParseVersion reads a semantic version. A leading v and missing minor or patch
// numbers are accepted: "v1.2" is 1.2.0.
func ParseVersion(s string) (Version, error) {
	parsed, err := semver.NewVersion(s)
	if err != nil {
		return Version{}, fmt.Errorf("version: %w", err)
	}

	return Version{parsed: parsed, pre: parsed.Prerelease()}, nil
}

// IsZero reports whether v is the zero Version, which stands for a version that
// could not be read.
func (v Version) IsZero() bool { return v.parsed == nil }

// Compare returns a negative number when v comes before o, zero when they have
// the same precedence, a positive one when it comes after. The zero Version
// comes before every other.
func (v Version) Compare(o Version) int {
	if v.parsed == nil || o.parsed == nil {
		return cmp.Compare(rank(v), rank(o))
	}

	if d := cmp.Or(
		cmp.Compare(v.parsed.Major(), o.parsed.Major()),
		cmp.Compare(v.parsed.Minor(), o.parsed.Minor()),
		cmp.Compare(v.parsed.Patch(), o.parsed.Patch()),
	); d != 0 {
		return d
	}

	return comparePrerelease(v.pre, o.pre)
}

func rank(v Version) int {
	if v.parsed == nil {
		return 0
	}

	return 1
}

// comparePrerelease compares dot-separated identifiers. A version without a
// pre-release comes after every one with.
func comparePrerelease(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == "":
		return 1
	case b == "":
		return -1
	}

	for {
		var x, y string

		var moreA, moreB bool

		x, a, moreA = strings.Cut(a, ".")
		y, b, moreB = strings.Cut(b, ".")

		if d := compareIdentifier(x, y); d != 0 {
			return d
		}

		if !moreA || !moreB {
			return compareBool(moreA, moreB)
		}
	}
}

// compareIdentifier compares one identifier: numbers by value and below
// everything else, the rest in ASCII order.
func compareIdentifier(a, b string) int {
	numA, numB := isNumber(a), isNumber(b)

	switch {
	case numA && numB:
		a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")

		return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
	case numA || numB:
		return compareBool(numB, numA)
	default:
		return strings.Compare(a, b)
	}
}

func isNumber(s string) bool {
	for _, r := range s {
		if r < '0' || r > '9' {
			return false
		}
	}

	return s != ""
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

package semrange

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/Masterminds/semver/v3"
)

// MaxLength is the most bytes that a constraint may have.
const MaxLength = 256

// MaxComparisons is the most versions that a constraint may compare with: each costs time, before anybody knows whose
// constraint it is.
const MaxComparisons = 16

// maxMemo bounds how many answers one constraint remembers.
const maxMemo = 32

// example is a constraint, for whoever wrote none.
const example = `">=1.2, <2"`

var (
	// ErrTooLong says that a constraint has more than [MaxLength] bytes.
	ErrTooLong = errors.New("constraint: too long")
	// ErrTooMany says that a constraint has more than [MaxComparisons].
	ErrTooMany = fmt.Errorf("constraint: compares with more than %d versions", MaxComparisons)
)

// Constraint says which versions a consumer accepts. The zero value is [Any]. A
// Constraint is a value, immutable to its users and safe for concurrent use.
type Constraint struct {
	raw    string
	min    Version
	ranges *ranges
}

// Any allows every version, also one that is no semantic version.
var Any = Constraint{} //nolint:gochecknoglobals // a constant that Go cannot express as one

// ParseConstraint reads the field min_version:
//
//   - nothing: any version, see [Any];
//   - a plain version such as "1.2.0": that version or a later one. Pre-releases
//     are compared like any other version, so 1.2.0 rejects 1.2.0-rc.1 and
//     accepts 1.3.0-rc.1;
//   - otherwise a constraint in the language of Masterminds/semver, such as
//     ">=1.2, <2", "^1.4", "1.x || 3.x", "=1.2.0". It accepts pre-releases only
//     where it names one.
//
// It fails with [ErrTooLong], with [ErrTooMany], with [ErrMisread] for what would be read as something else
// than it looks, such as "1.2-1.4", or with what the parser of constraints says. What is asked for often
// is read once.
func ParseConstraint(s string) (Constraint, error) {
	if len(s) > MaxLength {
		return Constraint{}, ErrTooLong
	}

	s = strings.TrimSpace(s)
	if s == "" {
		return Any, nil
	}

	if c, ok := lately.get(s); ok {
		return c, nil
	}

	c, err := parseConstraint(s)
	if err == nil {
		lately.keep(c)
	}

	return c, err
}

func parseConstraint(s string) (Constraint, error) {
	if words(s) > MaxComparisons {
		return Constraint{}, fmt.Errorf("%w; write for example %s", ErrTooMany, example)
	}

	plain := isPlain(s)

	if !plain {
		if err := misread(s); err != nil {
			return Constraint{}, fmt.Errorf("%w; write for example %s", unlessImproper(s, err), example)
		}
	}

	s = strings.Clone(s) // it may be a piece of something large

	if version, err := ParseVersion(s); err == nil {
		return Constraint{raw: s, min: version}, nil
	}

	if plain {
		return Constraint{raw: s, ranges: &ranges{text: s}}, nil
	}

	parsed, err := semver.NewConstraint(s)
	if err != nil {
		return Constraint{}, fmt.Errorf("constraint: %w; write for example %s", err, example)
	}

	r := &ranges{text: s, parsed: parsed}
	r.once.Do(func() {})

	return Constraint{raw: s, ranges: r}, nil
}

// unlessImproper returns why a constraint is misread, or that it cannot be read at all.
func unlessImproper(s string, misread error) error {
	if _, err := semver.NewConstraint(s); err != nil {
		return fmt.Errorf("constraint: %w", err)
	}

	return misread
}

// words counts what may be a version in a constraint.
func words(s string) (n int) {
	inside := false

	for _, b := range []byte(s) {
		is := b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || strings.IndexByte(".*+-", b) >= 0
		if is && !inside {
			n++
		}

		inside = is
	}

	return n
}

// IsAny reports whether c allows every version.
func (c Constraint) IsAny() bool { return c.min.IsZero() && c.ranges == nil }

// String returns the text that c was read from, without surrounding space.
func (c Constraint) String() string { return c.raw }

// Allows reports whether c accepts a version given as text. A text that is no
// semantic version is accepted by [Any] alone.
func (c Constraint) Allows(version string) bool {
	if c.IsAny() {
		return true
	}

	parsed, err := ParseVersion(version)

	return err == nil && c.AllowsVersion(parsed)
}

// AllowsVersion is [Constraint.Allows] for a version that is parsed already. It
// allocates nothing, except the first time that a range sees a version.
func (c Constraint) AllowsVersion(v Version) bool {
	switch {
	case c.IsAny():
		return true
	case v.IsZero():
		return false
	case c.ranges == nil:
		return v.Compare(c.min) >= 0
	default:
		return c.ranges.allows(v)
	}
}

// ranges remembers what the constraint said about a version, because asking
// allocates: the library formats an error for each refusal.
type ranges struct {
	text string // fixed at creation

	once   sync.Once
	parsed *semver.Constraints             // of a plain one once it is asked for: most never are
	memo   atomic.Pointer[map[string]bool] // by text; what it points to never changes
}

// read parses a plain constraint, which is one that the library takes.
func (r *ranges) read() { r.parsed, _ = semver.NewConstraint(r.text) }

func (r *ranges) allows(v Version) bool {
	text, memo := v.parsed.Original(), r.memo.Load()

	if memo != nil {
		if allowed, known := (*memo)[text]; known {
			return allowed
		}
	}

	r.once.Do(r.read)

	allowed := r.parsed != nil && r.parsed.Check(v.parsed)
	next := map[string]bool{text: allowed}

	if memo != nil && len(*memo) < maxMemo {
		maps.Copy(next, *memo)
	}

	r.memo.Store(&next)

	return allowed
}

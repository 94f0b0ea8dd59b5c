package semrange_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/semrange"
)

// dearest are constraints of which one message has as many as one may: each takes longest, and none was read before. Of those
// that are plain all are taken.
var dearest = map[string]struct {
	text  func(i int) string
	plain bool
}{
	"as one writes them": {func(i int) string { return fmt.Sprint(">=1.", i, ", <2") }, true},
	"many versions":      {func(i int) string { return fmt.Sprint("<", i, strings.Repeat(" <9", semrange.MaxComparisons-1)) }, true},
	"long ones": {func(i int) string {
		return fmt.Sprint(">=", i, ".2.3-aaaaaa", strings.Repeat(", >1.2.3-aaaaa", semrange.MaxComparisons-1))
	}, true},
	"with builds": {func(i int) string {
		return fmt.Sprint(">=", i, ".2.3+aaaaaa", strings.Repeat(", >1.2.3+aaaaa", semrange.MaxComparisons-1))
	}, false},
	"a long build": {func(i int) string { return fmt.Sprint(">=1.2.3+", i, strings.Repeat("a", semrange.MaxLength-16)) }, false},
	"ranges": {func(i int) string {
		return fmt.Sprint("0 - ", i, strings.Repeat(", 1 - 9", semrange.MaxComparisons/3-1))
	}, false},
}

// The constraints of a message are bounded together: what they take to be read does not grow with how many there may be.
func TestConstraintsTogether(t *testing.T) {
	t.Parallel()
	for what, c := range dearest {
		var together semrange.Together
		var err error
		versions, length, n := 0, 0, 0
		for ; n < 256 && err == nil; n++ {
			text := c.text(n)
			if _, err = together.Parse(text); err == nil {
				length += len(text)
				versions += strings.Count(text, ",") + 1
			}
		}
		if c.plain != (err == nil) || err != nil && !errors.Is(err, semrange.ErrTooMuch) {
			t.Errorf("%s: the %dth: %v", what, n, err)
		}
		if !c.plain && (versions > semrange.MaxTotalComparisons || length > semrange.MaxTotalLength || n < semrange.MaxTotalLength/semrange.MaxLength) {
			t.Errorf("%s: %d that compare with %d versions and have %d bytes were read", what, n, versions, length)
		}
	}
}

// What is wrong with one is said of it, and what says nothing counts for nothing.
func TestConstraintsTogetherOneByOne(t *testing.T) {
	t.Parallel()
	var together semrange.Together
	for range 2 * semrange.MaxTotalLength / semrange.MaxLength {
		if c, err := together.Parse(strings.Repeat(" ", semrange.MaxLength)); err != nil || !c.IsAny() {
			t.Fatalf("%v, %v", c, err)
		}
	}
	for text, want := range map[string]error{strings.Repeat("1", 300): semrange.ErrTooLong, "1.2-1.4": semrange.ErrMisread} {
		if _, err := together.Parse(text); !errors.Is(err, want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// BenchmarkConstraintsTogether is what the constraints of one handshake take: 250 of them, each new.
func BenchmarkConstraintsTogether(b *testing.B) {
	for what, c := range dearest {
		b.Run(what, func(b *testing.B) {
			i := 0
			for b.Loop() {
				var together semrange.Together
				for range 250 {
					i++
					if _, err := together.Parse(c.text(1_000_000 + i)); err != nil {
						break
					}
				}
			}
		})
	}
}

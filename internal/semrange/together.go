package semrange

import (
	"fmt"
	"strings"
)

// Most of what the constraints of one message that are not plain may have together. To read one of these takes a tenth of
// a millisecond and more, and a message has hundreds of constraints.
const (
	MaxTotalComparisons = 256
	MaxTotalLength      = 4 << 10
)

// ErrTooMuch says that those of a message have more than that together.
var ErrTooMuch = fmt.Errorf("constraints: those that are more than comparisons, ranges and wildcards of plain versions "+
	"have more than %d bytes or compare with more than %d versions together", MaxTotalLength, MaxTotalComparisons)

// Together reads the constraints of one message. The zero value has read none. It is not safe for concurrent use.
type Together struct{ comparisons, length int }

// Parse is [ParseConstraint], and fails with [ErrTooMuch] without having looked where the message has too much.
func (t *Together) Parse(s string) (Constraint, error) {
	if len(s) > MaxLength {
		return Constraint{}, ErrTooLong
	}
	if s = strings.TrimSpace(s); s != "" && !isPlain(s) {
		t.length += len(s)
		t.comparisons += words(s)
	}
	if t.length > MaxTotalLength || t.comparisons > MaxTotalComparisons {
		return Constraint{}, ErrTooMuch
	}
	return ParseConstraint(s)
}

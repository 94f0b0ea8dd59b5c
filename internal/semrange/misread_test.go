package semrange_test

import (
	"errors"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/semrange"
)

// What looks like a range and would not be one is refused; what reads as it looks is not.
func TestAudit_USE38_AConstraintIsReadAsItLooks(t *testing.T) {
	t.Parallel()

	for _, text := range []string{
		"1.2-1.4", "1-2", "1.2-2", "1.2.0-1.4.0", "1.2.0-2.0", "v1.2-v1.4", "1.2-v1.4", "1.2.3-4.5.6", "1.2--1.4", "1.2-1.4-1.6",
		"^1.2-1.4", ">=1.2-2.0", "<1.2-1.4", "=1.2-1.4", "~ 1.2-1.4", "!=1-2", ">1.2-1.4, <9", "<9 >1.2-1.4", "1.2-1.4 || 3.x", "3.x||1-2",
		"1.x-2.x", "1.2.0-1.x", "*-2", ">=1.2.x-1", "1.2-0", " 1.2-1.4 ", "2.0-1.0",
		"1.x.3", "x.1", "*.2.3", ">=1.x.3",
		"1.2 - x", "1.2 - *", "* - *", "1.4 - 1.2", "2 - 1.9.9", "v2.0.0 - v1.4", "1.10 - 1.9", "3.x || 1.4 - 1.2",
		"<=x", "<*", "< X", ">*", "!=x", "^*", "^v*", ">=1, <*", "<=x.x",
		"1.2 - 1.4, 1.3", "1.9, 1.2 - 1.4", "1.2 - 1.x 1.3",
		"1.2 1.4", "1.2, 1.4", "1.2, <2", "<2 1.2", "1.2.0 >1", "3.x || 1.2, <2",
	} {
		if _, err := semrange.ParseConstraint(text); !errors.Is(err, semrange.ErrMisread) {
			t.Errorf("%q: %v, want ErrMisread", text, err)
		}
	}

	for _, text := range []string{
		"1.2", "1.2.0", "v1", "1.2.0-rc.1", "1.2-beta", "1.0.0-0.3.7", "1.0.0-2", "1.2.0-20260101", "1.2.0-rc.1+5", "1.2.0-2a.3",
		">=1.2", ">=1.2-0", "^1.x-0", ">=1.2.0-0 <2 || >=3", ">= 1.2, < 2", ">=1.2 <2 || ^3.1", "1.x || 3.x", "1.2.0 || 1.4.0",
		"1.2 - 1.4", "1.2.0-rc.1 - 1.4", "1.4.2 - 1.4", "1.9 - 1.10", "1.2.0-a - 1.2.0", "* - 2", "1.2 - 1.4.x", "1.2 - 1.4, <1.4.2", "1.2 - 1.4 || 3 - 4",
		">=*", "=x", "~*", "1.x", "1.x.x", "*", "1.x, !=1.3", "~>1.2", "=1.2.0",
	} {
		if _, err := semrange.ParseConstraint(text); err != nil {
			t.Errorf("%q is refused: %v", text, err)
		}
	}

	c, err := semrange.ParseConstraint("1.2 - 1.4")
	if err != nil || !c.Allows("1.3.0") || c.Allows("9.0.0") {
		t.Errorf("a range with blanks: %v", err)
	}
}

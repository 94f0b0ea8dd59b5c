package router_test

import (
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// A constraint has the blanks of whoever wrote it, such as a line feed at the end of a file. It is stated in a header field.
func TestRouter_AConstraintWithBlanks(t *testing.T) {
	t.Parallel()
	rig := echo.NewRig(t, echo.Service{}.Handler(), nil)
	for _, constraint := range []string{"1.0.0\n", "\t^1.0\r\n", ">=0.9,\n<2"} {
		conn, err := rig.Caller.Service(t.Context(), echo.Type, constraint)
		if err != nil {
			t.Errorf("%q: %v", constraint, err)
			continue
		}
		if out := echo.CallUnary(t.Context(), conn, nil, nil); out.Err != nil {
			t.Errorf("%q: %v", constraint, out.Err)
		}
		conn.Close()
	}
}

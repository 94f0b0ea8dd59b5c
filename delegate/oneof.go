package delegate

import (
	"fmt"

	"connectrpc.com/connect"
)

// OneOf returns an error with [connect.CodeInvalidArgument] where more than one of
// the parameters that stand for the fields of a oneof is set.
func OneOf(name string, set ...bool) error {
	n := 0
	for _, s := range set {
		if s {
			n++
		}
	}
	if n > 1 {
		return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%d fields of the oneof %s are set, at most one can be", n, name))
	}
	return nil
}

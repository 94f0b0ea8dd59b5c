package taken_test

import (
	"net"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/taken"
)

type listener struct {
	net.Listener

	n int
}

type (
	empty        struct{}
	incomparable struct {
		net.Listener

		_ []int
	}
	wrapped struct{ net.Listener }
)

func (*empty) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (*empty) Close() error              { return nil }
func (*empty) Addr() net.Addr            { return nil }

// A listener is one's until it is given back. One that cannot be told from others is everybody's.
func TestTake(t *testing.T) {
	t.Parallel()
	one, other := &listener{n: 1}, &listener{n: 1}
	for what, tt := range map[string]struct {
		first, second net.Listener
		ok            bool
	}{
		"the same":                {one, one, false},
		"another":                 {one, other, true},
		"the same value":          {wrapped{one}, wrapped{one}, false},
		"a value with another":    {wrapped{one}, wrapped{other}, true},
		"none":                    {nil, nil, true},
		"what has no size":        {&empty{}, &empty{}, true},
		"what cannot be compared": {incomparable{}, incomparable{}, true},
		"a value of such a thing": {wrapped{incomparable{}}, wrapped{incomparable{}}, true},
	} {
		give, ok := taken.Take(tt.first)
		if !ok {
			t.Fatalf("%s: the first has it not", what)
		}
		second, ok := taken.Take(tt.second)
		if ok != tt.ok {
			t.Errorf("%s: the second has it: %t", what, ok)
		}
		if ok {
			second()
		}
		give()
		if again, ok := taken.Take(tt.second); !ok {
			t.Errorf("%s: it is not given back", what)
		} else {
			again()
		}
	}
}

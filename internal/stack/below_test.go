package stack_test

import (
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/stack"
)

// called calls f, below so many others.
func called(n int, f func() bool) bool {
	if n > 0 {
		return called(n-1, f)
	}
	return f()
}

// A function is seen as far above as it may be, in its own goroutine alone.
func TestBelow(t *testing.T) {
	t.Parallel()
	is := func() bool { return stack.Below("stack_test.nobody", "stack_test.called") }
	if is() || !called(0, is) || !called(1000, is) {
		t.Error("it is seen where it is not, or not where it is")
	}
	elsewhere := make(chan bool)
	if called(1, func() bool { go func() { elsewhere <- is() }(); return <-elsewhere }) {
		t.Error("it is seen in another goroutine")
	}
}

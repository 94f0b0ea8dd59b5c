package stack_test

import (
	"testing"
	"unsafe"

	"github.com/masegraye/connect-plugin-go/internal/stack"
)

// deep uses n frames of some 100 bytes each.
//
//go:noinline
func deep(n int) int {
	var frame [64]byte

	frame[n%len(frame)] = 1
	if n == 0 {
		return int(frame[0])
	}

	return deep(n-1) + int(frame[0])
}

// A stack that has grown is not copied by calls that are not deeper than was made room
// for.
func TestGrow(t *testing.T) {
	t.Parallel()

	moved := make(chan bool)

	go func() {
		stack.Grow()

		var here byte

		before := uintptr(unsafe.Pointer(&here))
		_ = deep(24)
		after := uintptr(unsafe.Pointer(&here))
		moved <- before != after
	}()

	if <-moved {
		t.Error("the stack was copied again")
	}
}

// Package stack prepares goroutines that will call deep.
package stack

// room is what [Grow] makes room for, beside what is in use: more than a call through a
// host needs, so that a stack of 2 or 4 KiB becomes one of 8 KiB and stays so.
const room = 4 << 10

// Grow grows the stack of the calling goroutine, if it is still small. A server's
// goroutine begins with a small one, and the runtime copies that frame by frame when it
// is full: early, while there are few frames, this costs a fraction of what it costs
// below the last of them.
//
//go:noinline
func Grow() {
	var frame [room]byte

	touch(&frame)
}

// touch has the frame exist.
//
//go:noinline
func touch(frame *[room]byte) { frame[0] = 1 }

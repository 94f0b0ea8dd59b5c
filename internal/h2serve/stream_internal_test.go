package h2serve

import (
	"sync"
	"testing"
	"time"
	"unsafe"
)

// A host has a stream for each watch: it is one piece, as large as fits without a word more.
func TestStream_IsOnePiece(t *testing.T) {
	t.Parallel()
	const most = 512 // beyond it the runtime adds a word, and the next size is a good deal larger
	if n := unsafe.Sizeof(stream{}); n > most {
		t.Errorf("%d bytes, %d fit", n, most)
	}
}

// A deadline for a request that is complete takes no timer: nothing is waited for.
func TestStream_NoTimerForWhatIsThere(t *testing.T) {
	t.Parallel()
	for _, complete := range []bool{true, false} {
		c := &conn{s: &Server{cfg: Config{ConnWindow: initialWindow}}}
		st := &stream{c: c, remote: complete}
		st.can.L = new(sync.Mutex)
		st.ctx.InitKept(t.Context())
		st.deadline(reading, time.Now().Add(time.Hour))
		if timed := st.timers[reading] != nil; timed == complete {
			t.Errorf("complete: %t, and a timer: %t", complete, timed)
		}
		st.deadline(writing, time.Now().Add(time.Hour))
		if st.timers[writing] == nil {
			t.Error("a response has no deadline")
		}
		st.deadline(reading, time.Time{})
		st.deadline(writing, time.Time{})
		if st.deadline(reading, time.Unix(1, 0)); st.readErr == nil {
			t.Error("a deadline that has passed does not end reading")
		}
	}
}

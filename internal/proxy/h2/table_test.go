package h2_test

import (
	"testing"

	"golang.org/x/net/http2"
)

// A connection begins without a table of the fields of calls, and uses one once many calls go. The table of
// the server stays as it was.
func TestATableWhereManyCallsGo(t *testing.T) {
	t.Parallel()
	const calls, few = 100, 20
	c, p := connect(t, config())
	var sizes []uint32 // of heads
	for range calls {
		s, _ := open(t, c, get)
		f := <-p.frames
		if f.Type != http2.FrameHeaders || len(p.fieldsOf(f.payload)) != len(get.Fields) {
			t.Fatalf("frame %v", f.FrameHeader)
		}
		sizes = append(sizes, f.Length)
		p.headers(f.StreamID, true, ":status", "200", "x-of-theirs", "the same each time")
		if _, _, err := s.Head(); err != nil {
			t.Fatal(err)
		}
	}
	if begin, then, end := sizes[1], sizes[few], sizes[calls-1]; then != begin || end >= begin {
		t.Errorf("heads take %d bytes at first, %d after %d, %d in the end", begin, then, few, end)
	}
}

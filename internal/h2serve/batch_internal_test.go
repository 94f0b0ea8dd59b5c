package h2serve

import (
	"bytes"
	"testing"
)

// What is to be written keeps its bytes while it grows, and what is given back serves the next one, whatever was
// appended to it meanwhile.
func TestABatchGrows(t *testing.T) {
	t.Parallel()
	var out, want []byte
	for n := 1; len(want) < 2*batchSizes[len(batchSizes)-1]; n = n*3/2 + 1 {
		piece := bytes.Repeat([]byte{byte(n)}, n)
		out = growBatch(out, n)
		if room := cap(out) - len(out); room < n {
			t.Fatalf("room for %d of %d bytes", room, n)
		}
		out, want = append(out, piece...), append(want, piece...)
		if !bytes.Equal(out, want) {
			t.Fatalf("after %d bytes it is not what was appended", len(want))
		}
	}
	for _, size := range batchSizes {
		odd := append(getBatch(size), make([]byte, size+1)...) // as one frame more than there is room for
		putBatch(odd)
		for _, n := range []int{size, size + 1} {
			if got := getBatch(n); len(got) != 0 || cap(got) < n {
				t.Fatalf("a batch for %d bytes has %d, and room for %d", n, len(got), cap(got))
			}
		}
	}
}

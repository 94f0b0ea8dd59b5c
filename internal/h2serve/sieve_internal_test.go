package h2serve

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// Wherever a block is cut, the decoder gets whole fields: of a part it would keep as much room for as long as the connection lasts,
// which thousands of connections have.
func TestSieve_PassesWholeFields(t *testing.T) {
	t.Parallel()
	value := strings.Repeat("&", 6_000) // of which Huffman's code makes no less
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, name := range []string{"a", "b"} {
		_ = enc.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: name == "a"})
	}
	for _, cut := range []int{1, 2, 5, 3_000, block.Len() / 2, block.Len() - 1} {
		h := newHeads(4 * leastString)
		h.left = h.most
		s := &sieve{decoder: h.decoder, longest: uint64(h.most), table: &h.table, loose: h.tooLarge}
		for _, part := range [][]byte{block.Bytes()[:cut], block.Bytes()[cut:]} {
			if err := s.write(part); err != nil {
				t.Fatalf("cut after %d bytes: %v", cut, err)
			}
			if err := h.decoder.Close(); err != nil {
				t.Errorf("cut after %d bytes the decoder keeps a part: %v", cut, err)
			}
		}
		if len(h.fields) != 2 || h.fields[0].Value != value || h.fields[1].Value != value || !s.whole() {
			t.Errorf("cut after %d bytes %d fields come of two", cut, len(h.fields))
		}
	}
}

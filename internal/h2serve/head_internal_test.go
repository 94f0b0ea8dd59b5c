package h2serve

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/h2frame"
)

// cutBlock are the frames of a header block, in pieces of some length.
func cutBlock(t *testing.T, block []byte, piece int) *http2.Framer {
	t.Helper()
	return cutBlockInto(t, new(bytes.Buffer), block, piece)
}

func cutBlockInto(t *testing.T, out *bytes.Buffer, block []byte, piece int) *http2.Framer {
	t.Helper()
	f := http2.NewFramer(out, out)
	for i := 0; ; i += piece {
		p, last := block[i:min(i+piece, len(block))], i+piece >= len(block)
		var err error
		if i == 0 {
			err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p, EndHeaders: last})
		} else {
			err = f.WriteContinuation(1, last, p)
		}
		if err != nil {
			t.Fatal(err)
		}
		if last {
			return f
		}
	}
}

// readBlock reads a block that comes in pieces.
func readBlock(t *testing.T, h *heads, block []byte, piece int) (*http2.MetaHeadersFrame, error) {
	t.Helper()
	f := cutBlock(t, block, piece)
	first, err := f.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	head, _ := first.(*http2.HeadersFrame)
	return h.read(head, f.ReadFrame)
}

// Whatever is too long about a head, and wherever its block is cut: its request alone is too large, and what
// it did to the table is known to the heads after it.
func TestHeads_KeepTheTable(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		dice := rand.New(rand.NewPCG(seed, 3))
		h := newHeads(leastString)
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		enc.SetMaxDynamicTableSizeLimit(tableSize)
		for range 30 {
			if dice.IntN(5) == 0 {
				enc.SetMaxDynamicTableSize(uint32(dice.IntN(tableSize)))
			}
			fields := []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":path", Value: "/" + string(rune('a'+dice.IntN(20)))}}
			size := uint32(0)
			for range dice.IntN(8) {
				f := hpack.HeaderField{Name: "x-" + string(rune('a'+dice.IntN(9))), Value: strings.Repeat("v", dice.IntN(300)), Sensitive: dice.IntN(3) == 0}
				switch dice.IntN(6) {
				case 0: // longer than a string may be, with Huffman's code or without
					f.Value = strings.Repeat(string(rune("a~\x7f"[dice.IntN(2)])), 3*leastString)
				case 1:
					f.Name = strings.Repeat("n", 3*leastString)
				}
				fields = append(fields, f)
			}
			block.Reset()
			for _, f := range fields {
				size += f.Size()
				_ = enc.WriteField(f)
			}
			long := size > leastString
			got, err := readBlock(t, h, block.Bytes(), 1+dice.IntN(leastString))
			if err != nil {
				if errors.Is(err, errTooLong) {
					break // too many pieces: the connection ends
				}
				t.Fatalf("seed %d: %v", seed, err)
			}
			if got.Truncated != long || !long && !slices.Equal(got.Fields, fields) {
				t.Fatalf("seed %d: %d bytes: too large %v, %d fields, want %v", seed, size, got.Truncated, len(got.Fields), fields)
			}
			if got.PseudoValue("path") != fields[1].Value {
				t.Fatalf("seed %d: the path is %q", seed, got.PseudoValue("path"))
			}
		}
	}
}

// A field that is too long and would be added to the table empties it, whichever of its strings is too long.
func TestHeads_EmptyTheTable(t *testing.T) {
	t.Parallel()
	const size = 3 * leastString
	long := slices.Concat(hpackLength(size), bytes.Repeat([]byte{'v'}, size))
	short, last := []byte{0x40, 1, 'x', 1, 'y'}, []byte{0xbe}
	for name, added := range map[string][]byte{
		"value": slices.Concat([]byte{0x40, 1, 'n'}, long),
		"name":  slices.Concat([]byte{0x40}, long, []byte{1, 'v'}),
		"both":  slices.Concat([]byte{0x40}, long, long),
	} {
		for _, more := range []bool{false, true} {
			h := newHeads(32 << 10)
			for _, block := range [][]byte{short, last} {
				if _, err := readBlock(t, h, block, leastFrame); err != nil {
					t.Fatal(err)
				}
			}
			block := added
			if more {
				block = slices.Concat(added, short)
			}
			if got, err := readBlock(t, h, block, leastFrame-7); err != nil || !got.Truncated {
				t.Fatalf("%s: %v, %v", name, got, err)
			}
			got, err := readBlock(t, h, last, leastFrame)
			if more != (err == nil) || more && got.Fields[0].Value != "y" {
				t.Errorf("%s, and another field %t: what was added last is %v, %v", name, more, got, err)
			}
			if _, err := readBlock(t, h, []byte{0xbf}, leastFrame); err == nil {
				t.Errorf("%s: what was added before is there", name)
			}
		}
	}
}

// hpackLength is the length of a string.
func hpackLength(n int) []byte {
	out := []byte{0x7f}
	for n -= 0x7f; n >= 0x80; n >>= 7 {
		out = append(out, byte(n)|0x80)
	}
	return append(out, byte(n))
}

// Of a head that is too large the content type is known, and nothing else but whom it was for.
func TestHeads_KeepTheKindOfWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	for name, fields := range map[string][]hpack.HeaderField{
		"before": {{Name: ":path", Value: "/"}, {Name: contentType, Value: "application/grpc"}, {Name: "x", Value: strings.Repeat("v", 40_000)}},
		"after":  {{Name: ":path", Value: "/"}, {Name: "x", Value: strings.Repeat("v", 90_000)}, {Name: contentType, Value: "application/grpc"}},
		"many": append(slices.Repeat([]hpack.HeaderField{{Name: "x", Value: "y"}}, 2000), hpack.HeaderField{Name: contentType, Value: "application/grpc"},
			hpack.HeaderField{Name: "X-BAD", Value: "\x00"}),
	} {
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		for _, f := range fields {
			_ = enc.WriteField(f)
		}
		got, err := readBlock(t, newHeads(32<<10), block.Bytes(), leastFrame)
		if err != nil || !got.Truncated || len(got.RegularFields()) != 1 || got.RegularFields()[0].Value != "application/grpc" {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func beyond(h *heads) int {
	n, _ := h.worth()
	return n
}

// Fields beyond those that are usual count the more the more of them there are, in however many pieces they come; those
// of which nothing is kept count one each.
func TestAudit_ATK14_ManyFieldsCountMore(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ fields, largest, want int }{
		{64, 32 << 10, 0},
		{100, 32 << 10, 36},
		{300, 32 << 10, 684},
		{900, 32 << 10, 7428},
		{2000, 34 * 100, 36 + 1900},
		{3000, 1 << 20, 2936 + 50*190 + 1937*20},
	} {
		for _, piece := range []int{leastFrame, 100} {
			var block bytes.Buffer
			enc := hpack.NewEncoder(&block)
			for range tt.fields {
				_ = enc.WriteField(hpack.HeaderField{Name: "x", Value: "y"})
			}
			h := newHeads(uint32(tt.largest))
			for range 2 {
				if _, err := readBlock(t, h, block.Bytes(), piece); err != nil {
					t.Fatal(err)
				}
				if _, many := h.worth(); many != tt.want {
					t.Errorf("%d fields of at most %d bytes in pieces of %d count %d, want %d", tt.fields, tt.largest, piece, many, tt.want)
				}
			}
		}
	}
}

// A head that is bad is read to its end, which the table needs, and of what follows nothing is looked at. It is worth
// what its fields are, and not the bytes that stand for them.
func TestAudit_H48_ABadHeadIsWorthItsFields(t *testing.T) {
	t.Parallel()
	const times, size = 16_000, 3_900
	const path, last = 0x84, 0xbe // with their values from the tables
	bad := slices.Concat([]byte{path, path}, bytes.Repeat([]byte{last}, times))
	for name, f := range map[string]hpack.HeaderField{
		"names":           {Name: strings.Repeat("n", size)},
		"values":          {Name: "x", Value: strings.Repeat("v", size)},
		"malformed names": {Name: strings.Repeat("N", size)},
	} {
		for _, piece := range []int{leastFrame, leastFrame / 4} {
			h := newHeads(32 << 10)
			var block bytes.Buffer
			_ = hpack.NewEncoder(&block).WriteField(f)
			first := block.Len()
			if _, err := readBlock(t, h, block.Bytes(), leastFrame); err != nil && f.Name[0] != 'N' {
				t.Fatal(err)
			}
			if got, want := beyond(h), max(int(f.Size())-first, 0); got != want {
				t.Errorf("%s: the first head is worth %d bytes more than came, want %d", name, got, want)
			}
			paths := 2 * int((hpack.HeaderField{Name: ":path", Value: "/"}).Size())
			_, err := readBlock(t, h, bad, piece)
			if broken, ok := errors.AsType[http2.StreamError](err); !ok || broken.Code != http2.ErrCodeProtocol {
				t.Fatalf("%s: %v", name, err)
			}
			if got, want := beyond(h), paths+times*int(f.Size())-len(bad); got != want {
				t.Errorf("%s, in pieces of %d: the head is worth %d bytes more than came, want %d", name, piece, got, want)
			}
			if h.broken || beyond(h) != 0 {
				t.Errorf("%s: a field of a head that was bad already was looked at", name)
			}
		}
	}
}

// However often a head that is too large says what kind it is, that is kept once.
func TestAudit_H14_WhatIsTooLargeHasOneKind(t *testing.T) {
	t.Parallel()
	h := newHeads(leastString)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for range 4 * leastString {
		_ = enc.WriteField(hpack.HeaderField{Name: contentType, Value: "application/proto"})
	}
	got, err := readBlock(t, h, block.Bytes(), leastFrame)
	if err != nil {
		t.Fatal(err)
	}
	const most = leastString / (32 + len(contentType)) // that would have been taken
	if !got.Truncated || len(got.Fields) > most {
		t.Errorf("%d fields are kept of %d bytes (too large: %v)", len(got.Fields), block.Len(), got.Truncated)
	}
}

// A block without end is not read to its end, and what is no block breaks the connection.
func TestHeads_EndWithTheirConnection(t *testing.T) {
	t.Parallel()
	const most = 32 << 10
	endless := slices.Repeat([]byte{0x90}, mostBlock*most)
	long := []byte{0x00, 0x7f, 0xff, 0xff, 0x7f} // a name of which most is missing
	for name, tt := range map[string]struct {
		block []byte
		piece int
		want  error
	}{
		"endless":              {endless, leastFrame, errTooLong},
		"endless, in crumbs":   {endless[:mostBlock*most/h2frame.HeadLen], 1, errTooLong},
		"a string cut off":     {slices.Concat(long, make([]byte, leastFrame)), leastFrame / 2, errCompression},
		"a number cut off":     {append([]byte{0x82}, 0xff, 0x80), 2, errCompression},
		"a length cut off":     {[]byte{0x00, 0x01, 'a', 0x7f, 0x80}, 4, errCompression},
		"a number without end": {append([]byte{0xff}, slices.Repeat([]byte{0x80}, 40)...), 3, errCompression},
		"no such field":        {[]byte{0xc0}, 5, errCompression},
	} {
		if _, err := readBlock(t, newHeads(most), tt.block, tt.piece); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

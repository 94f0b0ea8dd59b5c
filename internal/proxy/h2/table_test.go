package h2_test

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
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

// What one caller chooses takes no place in the table of a connection: the calls of others are as short after a call
// with many fields, with a large one or with one that is like no other call's as they were before. All of them arrive.
func TestAudit_H48_FieldsOfACallerTakeNoPlaceInTheTable(t *testing.T) {
	t.Parallel()
	const calls = 40 // after which there is a table
	c, p := connect(t, config())
	call := func(r h2.Request) (length int, fields []hpack.HeaderField) {
		t.Helper()
		s, _ := open(t, c, r)
		f := p.want(http2.FrameHeaders)
		block := f.payload
		for !f.Flags.Has(http2.FlagHeadersEndHeaders) {
			f = p.want(http2.FrameContinuation)
			block = append(block, f.payload...)
		}
		fields = p.fieldsOf(block)
		p.headers(f.StreamID, true, ":status", "200")
		if _, _, err := s.Head(); err != nil {
			t.Fatal(err)
		}
		return len(block), fields
	}
	usual := 0
	for range calls {
		usual, _ = call(get)
	}
	var own h2.Literals
	var want []hpack.HeaderField
	for i := range 700 {
		value := strings.Repeat("v", i%300)
		own.Add("X-"+strconv.Itoa(i), value)
		want = append(want, hpack.HeaderField{Name: "x-" + strconv.Itoa(i), Value: value})
	}
	sensitive := hpack.HeaderField{Name: "a", Value: "b", Sensitive: true}
	large := hpack.HeaderField{Name: "large", Value: strings.Repeat("x", 3000)}
	longest := hpack.HeaderField{Name: "longest", Value: strings.Repeat("x", 70_000)}
	for name, r := range map[string]h2.Request{
		"many":      {Fields: get.Fields, Own: &own, End: true},
		"sensitive": {Fields: append(slices.Clip(get.Fields), sensitive), End: true},
		"large":     {Fields: append(slices.Clip(get.Fields), large, longest), End: true},
	} {
		_, fields := call(r)
		var all []hpack.HeaderField
		if all = append(all, r.Fields...); r.Own != nil {
			all = append(all, want...)
		}
		for i := range all {
			all[i].Sensitive = false
		}
		if !slices.Equal(fields, all) {
			t.Errorf("%s: %d fields came, want %d: %.300v", name, len(fields), len(all), fields)
		}
		if length, _ := call(get); length != usual {
			t.Errorf("%s: a call after it has a head of %d bytes, one before it of %d", name, length, usual)
		}
	}
	own.Reset()
	if _, fields := call(h2.Request{Fields: get.Fields, Own: &own, End: true}); len(fields) != len(get.Fields) {
		t.Errorf("%d fields after a reset", len(fields))
	}
}

// The size of a caller's own fields counts towards what the server takes.
func TestAudit_USE04_OwnFieldsCount(t *testing.T) {
	t.Parallel()
	var own h2.Literals
	own.Add("x", "y")
	size := 34
	for _, f := range get.Fields {
		size += int(f.Size())
	}
	for limit, want := range map[int]error{size: nil, size - 1: h2.ErrTooLarge} {
		c, _ := connect(t, config(), http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: uint32(limit)})
		s, _, err := c.Open(h2.Request{Fields: get.Fields, Own: &own, End: true})
		if !errors.Is(err, want) {
			t.Errorf("%d of %d bytes: %v", size, limit, err)
		}
		if err == nil {
			s.Close()
		}
	}
}

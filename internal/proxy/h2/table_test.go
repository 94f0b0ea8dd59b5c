package h2_test

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/http2"
)

// A connection begins without tables of header fields, and uses them once many calls go.
func TestTablesWhereManyCallsGo(t *testing.T) {
	t.Parallel()
	const calls, few, size = 100, 20, 4096
	c, p := connect(t, config())
	first, last, at := 0, 0, 0
	for n := 1; n <= calls; n++ {
		s, _ := open(t, c, get)
		f := <-p.frames
		if f.Type == http2.FrameSettings {
			if at > 0 || binary.BigEndian.Uint16(f.payload) != uint16(http2.SettingHeaderTableSize) || binary.BigEndian.Uint32(f.payload[2:]) != size {
				t.Fatalf("settings %x, after those of call %d", f.payload, at)
			}
			at, f = n, <-p.frames
		}
		if f.Type != http2.FrameHeaders || len(p.fieldsOf(f.payload)) != len(get.Fields) {
			t.Fatalf("frame %v", f.FrameHeader)
		}
		if last = int(f.Length); n == 2 {
			first = last
		}
		p.headers(f.StreamID, true, ":status", "200", "x-of-theirs", "the same each time")
		if _, _, err := s.Head(); err != nil {
			t.Fatal(err)
		}
	}
	if at < few {
		t.Errorf("a table comes with call %d (0: never), want it later than %d", at, few)
	}
	if last >= first {
		t.Errorf("a head takes %d bytes in the end, %d in the beginning", last, first)
	}
}

package h2serve

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Nothing is kept of long heads that are whole, neither what came of them nor what they came in: a thousand connections may have
// sent some. It looks at the memory of the process, and so is alone.
func TestConn_KeepsNothingOfLongHeads(t *testing.T) {
	const many, most = 100, 6 << 10
	for name, lengths := range map[string][]int{"in one frame": {12_000}, "in two": {12_000, 12_000}} {
		t.Run(name, func(t *testing.T) {
			var block, frames bytes.Buffer
			enc := hpack.NewEncoder(&block)
			_ = enc.WriteField(hpack.HeaderField{Name: ":path", Value: "/"})
			for _, n := range lengths {
				_ = enc.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("&", n)})
			}
			cutBlockInto(t, &frames, block.Bytes(), leastFrame)
			all := make([]*conn, many)
			before := inUse()
			for i := range all {
				all[i] = readAll(t, frames.Bytes())
			}
			if each := (inUse() - before) / many; each > most {
				t.Errorf("a connection keeps %d bytes of a head of %d", each, block.Len())
			}
			runtime.KeepAlive(all)
		})
	}
}

// readAll has a connection read heads, and wait for more.
func readAll(t *testing.T, frames []byte) *conn {
	t.Helper()
	c := &conn{reader: &ahead{from: io.MultiReader(bytes.NewReader(frames), waiting{})}, blocks: newHeads(leastFrame * 4)}
	c.renewFramer()
	for {
		f, err := c.framer.ReadFrame()
		if first, ok := f.(*http2.HeadersFrame); ok {
			_, err = c.head(first)
			c.blocks.release()
		}
		if errors.Is(err, errWaits) {
			return c
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

var errWaits = errors.New("nothing more comes")

// waiting has nothing more.
type waiting struct{}

func (waiting) Read([]byte) (int, error) { return 0, errWaits }

// inUse is what the heap holds.
func inUse() int {
	runtime.GC()
	runtime.GC() // of what pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

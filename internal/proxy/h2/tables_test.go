package h2_test

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/h2frame/frametest"
)

// A connection keeps to the table sizes of its server, whatever is under way: also where they change
// many times between two calls, and where tables are begun with meanwhile.
func TestConn_KeepsToTheTablesOfItsServer(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			dice := rand.New(rand.NewPCG(seed, 1))
			c, p := connect(t, config())
			tables := frametest.NewTables(0)
			for range 80 {
				for dice.IntN(2) == 0 {
					p.must(tables.Announce(dice, p.fr))
				}
				r := get
				r.Fields = append(slices.Clip(r.Fields), hpack.HeaderField{Name: "x-" + strconv.Itoa(dice.IntN(40)), Value: "some"})
				s, _ := open(t, c, r)
				p.headers(p.call(tables, r.Fields), true, ":status", "200", "x-of-theirs", strconv.Itoa(dice.IntN(20)))
				if _, _, err := s.Head(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// call waits for a call with the fields, and returns its stream.
func (p *peer) call(tables *frametest.Tables, want []hpack.HeaderField) uint32 {
	p.t.Helper()
	for {
		f, ok := <-p.frames
		switch {
		case !ok:
			p.t.Fatal("the connection has ended")
		case f.Type == http2.FrameSettings && f.Flags.Has(http2.FlagSettingsAck):
			p.must(tables.Acked())
		case f.Type == http2.FrameHeaders:
			got, err := tables.Decode(f.payload)
			if p.must(err); !slices.Equal(got, want) {
				p.t.Fatalf("fields %v, want %v", got, want)
			}
			return f.StreamID
		}
	}
}

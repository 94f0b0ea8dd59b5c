package h2serve_test

import (
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"testing"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/h2frame/frametest"
)

// A server keeps to the table sizes of its peer, whatever is under way: also where they change many
// times between two answers, and where tables are begun with meanwhile.
func TestServer_KeepsToTheTablesOfItsPeer(t *testing.T) {
	t.Parallel()
	r := start(t, config(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for i, v := range r.Header["X-Say"] {
			w.Header().Set("X-Said-"+strconv.Itoa(i), v)
		}
		_, _ = io.WriteString(w, "said")
		w.Header().Set(http.TrailerPrefix+"X-Last", r.Header.Get("X-Last"))
	})))
	for seed := range uint64(4) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			dice, w := rand.New(rand.NewPCG(seed, 1)), dial(t, r.addr)
			tables := frametest.NewTables(1)
			w.ReadMetaHeaders = nil
			for id := uint32(1); id < 160; {
				from := id
				for range 1 + dice.IntN(5) {
					for dice.IntN(3) == 0 {
						w.ok(tables.Announce(dice, w.Framer))
					}
					w.request(id, true, map[string]string{
						"x-say": strconv.Itoa(dice.IntN(30)), "x-last": strconv.Itoa(dice.IntN(9)), "x-" + strconv.Itoa(dice.IntN(40)): "some",
					})
					id += 2
				}
				w.answers(tables, int(id-from)/2)
			}
		})
	}
}

// answers reads so many answers.
func (w *wire) answers(tables *frametest.Tables, n int) {
	w.t.Helper()
	for n > 0 {
		f, err := w.ReadFrame()
		w.ok(err)
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if f.IsAck() {
				w.ok(tables.Acked())
				continue
			}
			if size, ok := f.Value(http2.SettingHeaderTableSize); ok {
				w.enc.SetMaxDynamicTableSize(size)
			}
			w.ok(w.WriteSettingsAck())
		case *http2.HeadersFrame:
			_, err := tables.Decode(f.HeaderBlockFragment())
			if w.ok(err); f.StreamEnded() {
				n--
			}
		case *http2.GoAwayFrame, *http2.RSTStreamFrame:
			w.t.Fatal(f)
		default:
		}
	}
}

package h2serve_test

import (
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// A connection begins without a table of the fields of answers, and uses one once many requests come. The
// table of the peer stays as it was.
func TestATableWhereManyRequestsCome(t *testing.T) {
	t.Parallel()
	const requests, few = 100, 20
	cfg := config(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Date"] = nil
		w.Header().Set("X-Of-Ours", "the same each time")
	}))
	cfg.IdleTimeout, cfg.PingAfter, cfg.PingTimeout, cfg.WriteTimeout = time.Hour, time.Hour, time.Hour, time.Hour // no look meanwhile
	w := dial(t, start(t, cfg).addr)
	var sizes []uint32 // of heads
	next := func(f http2.Frame) bool {
		if settings, ok := f.(*http2.SettingsFrame); ok {
			if size, ok := settings.Value(http2.SettingHeaderTableSize); ok {
				t.Errorf("after %d requests a table of %d is announced", len(sizes), size)
			}
		}
		head, ok := f.(*http2.MetaHeadersFrame)
		if ok && head.PseudoValue("status") == "200" && len(head.RegularFields()) > 0 {
			sizes = append(sizes, f.Header().Length)
		}
		return ok
	}
	for id := uint32(1); id < 2*requests; id += 2 {
		w.request(id, true, map[string]string{"x-of-theirs": "the same each time"})
		if w.until(next) == nil {
			t.Fatalf("request %d is not served", id)
		}
	}
	if len(sizes) != requests {
		t.Fatalf("%d of %d answers", len(sizes), requests)
	}
	if begin, then, end := sizes[1], sizes[few], sizes[requests-1]; then != begin || end >= begin {
		t.Errorf("heads take %d bytes at first, %d after %d, %d in the end", begin, then, few, end)
	}
}

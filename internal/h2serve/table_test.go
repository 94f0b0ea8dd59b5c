package h2serve_test

import (
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// A connection begins without tables of header fields, uses them once many requests come, and serves all
// of them.
func TestTablesWhereManyRequestsCome(t *testing.T) {
	t.Parallel()
	const requests, few = 100, 20
	cfg := config(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Of-Ours", "the same each time")
	}))
	cfg.IdleTimeout, cfg.PingAfter, cfg.PingTimeout, cfg.WriteTimeout = time.Hour, time.Hour, time.Hour, time.Hour // no look meanwhile
	w := dial(t, start(t, cfg).addr)
	begins := make(map[uint32]int) // by size, after so many requests
	served := 0
	next := func(f http2.Frame) bool {
		settings, ok := f.(*http2.SettingsFrame)
		if ok {
			if size, ok := settings.Value(http2.SettingHeaderTableSize); ok {
				begins[size] = served
			}
		}
		head, ok := f.(*http2.MetaHeadersFrame)
		return ok && head.PseudoValue("status") == "200" && len(head.RegularFields()) > 0
	}
	for id := uint32(1); id < 2*requests; id += 2 {
		w.request(id, true, map[string]string{"x-of-theirs": "the same each time"})
		if w.until(next) == nil {
			t.Fatalf("request %d is not served", id)
		}
		served++
	}
	if at, ok := begins[0]; !ok || at > 0 {
		t.Errorf("it does not begin without a table: %v", begins)
	}
	if at, ok := begins[4096]; !ok || at < few {
		t.Errorf("a table comes not at all, or too early: %v", begins)
	}
}

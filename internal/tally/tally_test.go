package tally_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/tally"
)

func TestTableAddsUp(t *testing.T) {
	t.Parallel()

	var table tally.Table

	edge := tally.Edge{Caller: "a", Provider: "b", Type: "kv"}
	at := time.Unix(100, 0)

	for i, code := range []uint32{0, 0, 5, 14, 1, 0} {
		table.Add(edge, tally.Call{
			Code: code, Duration: time.Duration(i+1) * time.Millisecond, Request: 10, Response: 100, End: at.Add(time.Duration(i) * time.Second),
		})
	}

	table.Add(tally.Edge{Caller: "a", Provider: "a", Type: "kv"}, tally.Call{Duration: time.Hour})

	rows := table.Rows()
	if len(rows) != 2 || rows[0].Provider != "a" || rows[1].Provider != "b" {
		t.Fatalf("rows %+v", rows)
	}

	r := rows[1]
	if r.Calls != 6 || r.Ended != [4]uint64{tally.OK: 3, tally.Caller: 1, tally.Provider: 1, tally.Canceled: 1} || r.Failed() != 2 {
		t.Errorf("calls %d, ended %v, failed %d", r.Calls, r.Ended, r.Failed())
	}

	if r.Request != 60 || r.Response != 600 || r.Total != 21*time.Millisecond || r.Mean() != 3500*time.Microsecond {
		t.Errorf("bytes %d, %d, total %v, mean %v", r.Request, r.Response, r.Total, r.Mean())
	}

	if r.LastCode != 1 || !r.LastError.Equal(at.Add(4*time.Second)) || !r.LastCall.Equal(at.Add(5*time.Second)) {
		t.Errorf("last code %d at %v, last call %v", r.LastCode, r.LastError, r.LastCall)
	}

	// 1, 2, 3, 4, 5 and 6 ms lie in the buckets up to 1, 2, 5, 5, 5 and 10 ms.
	for q, want := range map[float64]time.Duration{0: time.Millisecond, 0.3: 2 * time.Millisecond, 0.5: 5 * time.Millisecond, 1: 10 * time.Millisecond} {
		if got := r.Quantile(q); got != want {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}

	if got := rows[0].Quantile(0.5); got != 10*time.Second {
		t.Errorf("above the last bucket: %v", got)
	}

	var none tally.Row
	if none.Mean() != 0 || none.Quantile(0.5) != 0 {
		t.Errorf("without calls: %v, %v", none.Mean(), none.Quantile(0.5))
	}
}

func TestClassOf(t *testing.T) {
	t.Parallel()

	want := [18]tally.Class{
		tally.OK, tally.Canceled, tally.Provider, tally.Caller, tally.Provider, tally.Caller, tally.Caller, tally.Caller, tally.Provider,
		tally.Caller, tally.Caller, tally.Caller, tally.Caller, tally.Provider, tally.Provider, tally.Provider, tally.Caller, tally.Provider,
	}
	for code, class := range want {
		if got := tally.ClassOf(uint32(code)); got != class {
			t.Errorf("code %d: class %d, want %d", code, got, class)
		}
	}
}

// However many names there are, the table keeps so many, and loses no call.
func TestTableIsBounded(t *testing.T) {
	t.Parallel()

	table := tally.Table{Max: 10}
	for i := range 1000 {
		table.Add(tally.Edge{Caller: fmt.Sprint(i)}, tally.Call{})
	}

	var calls uint64

	rows := table.Rows()
	for _, r := range rows {
		calls += r.Calls
	}

	if len(rows) != 11 || calls != 1000 || rows[0].Caller != tally.Other || rows[0].Calls != 990 {
		t.Errorf("%d rows, %d calls, first %+v", len(rows), calls, rows[0])
	}
}

func TestFeed(t *testing.T) {
	t.Parallel()

	var feed tally.Feed[int]

	feed.Publish(0)

	if feed.Followed() {
		t.Error("followed by nobody")
	}

	quick, slow := feed.Follow(), feed.Follow()

	for i := range 300 {
		feed.Publish(i)

		if got := <-quick.C; got != i {
			t.Fatalf("got %d, want %d", got, i)
		}
	}

	if quick.Missed() != 0 || len(slow.C) != 256 || slow.Missed() != 44 || slow.Missed() != 0 {
		t.Errorf("the slow one has %d", len(slow.C))
	}

	quick.Close()
	quick.Close()
	slow.Close()
	feed.Publish(1)

	if _, ok := <-quick.C; ok || feed.Followed() {
		t.Error("a closed follower gets events")
	}

	var all []*tally.Follower[int]
	for f := feed.Follow(); f != nil; f = feed.Follow() {
		all = append(all, f)
	}

	if len(all) != 64 {
		t.Errorf("%d followers", len(all))
	}

	all[0].Close()

	if feed.Follow() == nil {
		t.Error("no room after one was closed")
	}
}

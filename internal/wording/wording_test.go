package wording_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/wording"
)

// speaker says what is asked for between a preface and an end, and what it was asked in.
func speaker(w http.ResponseWriter, r *http.Request) {
	rec := wording.RecordOf(r.Context())
	_, _ = io.WriteString(w, "preface")
	rec.Begin()
	what, _ := rec.What.(string)
	_, _ = io.WriteString(w, what+"|"+r.Header.Get("Content-Type")+"|"+r.Header.Get("Connect-Accept-Encoding")+"|"+
		r.Header.Get("Grpc-Accept-Encoding")+"|"+r.URL.Path)
	if what == "message" {
		rec.Stop()
	}
	_, _ = io.WriteString(w, "|end")
	w.Header().Set(http.TrailerPrefix+"Status", "1")
}

func TestForm_SaysWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		what string
		head http.Header
		want string
	}{
		{"message", http.Header{"Content-Type": {"application/connect+proto"}}, "message|application/connect+proto||||/p"},
		{
			"message",
			http.Header{"Content-Type": {"application/connect+json"}, "Connect-Content-Encoding": {"gzip"}},
			"message|application/connect+json|gzip||/p",
		},
		{"end", http.Header{"Content-Type": {"application/grpc"}, "Grpc-Encoding": {"gzip"}}, "end|application/grpc||gzip|/p|end"},
	} {
		said, header := wording.FormOf(tt.head).Say(http.HandlerFunc(speaker), "/p", tt.what)
		if want := strings.Replace(tt.want, "||||", "|||", 1); string(said) != want || header.Get(http.TrailerPrefix+"Status") != "1" {
			t.Errorf("%q, want %q; %v", said, want, header)
		}
	}
	if wording.RecordOf(context.Background()) != nil {
		t.Error("a record of nothing")
	}
}

// What was said is not said again, unless it was forgotten, or is too long to be kept.
func TestMemory_RecallsWhatWasSaid(t *testing.T) {
	t.Parallel()
	var m wording.Memory[string]
	said := 0
	recall := func(key string, length int) []byte {
		return m.Recall(key, func() []byte {
			said++
			return bytes.Repeat([]byte(strconv.Itoa(said%10)), length)
		})
	}
	if a, b := recall("a", 1), recall("a", 1); string(a) != "1" || string(b) != "1" {
		t.Errorf("%s, then %s", a, b)
	}
	if b := recall("b", 1); string(b) != "2" {
		t.Errorf("another: %s", b)
	}
	const long = 1 << 20
	if one, two := recall("long", long), recall("long", long); one[0] == two[0] {
		t.Error("what is long was kept")
	}
	for i := range 100 {
		recall(strconv.Itoa(i), 1)
	}
	before := said
	if recall("a", 1); said != before+1 {
		t.Error("all of it was kept")
	}
}

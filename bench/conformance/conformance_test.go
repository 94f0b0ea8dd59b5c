package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func TestMessages(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	for _, m := range []string{"", "one", strings.Repeat("x", 70_000)} {
		if err := writeMessage(&b, []byte(m)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := hex.EncodeToString(b.Bytes()[:11]), "00000000"+"00000003"+"6f6e65"; got != want {
		t.Errorf("wrote %s, want %s", got, want)
	}
	for _, want := range []int{0, 3, 70_000} {
		if m, err := readMessage(&b); err != nil || len(m) != want {
			t.Errorf("read %d bytes, %v; want %d", len(m), err, want)
		}
	}
	if _, err := readMessage(&b); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	for name, in := range map[string]string{"cut head": "\x00\x00", "cut body": "\x00\x00\x00\x02a", "huge": "\xff\xff\xff\xff"} {
		if _, err := readMessage(strings.NewReader(in)); err == nil || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestServerOfMessage(t *testing.T) {
	t.Parallel()
	other := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "a test")
	first := server{host: "127.0.0.1", port: 70, cert: []byte("old")}
	second := server{host: "localhost", port: 80, cert: []byte("new")}
	m := appendServer(slices.Clone(other), first, requestHost, requestPort, requestCert)
	for _, want := range []server{first, second} {
		if want.port == second.port {
			m = appendServer(m, second, requestHost, requestPort, requestCert)
		}
		got, err := readServer(m, requestHost, requestPort, requestCert)
		if err != nil || got.host != want.host || got.port != want.port || !bytes.Equal(got.cert, want.cert) {
			t.Errorf("read %+v, %v; want %+v", got, err, want)
		}
	}
	for name, m := range map[string][]byte{"no server": other, "malformed": {0xff}, "cut": m[:len(m)-1]} {
		if _, err := readServer(m, requestHost, requestPort, requestCert); !errors.Is(err, errMessage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOutcomeOfRun(t *testing.T) {
	t.Parallel()
	passed, total, err := outcome([]byte("FAILED: x\n\nTotal cases: 12\n11 passed, 1 failed\n"))
	if passed != 11 || total != 12 || err != nil {
		t.Errorf("outcome = %d, %d, %v", passed, total, err)
	}
	if _, _, err := outcome([]byte("cannot start\n")); !errors.Is(err, errCases) {
		t.Errorf("outcome of no run: %v", err)
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	ok := func(edit func(*counts)) counts {
		c := counts{Received: 100, Routed: 100, Answered: 98, Outcomes: map[string]int{"ok": 97, "canceled": 2, "refused": 1}}
		if edit != nil {
			edit(&c)
		}
		return c
	}
	for name, test := range map[string]struct {
		passed, total int
		sum           counts
		want          error
	}{
		"all passed":           {100, 100, ok(nil), nil},
		"one failed":           {99, 100, ok(nil), errCases},
		"other cases":          {99, 99, ok(nil), errCases},
		"passed without route": {100, 100, ok(func(c *counts) { c.Routed = 99 }), errCalls},
		"few calls":            {100, 100, counts{Received: 50, Routed: 50, Outcomes: map[string]int{"ok": 49, "refused": 1}}, errCalls},
		"provider unavailable": {100, 100, ok(func(c *counts) { c.Outcomes["ok"], c.Outcomes["unavailable"] = 96, 1 }), errCalls},
		"one refused more":     {100, 100, ok(func(c *counts) { c.Outcomes["ok"], c.Outcomes["refused"] = 96, 2 }), errCalls},
	} {
		m := mode{cases: 100, refusals: 1}
		if err := m.judge(test.passed, test.total, test.sum); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

func TestCountsOfProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tally := &tally{}
	tally.receive()
	tally.receive()
	tally.routed("ok", 200)
	tally.routed("canceled", 0)
	if err := tally.store(dir); err != nil {
		t.Fatal(err)
	}
	sum, err := loadCounts(dir)
	if err != nil || sum.Received != 2 || sum.Routed != 2 || sum.Answered != 1 || list(sum.Outcomes) != "1 canceled, 1 ok" || list(sum.Refused) != "none" {
		t.Errorf("counts = %+v, %v", sum, err)
	}
}

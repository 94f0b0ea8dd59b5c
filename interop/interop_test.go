package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/interop/echo"
)

// TestMain lets the test's own program be the peers that are written in Go.
func TestMain(m *testing.M) {
	if os.Getenv(echo.Env) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestGoPeers plays the table with the peers that need Go alone, and the cases that all of them can
// play by themselves and that are quick.
func TestGoPeers(t *testing.T) {
	pairs := []string{
		"ours:connectgo", "ours:grpcgo", "connectgo:connectgo-grpc", "grpcgo:grpcgo", "grpcgo:connectgo-grpc", "ours:ours",
	}
	cases := []string{
		echo.CaseUnary, echo.CaseClient, echo.CaseServer, echo.CaseBidi, echo.CaseHalfClose,
		echo.CaseDetails, echo.CaseDetails20, echo.CaseStreams, echo.CaseLarge,
	}
	o := options{
		pairs: strings.Join(pairs, ","), only: strings.Join(cases, ","),
		streams: 120, large: 4 << 20, peers: "peers", cache: t.TempDir(),
	}
	var out bytes.Buffer
	if err := o.run(t.Context(), &out); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	if n, want := strings.Count(out.String(), " ok"), len(pairs)*len(cases); n < want {
		t.Errorf("%d cells are ok, want %d:\n%s", n, want, &out)
	}
}

// TestTableTells checks that a failure reaches the table, with its reason, and the exit code.
func TestTableTells(t *testing.T) {
	p := pair{&peer{name: "a"}, &peer{name: "b"}}
	for state, want := range map[state]struct {
		red  bool
		text string
	}{
		green:     {false, "ok"},
		red:       {true, "RED a:b kill: because"},
		redToo:    {false, "peer a:b kill: because"},
		notPlayed: {false, "-"},
	} {
		table := newTable([]pair{p})
		table.set(p, echo.CaseKill, result{state: state, text: "because"})
		var out bytes.Buffer
		table.print(&out)
		if table.red() != want.red || !strings.Contains(out.String(), want.text) {
			t.Errorf("%v: red is %v, and the table says\n%s", state, table.red(), &out)
		}
	}
}

// TestPairsOfFlag checks which pairs a flag means.
func TestPairsOfFlag(t *testing.T) {
	w := newWorld("self", "peers", t.TempDir())
	for flag, want := range map[string]int{"": 18, "all": 52, "ours:curl": 1, "ours:curl,grpcgo:grpcio": 2} {
		got, err := w.pairs(flag)
		if err != nil || len(got) != want {
			t.Errorf("%q: %d pairs, %v, want %d", flag, len(got), err, want)
		}
	}
	if _, err := w.pairs("ours:nobody"); err == nil {
		t.Error("a caller that there is not was accepted")
	}
}

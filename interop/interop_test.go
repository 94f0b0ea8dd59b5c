package main

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
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

// TestAudit_USE47_Balancers plays what is installed of the balancers in front of a host, and
// names what is not.
func TestAudit_USE47_Balancers(t *testing.T) {
	var out bytes.Buffer
	if err := playFronts(t.Context(), &out, slog.New(slog.DiscardHandler)); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	for _, f := range fronts() {
		if !strings.Contains(out.String(), f.name) {
			t.Errorf("%s is not in the table:\n%s", f.name, &out)
		}
	}
	t.Log(out.String())
}

// TestReadHeader reads headers of the PROXY protocol.
func TestReadHeader(t *testing.T) {
	for text, want := range map[string]string{
		"PROXY TCP4 192.0.2.1 192.0.2.2 4711 8443\r\nrest":                                           "192.0.2.1:4711",
		"PROXY TCP6 2001:db8::1 2001:db8::2 4711 8443\r\nrest":                                       "[2001:db8::1]:4711",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x12\x67\x20\xfbrest": "192.0.2.1:4711",
		"\x16\x03\x01\x02\x00 hello, hello":                                                          "", "PROXY UNKNOWN\r\n": "", "": "",
	} {
		in := bufio.NewReader(strings.NewReader(text))
		got, err := readHeader(in)
		if rest, _ := io.ReadAll(in); want == "" && err == nil || want != "" && (err != nil || got.String() != want || string(rest) != "rest") {
			t.Errorf("%q: %v, %v, rest %q", text, got, err, rest)
		}
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

package main

import (
	"fmt"
	"io"
	"sync"

	"github.com/masegraye/connect-plugin-go/interop/echo"
)

// table is how the cases went. It is safe for concurrent use.
type table struct {
	pairs []pair

	mu    sync.Mutex
	cells map[string]result // by pair and case
}

func newTable(pairs []pair) *table { return &table{pairs: pairs, cells: map[string]result{}} }

func (t *table) set(p pair, name string, r result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cells[p.String()+" "+name] = r
}

func (t *table) get(p pair, name string) result {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cells[p.String()+" "+name]
}

// red reports whether a case failed that holds without the host, or was not played without.
func (t *table) red() bool {
	for _, p := range t.pairs {
		for _, name := range echo.Cases() {
			if t.get(p, name).state == red {
				return true
			}
		}
	}
	return false
}

func (s state) String() string {
	switch s {
	case green:
		return "ok"
	case red:
		return "RED"
	case redToo:
		return "peer"
	default:
		return "-"
	}
}

func (t *table) say(out io.Writer, p pair, name string, r result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = fmt.Fprintf(out, "%s %s: %s %s\n", p, name, r.state, r.text)
}

// print prints the table, and below it each reason.
func (t *table) print(out io.Writer) {
	_, _ = fmt.Fprintf(out, "\n%-34s", "provider:caller")
	for _, name := range echo.Cases() {
		_, _ = fmt.Fprintf(out, " %*s", width(name), name)
	}
	_, _ = fmt.Fprintln(out)
	for _, p := range t.pairs {
		_, _ = fmt.Fprintf(out, "%-34s", p)
		for _, name := range echo.Cases() {
			_, _ = fmt.Fprintf(out, " %*s", width(name), t.get(p, name).state)
		}
		_, _ = fmt.Fprintln(out)
	}
	_, _ = fmt.Fprintln(out, "ok: holds. RED: fails through the host. peer: fails without the host, too. -: not played.")
	for _, p := range t.pairs {
		for _, name := range echo.Cases() {
			if r := t.get(p, name); r.state == red || r.state == redToo {
				_, _ = fmt.Fprintf(out, "%s %s %s: %s\n", r.state, p, name, r.text)
			}
		}
	}
}

func width(name string) int { return max(len(name), len("peer")) }

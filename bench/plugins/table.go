package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/masegraye/connect-plugin-go/bench/plugins/side"
)

// print prints the table; an error says that this library left something behind.
func (r *results) print(out io.Writer, p *plan) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(cells ...string) {
		for _, c := range cells {
			_, _ = fmt.Fprint(w, c, "\t")
		}
		_, _ = fmt.Fprintln(w)
	}
	row("", "own", "go-plugin", "own/go-plugin", "reach")
	r.printTimes(row)
	for _, n := range callers {
		a, b := quantile(r.rates[n][own], half), quantile(r.rates[n][theirs], half)
		reach := map[int]string{1: "0.95", 32: "0.75"}[n]
		row(fmt.Sprintf("unary %d B x %d, calls/s", side.PayloadSize, n), number(a), number(b), ratio(a, b), reach)
	}
	a, b := r.memory[own], r.memory[theirs]
	row("memory of a plugin, MiB", mib(a.Plugin), mib(b.Plugin), ratio(float64(a.Plugin), float64(b.Plugin)), "")
	row("memory of the host for it, MiB", mib(a.Host), mib(b.Host), ratio(float64(a.Host), float64(b.Host)), "")
	row("both, MiB", mib(a.Plugin+a.Host), mib(b.Plugin+b.Host), ratio(float64(a.Plugin+a.Host), float64(b.Plugin+b.Host)), "1.00")
	r.printLeft(row, p.launches)
	if err := w.Flush(); err != nil {
		return fmt.Errorf("table: %w", err)
	}
	return r.left()
}

// printTimes prints how long starts and stops take, also by the side that went first.
func (r *results) printTimes(row func(...string)) {
	for _, d := range []struct {
		name, reach string
		of          func(side.Report) []time.Duration
	}{
		{"start to first call", "0.50", func(s side.Report) []time.Duration { return s.Starts }},
		{"stop", "1.00", func(s side.Report) []time.Duration { return s.Stops }},
	} {
		in := func(name, reach string, q float64, order ...[sides]side.Report) {
			var of [sides][]time.Duration
			for _, reports := range order {
				for i, s := range reports {
					of[i] = append(of[i], d.of(s)...)
				}
			}
			a, b := quantile(of[own], q), quantile(of[theirs], q)
			row(d.name+name, ms(a), ms(b), ratio(float64(a), float64(b)), reach)
		}
		in(", p50", d.reach, half, r.starts[:]...)
		in(", p95", "", high, r.starts[:]...)
		in(", p50 where own went first", "", half, r.starts[own])
		in(", p50 where go-plugin went first", "", half, r.starts[theirs])
	}
}

// printLeft prints what each side had more after many launches than before.
func (r *results) printLeft(row func(...string), launches int) {
	a, b := r.churn[own], r.churn[theirs]
	row(fmt.Sprintf("%d launches, a tenth killed", launches), a.Took.Round(time.Millisecond).String(), b.Took.Round(time.Millisecond).String(),
		ratio(float64(a.Took), float64(b.Took)), "")
	for _, k := range kept {
		row("  more "+k.name, more(k.of(a.Before), k.of(a.After)), more(k.of(b.Before), k.of(b.After)), "", "0")
	}
	row("  heap after a collection", growth(a), growth(b), "", "+5 %")
}

// kept is what is counted before and after.
var kept = []struct {
	name string
	of   func(side.Usage) int
}{
	{"descriptors", func(u side.Usage) int { return u.Descriptors }},
	{"sockets", func(u side.Usage) int { return u.Sockets }},
	{"processes", func(u side.Usage) int { return u.Processes }},
	{"files", func(u side.Usage) int { return u.Files }},
	{"goroutines", func(u side.Usage) int { return u.Goroutines }},
}

// left is an error if this library left something behind.
func (r *results) left() error {
	a := r.churn[own]
	for _, k := range kept {
		if k.of(a.After) > k.of(a.Before) {
			return fmt.Errorf("%w: %d %s", errLeft, k.of(a.After)-k.of(a.Before), k.name)
		}
	}
	return nil
}

const (
	half = 0.5
	high = 0.95
)

func quantile[T time.Duration | float64](values []T, q float64) T {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(q*float64(len(sorted)-1))]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", d.Seconds()*1e3) } //nolint:mnd // milliseconds

func mib(n int64) string { return fmt.Sprintf("%.2f", float64(n)/(1<<20)) } //nolint:mnd // mebibytes

func number(f float64) string { return strconv.FormatFloat(f, 'f', 0, 64) }

func ratio(a, b float64) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}

func more(before, after int) string { return fmt.Sprintf("%+d", after-before) }

func growth(r side.Report) string {
	if r.Before.Heap == 0 {
		return "-"
	}
	return fmt.Sprintf("%+.1f %%", 100*(float64(r.After.Heap)/float64(r.Before.Heap)-1)) //nolint:mnd // per cent
}

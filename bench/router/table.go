package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// What is to be reached against the bare proxy: throughput at least, median latency
// at most, by row. Rows that are not named have the others'.
var (
	routerGoals = map[string]goal{"": {1, 1.1}, "unary 256 B x 32": {1.35, 1.1}}
	userGoals   = map[string]goal{
		"": {1, 1.1}, "unary 256 B x 1": {1.4, 1.1}, "unary 256 B x 32": {1.75, 0.65}, "unary 256 B x 256": {1.85, 1.1},
		"server stream x 1": {1.15, 1.1}, "server stream x 32": {2, 1.1}, "bidi stream x 1": {1.15, 1.1}, "bidi stream x 32": {2, 1.1},
	}
)

type goal struct{ throughput, latency float64 }

// The processes that a call goes through.
const (
	partCaller = iota
	partBetween
	partProvider
	parts
)

// cell is what was measured of one way in one row.
type cell struct {
	rates   []float64 // operations per second, by round
	medians []time.Duration
	slows   []time.Duration
	cpu     [parts]time.Duration
	count   int
}

// measure adds a round.
func (c *cell) measure(s *stage, way string, load order) error {
	before, err := usages(s.parts(way))
	if err != nil {
		return err
	}
	result, err := s.caller.tell(load)
	if err != nil {
		return err
	}
	after, err := usages(s.parts(way))
	if err != nil {
		return err
	}
	c.rates = append(c.rates, float64(result.Operations)/result.Elapsed.Seconds())
	c.medians = append(c.medians, result.Median)
	c.slows = append(c.slows, result.Slow)
	for i := range c.cpu {
		c.cpu[i] += after[i] - before[i]
	}
	c.count += result.Operations
	return nil
}

// usages asks each process for the processor time that it has used.
func usages(of [parts]*process) (used [parts]time.Duration, err error) {
	for i, p := range of {
		if p == nil {
			continue
		}
		r, err := p.tell(order{Do: doUsage})
		if err != nil {
			return used, err
		}
		used[i] = r.CPU
	}
	return used, nil
}

// cost is the processor time of one part, for each operation.
func (c *cell) cost(part int) time.Duration {
	if c.count == 0 {
		return 0
	}
	return c.cpu[part] / time.Duration(c.count)
}

// total is the processor time of all parts, for each operation.
func (c *cell) total() time.Duration {
	return c.cost(partCaller) + c.cost(partBetween) + c.cost(partProvider)
}

// row is one row of the table.
type row struct {
	scenario string
	callers  int
	cells    map[string]*cell // by way
}

func (r *row) name() string { return fmt.Sprintf("%s x %d", r.scenario, r.callers) }

// ratios compares a way with another: the medians, over the rounds, of what was
// measured next to each other.
func (r *row) ratios(way, other string) (throughput, latency float64) {
	one, base := r.cells[way], r.cells[other]
	rates, medians := make([]float64, len(one.rates)), make([]float64, len(one.rates))
	for i := range one.rates {
		rates[i] = one.rates[i] / base.rates[i]
		medians[i] = float64(one.medians[i]) / float64(base.medians[i])
	}
	return median(rates), median(medians)
}

// verdict names what a way should have reached in the row and did not.
func (r *row) verdict(way string, goals map[string]goal) string {
	want, ok := goals[r.name()]
	if !ok {
		want = goals[""]
	}
	throughput, latency := r.ratios(way, wayBare)
	var missed []string
	if throughput < want.throughput {
		missed = append(missed, fmt.Sprintf("throughput below %.2f", want.throughput))
	}
	if latency > want.latency {
		missed = append(missed, fmt.Sprintf("median above %.2f", want.latency))
	}
	if len(missed) == 0 {
		return "ok"
	}
	return strings.Join(missed, ", ")
}

// table is what the command prints.
type table struct {
	rows   []row
	held   int              // streams whose memory was measured
	memory map[string]int64 // bytes for each open stream, by way
}

// print writes the tables. An operation is a unary call, a whole server stream, or
// a round trip on a bidirectional stream.
func (t *table) print(w io.Writer) {
	_, _ = fmt.Fprintln(w, "A caller on net/http, through the router to a plugin:")
	t.tabulate(w, routerColumns, (*row).routerCells)
	_, _ = fmt.Fprintln(w, "As a user has it: Client.Service, the host, ServePlugin:")
	t.tabulate(w, userColumns, (*row).userCells)
	bare, router := t.memory[wayBare], t.memory[wayRouter]
	_, _ = fmt.Fprintf(w, "Memory of an open bidirectional stream, of %d: bare %d B, router %d B, router/bare %.2f\n",
		t.held, bare, router, float64(router)/float64(bare))
	_, _ = fmt.Fprintln(w, "Without sockets, to a provider in the host's process: go test -run '^$' -bench RouterMemory ./test/router")
}

func (t *table) tabulate(w io.Writer, columns []string, cells func(*row) string) {
	const space = 1
	out := tabwriter.NewWriter(w, 0, 0, space, ' ', tabwriter.AlignRight|tabwriter.Debug)
	_, _ = fmt.Fprintln(out, "\t"+strings.Join(columns, "\t")+"\tgoal\t")
	for i := range t.rows {
		_, _ = fmt.Fprintf(out, "%s\t%s\t\n", t.rows[i].name(), cells(&t.rows[i]))
	}
	_ = out.Flush()
}

var routerColumns = []string{
	"op/s " + wayDirect, wayBare, wayRouter, "router/bare", "router/direct", "median µs " + wayDirect, wayBare, wayRouter,
	"router/bare", "99% µs " + wayBare, wayRouter, "CPU µs/op between: " + wayBare, wayRouter,
}

func (r *row) routerCells() string {
	direct, bare, router := r.cells[wayDirect], r.cells[wayBare], r.cells[wayRouter]
	throughput, latency := r.ratios(wayRouter, wayBare)
	fromDirect, _ := r.ratios(wayRouter, wayDirect)
	return fmt.Sprintf("%.0f\t%.0f\t%.0f\t%.2f\t%.2f\t%d\t%d\t%d\t%.2f\t%d\t%d\t%d\t%d\t%s",
		median(direct.rates), median(bare.rates), median(router.rates), throughput, fromDirect,
		median(direct.medians).Microseconds(), median(bare.medians).Microseconds(), median(router.medians).Microseconds(), latency,
		median(bare.slows).Microseconds(), median(router.slows).Microseconds(),
		bare.cost(partBetween).Microseconds(), router.cost(partBetween).Microseconds(), r.verdict(wayRouter, routerGoals))
}

var userColumns = []string{
	"op/s " + wayBare, wayUser, "user/bare", "median µs " + wayBare, wayUser, "user/bare",
	"CPU µs/op caller: " + wayBare, wayUser, "between: " + wayBare, wayUser, "provider: " + wayBare, wayUser, "all: user/bare",
}

func (r *row) userCells() string {
	bare, user := r.cells[wayBare], r.cells[wayUser]
	throughput, latency := r.ratios(wayUser, wayBare)
	return fmt.Sprintf("%.0f\t%.0f\t%.2f\t%d\t%d\t%.2f\t%d\t%d\t%d\t%d\t%d\t%d\t%.2f\t%s",
		median(bare.rates), median(user.rates), throughput,
		median(bare.medians).Microseconds(), median(user.medians).Microseconds(), latency,
		bare.cost(partCaller).Microseconds(), user.cost(partCaller).Microseconds(),
		bare.cost(partBetween).Microseconds(), user.cost(partBetween).Microseconds(),
		bare.cost(partProvider).Microseconds(), user.cost(partProvider).Microseconds(),
		float64(user.total())/float64(bare.total()), r.verdict(wayUser, userGoals))
}

// Quantiles.
const (
	middle  = 0.5
	slowest = 0.99
)

// median returns the median of values.
func median[T cmp.Ordered](values []T) T {
	return quantile(slices.Sorted(slices.Values(values)), middle)
}

// quantile returns the value at a quantile of sorted values, the zero value if
// there are none.
func quantile[T any](sorted []T, q float64) T {
	var zero T
	if len(sorted) == 0 {
		return zero
	}
	return sorted[min(int(float64(len(sorted))*q), len(sorted)-1)]
}

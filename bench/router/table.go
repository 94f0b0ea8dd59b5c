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

// What is to be reached against the bare proxy.
const (
	wantThroughput = 1.0
	wantUnary32    = 1.3
	wantMedian     = 1.1
	unary32        = 32
)

// cell is what was measured of one way in one row.
type cell struct {
	rates   []float64 // operations per second, by round
	medians []time.Duration
	slows   []time.Duration
	cpu     time.Duration // of the server in between
	count   int
}

// measure adds a round.
func (c *cell) measure(s *stage, way string, load order) error {
	server := s.servers[way]
	var before, after report
	var err error
	if server != nil {
		if before, err = server.tell(order{Do: doUsage}); err != nil {
			return err
		}
	}
	result, err := s.caller.tell(load)
	if err != nil {
		return err
	}
	if server != nil {
		if after, err = server.tell(order{Do: doUsage}); err != nil {
			return err
		}
	}
	c.rates = append(c.rates, float64(result.Operations)/result.Elapsed.Seconds())
	c.medians = append(c.medians, result.Median)
	c.slows = append(c.slows, result.Slow)
	c.cpu += after.CPU - before.CPU
	c.count += result.Operations
	return nil
}

// cost is the processor time of the server in between, for each operation.
func (c *cell) cost() time.Duration {
	if c.count == 0 {
		return 0
	}
	return c.cpu / time.Duration(c.count)
}

// row is one row of the table.
type row struct {
	scenario string
	callers  int
	cells    map[string]*cell // by way
}

// ratios compares the router with another way: the medians, over the rounds, of
// what was measured next to each other.
func (r *row) ratios(other string) (throughput, latency float64) {
	router, base := r.cells[wayRouter], r.cells[other]
	rates, medians := make([]float64, len(router.rates)), make([]float64, len(router.rates))
	for i := range router.rates {
		rates[i] = router.rates[i] / base.rates[i]
		medians[i] = float64(router.medians[i]) / float64(base.medians[i])
	}
	return median(rates), median(medians)
}

// verdict names what the row should have reached and did not.
func (r *row) verdict() string {
	throughput, latency := r.ratios(wayBare)
	want := wantThroughput
	if r.scenario == scenarioSmall && r.callers == unary32 {
		want = wantUnary32
	}
	var missed []string
	if throughput < want {
		missed = append(missed, fmt.Sprintf("throughput below %.1f", want))
	}
	if latency > wantMedian {
		missed = append(missed, fmt.Sprintf("median above %.1f", wantMedian))
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

var columns = []string{
	"", "callers", "op/s " + wayDirect, wayBare, wayRouter, "router/bare", "router/direct", "median µs " + wayDirect, wayBare, wayRouter,
	"router/bare", "99% µs " + wayBare, wayRouter, "CPU µs/op " + wayBare, wayRouter, "goal",
}

// print writes the table. An operation is a unary call, a whole server stream, or
// a round trip on a bidirectional stream.
func (t *table) print(w io.Writer) {
	const space = 1
	out := tabwriter.NewWriter(w, 0, 0, space, ' ', tabwriter.AlignRight|tabwriter.Debug)
	_, _ = fmt.Fprintln(out, strings.Join(columns, "\t")+"\t")
	for i := range t.rows {
		r := &t.rows[i]
		direct, bare, router := r.cells[wayDirect], r.cells[wayBare], r.cells[wayRouter]
		throughput, latency := r.ratios(wayBare)
		fromDirect, _ := r.ratios(wayDirect)
		_, _ = fmt.Fprintf(out, "%s\t%d\t%.0f\t%.0f\t%.0f\t%.2f\t%.2f\t%d\t%d\t%d\t%.2f\t%d\t%d\t%d\t%d\t%s\t\n",
			r.scenario, r.callers, median(direct.rates), median(bare.rates), median(router.rates), throughput, fromDirect,
			median(direct.medians).Microseconds(), median(bare.medians).Microseconds(), median(router.medians).Microseconds(), latency,
			median(bare.slows).Microseconds(), median(router.slows).Microseconds(),
			bare.cost().Microseconds(), router.cost().Microseconds(), r.verdict())
	}
	_ = out.Flush()
	bare, router := t.memory[wayBare], t.memory[wayRouter]
	_, _ = fmt.Fprintf(w, "Memory of an open bidirectional stream, of %d: bare %d B, router %d B, router/bare %.2f\n",
		t.held, bare, router, float64(router)/float64(bare))
	_, _ = fmt.Fprintln(w, "Without sockets, to a provider in the host's process: go test -run '^$' -bench RouterMemory . in the root.")
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

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain runs a process of the benchmark where a test has started one.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args, "-role") {
		if err := command(context.Background(), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestEveryRowIsMeasured(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := plan{round: 20 * time.Millisecond, rounds: 2, only: " x 1", held: 20, profiles: t.TempDir()}
	if err := p.run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	for _, scenario := range []string{scenarioSmall, scenarioLarge, scenarioServer, scenarioBidi} {
		if !strings.Contains(out.String(), scenario) {
			t.Errorf("no row %q in\n%s", scenario, out.String())
		}
	}
	for _, absent := range []string{" NaN", " Inf", " 0.00"} {
		if strings.Contains(out.String(), absent) {
			t.Errorf("%q in\n%s", absent, out.String())
		}
	}
}

func TestRatiosAreMediansOfRounds(t *testing.T) {
	t.Parallel()
	r := row{cells: map[string]*cell{
		wayBare:   {rates: []float64{100, 10, 200}, medians: []time.Duration{10, 100, 5}},
		wayRouter: {rates: []float64{150, 5, 600}, medians: []time.Duration{5, 200, 4}},
	}}
	if rate, median := r.ratios(wayRouter, wayBare); rate != 1.5 || median != 0.8 {
		t.Errorf("ratios = %v, %v; want 1.5, 0.8", rate, median)
	}
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		scenario string
		callers  int
		rate     float64
		median   time.Duration
		want     string
	}{
		"equal":                       {scenarioBidi, 32, 100, 100, "ok"},
		"slower":                      {scenarioBidi, 32, 99, 100, "throughput below 1.00"},
		"later":                       {scenarioBidi, 32, 100, 111, "median above 1.10"},
		"equal in the row to be won":  {scenarioSmall, 32, 134, 100, "throughput below 1.35"},
		"faster in the row to be won": {scenarioSmall, 32, 135, 100, "ok"},
		"all missed":                  {scenarioSmall, 1, 50, 200, "throughput below 1.00, median above 1.10"},
	} {
		r := row{scenario: test.scenario, callers: test.callers, cells: map[string]*cell{
			wayBare:   {rates: []float64{100}, medians: []time.Duration{100}},
			wayRouter: {rates: []float64{test.rate}, medians: []time.Duration{test.median}},
		}}
		if got := r.verdict(wayRouter, routerGoals); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// A caller that begins when its time is over already is one that was measured, too.
func TestWhoBeginsLateIsMeasured(t *testing.T) {
	t.Parallel()
	n := 0
	samples, err := timed(time.Now().Add(-time.Second), func() error { n++; return nil })
	if len(samples) != 1 || n != 1 || err != nil {
		t.Errorf("%d samples of %d operations: %v", len(samples), n, err)
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	sorted := []int{1, 2, 3, 4}
	for q, want := range map[float64]int{0: 1, 0.5: 3, 0.99: 4, 1: 4} {
		if got := quantile(sorted, q); got != want {
			t.Errorf("quantile(%v) = %d, want %d", q, got, want)
		}
	}
	if got := quantile([]int(nil), 0.5); got != 0 {
		t.Errorf("quantile of nothing = %d", got)
	}
}

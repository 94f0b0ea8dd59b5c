package batch

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

const (
	median = 0.5
	p99    = 0.99
)

// Row is a line of a table.
type Row struct {
	Name            string
	Calls, Failures int
	// Median and P99 are what half of the calls, and 99 of 100, did not exceed.
	Median, P99 time.Duration
}

func (p *Phase) row(name string) Row {
	return Row{Name: name, Calls: p.Calls(), Failures: p.Failures, Median: p.Quantile(median), P99: p.Quantile(p99)}
}

// Print prints a table of phases, and their sum where there are several.
func Print(w io.Writer, phases ...*Phase) error {
	rows := make([]Row, 0, len(phases)+1)
	for _, p := range phases {
		rows = append(rows, p.row(p.Name))
	}

	if len(phases) > 1 {
		rows = append(rows, (&Phase{}).Add(phases...).row("total"))
	}

	return PrintRows(w, "median\tp99", rows...)
}

// PrintRows prints a table. The titles of its times have a tab between.
func PrintRows(w io.Writer, times string, rows ...Row) error {
	var text strings.Builder

	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight|tabwriter.DiscardEmptyColumns)
	_, _ = fmt.Fprintf(table, "phase\tcalls\tfailures\t%s\t\n", times)

	for _, r := range rows {
		_, _ = fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\t\n", r.Name, r.Calls, r.Failures, milliseconds(r.Median), milliseconds(r.P99))
	}

	err := table.Flush()
	if err == nil {
		_, err = io.WriteString(w, text.String())
	}

	if err != nil {
		return fmt.Errorf("table: %w", err)
	}

	return nil
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

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

// Print prints a table of phases, and their sum where there are several.
func Print(w io.Writer, phases ...*Phase) error {
	var text strings.Builder

	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight|tabwriter.DiscardEmptyColumns)
	row := func(name string, p *Phase) {
		_, _ = fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\t\n",
			name, p.Calls(), p.Failures, milliseconds(p.Quantile(median)), milliseconds(p.Quantile(p99)))
	}

	_, _ = fmt.Fprintln(table, "phase\tcalls\tfailures\tmedian\tp99\t")

	for _, p := range phases {
		row(p.Name, p)
	}

	if len(phases) > 1 {
		row("total", (&Phase{}).Add(phases...))
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

//go:build unix

package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/batch"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/metrics"
)

const (
	median = 0.5
	p99    = 0.99
)

// measured is a host whose metrics say what became of the demo's calls.
type measured struct {
	url  string
	made uint64 // calls that the demo made so far
}

// ofDemo are the calls that the demo counts, too.
func ofDemo(l metrics.Labels) bool {
	return l.Caller == "demo" && l.Type == "shortener" && !strings.HasSuffix(l.Method, "/Status")
}

// settled scrapes the host once it has measured every call that the demo made: it does so when it has
// answered.
func (m *measured) settled(ctx context.Context) (metrics.Calls, error) {
	ctx, cancel := context.WithTimeout(ctx, awaitTimeout)
	defer cancel()

	for {
		calls, err := metrics.Scrape(ctx, m.url, ofDemo)
		if err == nil && calls.Count == m.made {
			return calls, nil
		}

		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return calls, fmt.Errorf("%w: the demo made %d calls, and the metrics of the host say %d: %w",
				ErrFailed, m.made, calls.Count, errors.Join(err, ctx.Err()))
		}
	}
}

// measure makes calls, and adds to the table what the metrics of the host say of them.
func (d *demo) measure(ctx context.Context, host *measured, name string, calls func() *batch.Phase) {
	before, err := host.settled(ctx)
	phase := calls()
	phase.Name = name
	host.made += uint64(phase.Calls()) //nolint:gosec // it is not negative

	d.phases = append(d.phases, phase)

	after := before
	if err == nil && ctx.Err() == nil { // calls that were interrupted are measured, and not counted here
		after, err = host.settled(ctx)
	}

	since := after.Minus(before)
	d.seen = d.seen.Plus(since)
	d.rows = append(d.rows, rowOf(name, since))

	if err != nil && ctx.Err() == nil {
		d.unmeasured = errors.Join(d.unmeasured, fmt.Errorf("%s: %w", name, err))
	}
}

func rowOf(name string, c metrics.Calls) batch.Row {
	calls, failures := int(c.Count), int(c.Failed) //nolint:gosec // they are not so many

	return batch.Row{Name: name, Calls: calls, Failures: failures, Median: c.Quantile(median), P99: c.Quantile(p99)}
}

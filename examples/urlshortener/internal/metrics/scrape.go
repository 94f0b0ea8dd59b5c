package metrics

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	duration = "rpc_server_call_duration_seconds"
	maxBody  = 4 << 20
)

// Calls is what a scrape says of some calls.
type Calls struct {
	Count, Failed uint64

	upTo map[float64]uint64 // how many took no longer than so many seconds
}

// Labels tell calls apart.
type Labels struct{ Caller, Provider, Type, Method string }

// Scrape asks for metrics and adds up the calls whose labels match.
func Scrape(ctx context.Context, url string, match func(Labels) bool) (Calls, error) {
	sum := Calls{upTo: map[float64]uint64{}}

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return sum, fmt.Errorf("scrape: %w", err)
	}

	transport := &http.Transport{}
	defer transport.CloseIdleConnections()

	res, err := transport.RoundTrip(req)
	if err != nil {
		return sum, fmt.Errorf("scrape: %w", err)
	}
	defer res.Body.Close() //nolint:errcheck // nothing was written

	lines := bufio.NewScanner(io.LimitReader(res.Body, maxBody))
	for lines.Scan() {
		if err := add(&sum, lines.Text(), match); err != nil {
			return sum, fmt.Errorf("scrape: %q: %w", lines.Text(), err)
		}
	}

	if err := lines.Err(); err != nil {
		return sum, fmt.Errorf("scrape: %w", err)
	}

	return sum, nil
}

// Minus returns the calls since an earlier scrape.
func (c Calls) Minus(before Calls) Calls {
	since := Calls{Count: c.Count - before.Count, Failed: c.Failed - before.Failed, upTo: maps.Clone(c.upTo)}
	for bound := range since.upTo {
		since.upTo[bound] -= before.upTo[bound]
	}

	return since
}

// Plus returns both.
func (c Calls) Plus(other Calls) Calls {
	sum := Calls{Count: c.Count + other.Count, Failed: c.Failed + other.Failed, upTo: maps.Clone(other.upTo)}
	for bound, n := range c.upTo {
		if sum.upTo == nil {
			sum.upTo = map[float64]uint64{}
		}

		sum.upTo[bound] += n
	}

	return sum
}

// Quantile returns a time that the share q of the calls did not exceed: one of the bounds that are
// counted, and the last one where some took longer.
func (c Calls) Quantile(q float64) time.Duration {
	last := 0.0

	for _, bound := range slices.Sorted(maps.Keys(c.upTo)) {
		if math.IsInf(bound, 0) {
			break
		}

		last = bound
		if float64(c.upTo[bound]) >= q*float64(c.Count) {
			break
		}
	}

	return time.Duration(last * float64(time.Second))
}

// add adds to calls those of a line such as name_count{label="value",…} 3.
func add(c *Calls, line string, match func(Labels) bool) error {
	name, rest, ok := strings.Cut(line, "{")
	what, ours := strings.CutPrefix(name, duration)

	if !ok || !ours || what != "_count" && what != "_bucket" {
		return nil
	}

	text, number, ok := strings.Cut(rest, "} ")
	if !ok {
		return strconv.ErrSyntax
	}

	labels := labelsOf(text)
	if !match(Labels{labels["connectplugin_caller"], labels["connectplugin_provider"], labels["connectplugin_type"], labels["rpc_method"]}) {
		return nil
	}

	value, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return err
	}

	if what == "_bucket" {
		bound, err := strconv.ParseFloat(labels["le"], 64)
		c.upTo[bound] += uint64(value)

		return err
	}

	c.Count += uint64(value)

	if status := labels["rpc_response_status_code"]; !strings.EqualFold(status, "ok") {
		c.Failed += uint64(value)
	}

	return nil
}

// labelsOf reads name="value" with commas between. A name of ours has neither a quote nor a comma.
func labelsOf(text string) map[string]string {
	out := map[string]string{}

	for part := range strings.SplitSeq(text, `",`) {
		name, value, _ := strings.Cut(part, `="`)
		out[name] = strings.TrimSuffix(value, `"`)
	}

	return out
}

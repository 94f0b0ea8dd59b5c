// Package batch shortens and resolves many URLs and measures it.
package batch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	shortenerv1 "github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/shortener/v1"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/shortener/v1/shortenerv1connect"
)

const (
	workers     = 8
	callTimeout = 10 * time.Second
)

// Phase is what a number of calls came to. It is not changed any more when the
// function that returned it has.
type Phase struct {
	Name     string
	Failures int   // calls that failed, or gave a wrong answer
	First    error // the first of them

	latencies []time.Duration // sorted
}

// Calls returns the number of calls.
func (p *Phase) Calls() int { return len(p.latencies) }

// Quantile returns the latency that the share q of all calls did not exceed.
func (p *Phase) Quantile(q float64) time.Duration {
	if len(p.latencies) == 0 {
		return 0
	}

	return p.latencies[min(int(q*float64(len(p.latencies))), len(p.latencies)-1)]
}

// Add returns a phase that also holds the calls of others.
func (p *Phase) Add(others ...*Phase) *Phase {
	sum := &Phase{Name: p.Name, Failures: p.Failures, First: p.First, latencies: slices.Clone(p.latencies)}
	for _, other := range others {
		sum.Failures += other.Failures
		sum.latencies = append(sum.latencies, other.latencies...)

		if sum.First == nil {
			sum.First = other.First
		}
	}

	slices.Sort(sum.latencies)

	return sum
}

// Err returns the first failure, and says how many there were.
func (p *Phase) Err() error {
	if p.Failures == 0 {
		return nil
	}

	return errors.Join(fmt.Errorf("%s: %d of %d calls failed", p.Name, p.Failures, p.Calls()), p.First)
}

// Progress hears how many calls are done, after each.
type Progress func(done int)

// Shorten shortens every URL and returns the codes. A URL that was given two
// codes, and a code that two URLs were given, is a failure.
func Shorten(ctx context.Context, client shortenerv1connect.ShortenerServiceClient, urls []string, progress Progress) ([]string, *Phase) {
	codes := make([]string, len(urls))
	phase := run(ctx, "shorten", len(urls), progress, func(ctx context.Context, i int) error {
		resp, err := client.Shorten(ctx, &shortenerv1.ShortenRequest{Url: urls[i]})
		if err != nil {
			return fmt.Errorf("shorten %.80q: %w", urls[i], err)
		}

		codes[i] = resp.GetCode()

		return nil
	})
	phase.check(urls, codes)

	return codes, phase
}

// Resolve resolves every code and compares the answer with its URL, byte for byte.
func Resolve(ctx context.Context, client shortenerv1connect.ShortenerServiceClient, codes, urls []string, progress Progress) *Phase {
	return run(ctx, "resolve", len(codes), progress, func(ctx context.Context, i int) error {
		resp, err := client.Resolve(ctx, &shortenerv1.ResolveRequest{Code: codes[i]})
		if err != nil {
			return fmt.Errorf("resolve %q: %w", codes[i], err)
		}

		if got := resp.GetUrl(); got != urls[i] {
			return fmt.Errorf("resolve %q: got %.80q, want %.80q", codes[i], got, urls[i])
		}

		return nil
	})
}

// check counts as failures what is wrong with the codes of URLs as a whole.
func (p *Phase) check(urls, codes []string) {
	codeOf, urlOf := map[string]string{}, map[string]string{}

	for i, url := range urls {
		code := codes[i]
		if code == "" {
			continue // the call failed
		}

		if had, ok := codeOf[url]; ok && had != code {
			p.fail(fmt.Errorf("%.80q was given the codes %q and %q", url, had, code))
		}

		if had, ok := urlOf[code]; ok && had != url {
			p.fail(fmt.Errorf("the code %q was given to %.80q and %.80q", code, had, url))
		}

		codeOf[url], urlOf[code] = code, url
	}
}

func (p *Phase) note(latency time.Duration, err error) {
	p.latencies = append(p.latencies, latency)

	if err != nil {
		p.fail(err)
	}
}

func (p *Phase) fail(err error) {
	p.Failures++
	if p.First == nil {
		p.First = err
	}
}

// run makes n calls, several at a time. Those that ctx cuts off are not counted.
func run(ctx context.Context, name string, n int, progress Progress, call func(ctx context.Context, i int) error) *Phase {
	var (
		phase = &Phase{Name: name}
		next  atomic.Int64
		group sync.WaitGroup

		mu sync.Mutex // guards phase
	)

	for range workers {
		group.Go(func() {
			for i := next.Add(1) - 1; int(i) < n && ctx.Err() == nil; i = next.Add(1) - 1 {
				start := time.Now()
				err := bounded(ctx, int(i), call)
				latency := time.Since(start)

				mu.Lock()
				if ctx.Err() == nil {
					phase.note(latency, err)
					progress(phase.Calls())
				}
				mu.Unlock()
			}
		})
	}

	group.Wait()
	slices.Sort(phase.latencies)

	return phase
}

func bounded(ctx context.Context, i int, call func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	return call(ctx, i)
}

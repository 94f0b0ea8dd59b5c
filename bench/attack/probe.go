package main

import (
	"context"
	"slices"
	"sync"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/bench/stage"
)

const (
	callers = 4                    // honest ones, each with an identity of its own
	pause   = 8 * time.Millisecond // of each, from call to call

	beginning = time.Second // of a turn, that is also looked at by itself
)

// probes are honest callers.
type probes []*stage.Caller

// connect makes the probes of a host, and waits until they are answered.
func connect(ctx context.Context, authority *connectplugin.Authority, addr string) (all probes, err error) {
	for range callers {
		one, err := stage.Connect(ctx, authority, addr, stage.Probe, stage.Echo)
		if err != nil {
			return all, err
		}
		all = append(all, one)
		if err := one.Await(ctx); err != nil {
			return all, err
		}
	}
	return all, nil
}

func (p probes) close(ctx context.Context) {
	for _, one := range p {
		one.Close(ctx)
	}
}

// measure has the probes call for a time, one after the other.
func (p probes) measure(ctx context.Context, d time.Duration) (all probed) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	answers := make([][]stage.Answer, len(p))
	begun := time.Now()
	var working sync.WaitGroup
	for i, one := range p {
		working.Go(func() {
			first := time.NewTimer(pause * time.Duration(i) / time.Duration(len(p)))
			defer first.Stop()
			<-first.C
			answers[i] = one.Probe(ctx, pause)
		})
	}
	working.Wait()
	for _, a := range slices.Concat(answers...) {
		all.times = append(all.times, a.Took)
		if a.At.Sub(begun) < beginning {
			all.first = append(all.first, a.Took)
		}
		if a.Err != nil {
			all.failed, all.last = all.failed+1, a.Err
		}
	}
	return all
}

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"
)

const defaultRestarts = 20

// measureRestarts kills the host of one plugin again and again, and prints how long it took
// until the plugin was reached after each new host listened.
func measureRestarts(ctx context.Context, s site, times int, out io.Writer) error {
	if times <= 0 {
		return nil
	}
	b := &bench{site: s, n: 1}
	defer b.close()
	if err := b.open(ctx); err != nil {
		return err
	}
	took := make([]time.Duration, 0, times)
	for range times {
		d, err := b.restartOnce(ctx)
		if err != nil {
			return fmt.Errorf("restart %d: %w", len(took)+1, err)
		}
		took = append(took, d)
	}
	slices.Sort(took)
	_, _ = fmt.Fprintf(out, "%d restarts of the host of 1 plugin: median %s, longest %s\n",
		times, took[times/2].Round(time.Millisecond), took[times-1].Round(time.Millisecond))
	return nil
}

// restartOnce returns how long it took until the plugin was called again.
func (b *bench) restartOnce(ctx context.Context) (time.Duration, error) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := b.restartHost(ctx); err != nil {
		return 0, err
	}
	if err := b.load.settle(limited, b.n); err != nil {
		return 0, err
	}
	return b.load.reached(0), nil
}

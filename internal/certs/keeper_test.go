package certs_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// What is due is renewed when it is due, once however many run the keeper, and not after
// it said that it is done.
func TestKeeper(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var (
			k  certs.Keeper
			mu sync.Mutex
		)

		begun, times := time.Now(), map[string][]time.Duration{}
		add := func(name string, first, every time.Duration, times1 int) {
			k.Add(name, begun.Add(first), func(now time.Time) time.Time {
				mu.Lock()
				defer mu.Unlock()

				times[name] = append(times[name], now.Sub(begun))
				if len(times[name]) >= times1 {
					return time.Time{}
				}

				return now.Add(every)
			})
		}
		add("early", time.Minute, time.Hour, 3)

		ctx, stop := context.WithCancel(t.Context())

		var running sync.WaitGroup
		for range 2 {
			running.Go(func() { k.Run(ctx) })
		}

		time.Sleep(30 * time.Second)
		add("late", 45*time.Second, time.Minute, 2)
		add("replaced", 2*time.Hour, time.Hour, 9)
		add("replaced", 3*time.Hour, time.Hour, 1)
		time.Sleep(24 * time.Hour)
		stop()
		running.Wait()
		mu.Lock()
		defer mu.Unlock()

		for name, want := range map[string][]time.Duration{
			"early":    {time.Minute, time.Hour + time.Minute, 2*time.Hour + time.Minute},
			"late":     {45 * time.Second, 105 * time.Second},
			"replaced": {3 * time.Hour},
		} {
			if got := times[name]; len(got) != len(want) {
				t.Errorf("%s: %v, want %v", name, got, want)
			} else {
				for i := range want {
					if got[i] != want[i] {
						t.Errorf("%s: %v, want %v", name, got, want)
					}
				}
			}
		}
	})
}

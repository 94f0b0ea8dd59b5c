package side

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const (
	warmUp    = 10 // as many times fewer launches before anything is counted
	killEvery = 10 // a tenth is killed
	killRange = 60 * time.Millisecond
)

// churn launches plugins one after the other, kills a tenth of them at random moments, and
// counts before and after.
func churn(ctx context.Context, s Side, o Order, r *Report) error {
	if err := launchMany(ctx, s, o.N/warmUp+1); err != nil {
		return err
	}
	var err error
	if r.Before, err = usage(); err != nil {
		return err
	}
	begun := time.Now()
	if err := launchMany(ctx, s, o.N); err != nil {
		return err
	}
	r.Took = time.Since(begun)
	r.After, err = usage()
	return err
}

func launchMany(ctx context.Context, s Side, n int) error {
	for i := range n {
		if i%killEvery == killEvery-1 {
			launchKilled(ctx, s)
			continue
		}
		p, err := s.Launch(ctx, "plugin")
		if err != nil {
			return fmt.Errorf("launch: %w", err)
		}
		if err := p.Call(ctx, payload); err != nil {
			return fmt.Errorf("call: %w", err)
		}
		if err := p.Stop(ctx); err != nil {
			return fmt.Errorf("stop: %w", err)
		}
	}
	return nil
}

// launchKilled launches a plugin that is killed at any moment: before it serves, while it is
// called, while it stops. Everything may fail.
func launchKilled(ctx context.Context, s Side) {
	var killing sync.WaitGroup
	killing.Go(func() {
		t := time.NewTimer(rand.N(killRange)) //nolint:gosec // any moment will do
		defer t.Stop()
		<-t.C
		for _, pid := range children() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if p, err := s.Launch(ctx, "plugin"); err == nil {
		_ = p.Call(ctx, payload)
		_ = p.Stop(ctx)
	}
	killing.Wait()
}

// usage counts what this process has, after what ends by itself has ended, such as goroutines that
// wait for work for a while, and collections find nothing more: what pools and caches hold takes
// several.
func usage() (Usage, error) {
	const rounds, quiet, pause = 200, 40, 20 * time.Millisecond
	var u Usage
	for same, round := 0, 0; same < quiet && round < rounds; round++ {
		runtime.GC()
		next, err := count()
		if err != nil {
			return next, err
		}
		if same++; !next.same(u) {
			same = 0
		}
		u = next
		t := time.NewTimer(pause)
		<-t.C
	}
	return u, nil
}

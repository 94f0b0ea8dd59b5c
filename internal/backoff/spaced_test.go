package backoff_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/backoff"
)

// What is asked for all the time is done once for all who asked, never twice at once, and takes no more than its share of the
// time, however long it takes; soon again once it is quick.
func TestSpaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &backoff.Spaced{Least: time.Second, Times: 50}
		ctx, cancel := context.WithCancel(t.Context())
		runs, running, took := []time.Duration(nil), 0, 10*time.Second
		begun := time.Now()
		run := func() {
			runs = append(runs, time.Since(begun))
			if running++; running > 1 {
				t.Error("it runs twice at once")
			}
			time.Sleep(took)
			running--
		}
		ask := func() {
			if s.Ask() {
				go s.Run(ctx, run)
			}
		}
		for range 100 { // as long as somebody asks
			ask()
			time.Sleep(100 * time.Millisecond)
		}
		for range 1100 {
			ask()
			time.Sleep(time.Second)
		}
		took = 0
		ask()
		time.Sleep(time.Hour)
		ask()
		time.Sleep(2 * time.Second)
		cancel()
		synctest.Wait()
		want := []time.Duration{time.Second, 511 * time.Second, 1021 * time.Second, 1531 * time.Second}
		for i, at := range want {
			if i >= len(runs) || runs[i] != at {
				t.Fatalf("it ran at %v, want %v", runs, want)
			}
		}
		if last := runs[len(runs)-1]; len(runs) != len(want)+1 || last != 1110*time.Second+time.Hour+time.Second {
			t.Errorf("it ran at %v", runs)
		}
	})
}

// The end of the context is that of the wait.
func TestSpacedEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &backoff.Spaced{Least: time.Hour}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		if !s.Ask() || s.Ask() {
			t.Error("nobody runs it, or two do")
		}
		go func() {
			s.Run(ctx, func() { t.Error("it ran") })
			close(ended)
		}()
		cancel()
		<-ended
	})
}

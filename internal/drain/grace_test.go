package drain_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/drain"
)

// Whoever is cut off has the last part of the time, and all that is to be over in it is.
func TestGrace(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		given   time.Duration // zero for no end
		ends    time.Duration // when whoever waits has it end
		calls   time.Duration // may take so long
		parting time.Duration
	}{
		"long":             {30 * time.Second, time.Hour, 29 * time.Second, time.Second},
		"short":            {100 * time.Millisecond, time.Hour, 75 * time.Millisecond, 500 * time.Millisecond},
		"of some seconds":  {3 * time.Second, time.Hour, 2250 * time.Millisecond, 750 * time.Millisecond},
		"ends before time": {30 * time.Second, 10 * time.Second, 10 * time.Second, time.Second},
		"without an end":   {0, 10 * time.Second, 10 * time.Second, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.given > 0 {
					ctx, cancel = context.WithTimeout(ctx, tt.given)
					defer cancel()
				}
				time.AfterFunc(tt.ends, cancel)
				begun := time.Now()
				calls, end := drain.Grace(ctx, time.Second)
				defer end()
				<-calls.Done()
				if took := time.Since(begun); took != tt.calls {
					t.Errorf("calls may take %v, want %v", took, tt.calls)
				}
				if got := drain.Parting(ctx, time.Second); got != tt.parting {
					t.Errorf("those cut off have %v, want %v", got, tt.parting)
				}
			})
		})
	}
}

package tools_test

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

func TestCircuitBreaker_EndedContext(t *testing.T) {
	t.Parallel()
	cb := connectplugin.NewCircuitBreaker(connectplugin.CircuitBreakerConfig{FailureThreshold: 1})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := cb.Call(ctx, func() error { t.Error("ran"); return nil })
	if connect.CodeOf(err) != connect.CodeCanceled || cb.State() != circuitClosed {
		t.Errorf("got %v, state %v", err, cb.State())
	}
}

// Concurrent use under the race detector; announced changes always link up.
func TestCircuitBreaker_Concurrent(t *testing.T) {
	t.Parallel()
	var last connectplugin.CircuitState
	var busy atomic.Bool
	cb := connectplugin.NewCircuitBreaker(connectplugin.CircuitBreakerConfig{
		FailureThreshold: 2, SuccessThreshold: 2, Timeout: time.Microsecond,
		OnStateChange: func(from, to connectplugin.CircuitState) {
			if !busy.CompareAndSwap(false, true) {
				t.Error("two callbacks at a time")
			}
			if from != last {
				t.Errorf("a change from %v after one to %v", from, last)
			}
			last = to
			busy.Store(false)
		},
	})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 2000 {
				_ = cb.Call(t.Context(), func() error {
					if (i+j)%3 == 0 {
						return hosttest.ErrDown
					}
					return nil
				})
			}
		})
	}
	wg.Wait()
}

func TestCircuitBreakerInterceptor(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	e := &echo.Whoami{Observe: func(context.Context, http.Header) error {
		if down.Load() {
			return connect.NewError(connect.CodeUnavailable, hosttest.ErrDown)
		}
		return nil
	}}
	srv := hosttest.StartTLS(t, e.Handler())
	cb := connectplugin.NewCircuitBreaker(connectplugin.CircuitBreakerConfig{FailureThreshold: 3, Timeout: time.Hour})
	opt := connect.WithInterceptors(connectplugin.CircuitBreakerInterceptor(cb))
	got, err := echo.AskUnary(t.Context(), srv.Client(), srv.URL, nil, opt)
	echo.WantAnswer(t, got, err, "nobody")
	down.Store(true)
	for range 10 {
		if _, err := echo.AskUnary(t.Context(), srv.Client(), srv.URL, nil, opt); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("got %v", err)
		}
	}
	if n := e.Calls.Load(); n != 4 {
		t.Errorf("%d calls reached the server, want 4", n)
	}
}

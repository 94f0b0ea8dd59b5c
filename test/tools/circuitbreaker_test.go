package tools_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

const (
	circuitClosed   = connectplugin.CircuitClosed
	circuitOpen     = connectplugin.CircuitOpen
	circuitHalfOpen = connectplugin.CircuitHalfOpen
)

// circuitStep is one call of a circuit breaker, or a wait before it.
type circuitStep struct {
	wait    time.Duration
	err     error // what fn returns
	refused bool  // whether the circuit breaker keeps fn from running
	state   connectplugin.CircuitState
}

// advance lets the time of a synctest bubble pass.
func advance(d time.Duration) { <-time.After(d) }

func TestCircuitBreaker(t *testing.T) {
	t.Parallel()
	fail := connect.NewError(connect.CodeUnavailable, hosttest.ErrDown)
	canceled := connect.NewError(connect.CodeCanceled, context.Canceled)
	config := connectplugin.CircuitBreakerConfig{FailureThreshold: 2, SuccessThreshold: 2, Timeout: time.Minute}
	tests := []struct {
		name   string
		config connectplugin.CircuitBreakerConfig
		steps  []circuitStep
		want   []string // announced changes
	}{
		{"opens and closes", config, []circuitStep{
			{err: fail, state: circuitClosed},
			{err: fail, state: circuitOpen},
			{refused: true, state: circuitOpen},
			{wait: time.Minute - 1, refused: true, state: circuitOpen},
			{wait: 1, state: circuitHalfOpen},
			{state: circuitClosed},
			{err: fail, state: circuitClosed},
		}, []string{"closed>open", "open>half-open", "half-open>closed"}},
		{"a probe fails", config, []circuitStep{
			{err: fail, state: circuitClosed},
			{err: fail, state: circuitOpen},
			{wait: time.Minute, state: circuitHalfOpen},
			{err: fail, state: circuitOpen},
			{refused: true, state: circuitOpen},
			{wait: time.Minute, err: fail, state: circuitOpen},
			{wait: time.Minute, state: circuitHalfOpen},
		}, []string{"closed>open", "open>half-open", "half-open>open", "open>half-open", "half-open>open", "open>half-open"}},
		{"failures in a row only", config, []circuitStep{
			{err: fail, state: circuitClosed}, {state: circuitClosed}, {err: fail, state: circuitClosed}, {err: fail, state: circuitOpen},
		}, []string{"closed>open"}},
		{"the caller's mistakes are successes", config, []circuitStep{
			{err: fail, state: circuitClosed}, {err: connect.NewError(connect.CodeNotFound, hosttest.ErrDown), state: circuitClosed}, {err: fail, state: circuitClosed},
		}, nil},
		{"a caller who left tells nothing", config, []circuitStep{
			{err: fail, state: circuitClosed},
			{err: canceled, state: circuitClosed},
			{err: context.Canceled, state: circuitClosed},
			{err: fail, state: circuitOpen},
			{wait: time.Minute, err: canceled, state: circuitHalfOpen},
			{err: canceled, state: circuitHalfOpen},
			{err: canceled, state: circuitHalfOpen},
			{state: circuitHalfOpen},
			{state: circuitClosed},
		}, []string{"closed>open", "open>half-open", "half-open>closed"}},
		{"plain errors and deadlines count", config, []circuitStep{
			{err: hosttest.ErrDown, state: circuitClosed}, {err: context.DeadlineExceeded, state: circuitOpen},
		}, []string{"closed>open"}},
		{
			"own rule",
			connectplugin.CircuitBreakerConfig{FailureThreshold: 1, IsFailure: func(err error) bool { return errors.Is(err, context.Canceled) }},
			[]circuitStep{{err: fail, state: circuitClosed}, {err: canceled, state: circuitOpen}},
			[]string{"closed>open"},
		},
		{"defaults", connectplugin.CircuitBreakerConfig{}, []circuitStep{
			{err: fail, state: circuitClosed},
			{err: fail, state: circuitClosed},
			{err: fail, state: circuitClosed},
			{err: fail, state: circuitClosed},
			{err: fail, state: circuitOpen},
			{wait: 10 * time.Second, state: circuitHalfOpen},
			{state: circuitClosed},
		}, []string{"closed>open", "open>half-open", "half-open>closed"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				runCircuit(t, tt.config, tt.steps, tt.want)
			})
		})
	}
}

// runCircuit takes a circuit breaker through its steps and compares the changes that
// it announces.
func runCircuit(t *testing.T, config connectplugin.CircuitBreakerConfig, steps []circuitStep, want []string) {
	t.Helper()
	var changes []string
	config.OnStateChange = func(from, to connectplugin.CircuitState) { changes = append(changes, fmt.Sprint(from, ">", to)) }
	cb := connectplugin.NewCircuitBreaker(config)
	for i, s := range steps {
		advance(s.wait)
		ran := false
		err := cb.Call(t.Context(), func() error { ran = true; return s.err })
		if ran == s.refused || (!s.refused && !errors.Is(err, s.err)) || (s.refused && connect.CodeOf(err) != connect.CodeUnavailable) {
			t.Fatalf("step %d: ran %v, got %v", i, ran, err)
		}
		if got := cb.State(); got != s.state {
			t.Fatalf("step %d: state %v, want %v", i, got, s.state)
		}
	}
	if !slices.Equal(changes, want) {
		t.Errorf("announced %v, want %v", changes, want)
	}
}

func TestCircuitState_String(t *testing.T) {
	t.Parallel()
	for state, want := range map[connectplugin.CircuitState]string{circuitClosed: "closed", circuitOpen: "open", circuitHalfOpen: "half-open", 9: "unknown"} {
		if got := state.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestCircuitBreaker_ProbesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cb := connectplugin.NewCircuitBreaker(connectplugin.CircuitBreakerConfig{FailureThreshold: 1, SuccessThreshold: 3, Timeout: time.Second})
		_ = cb.Call(t.Context(), func() error { return hosttest.ErrDown })
		advance(time.Second)
		var running atomic.Int64
		release := make(chan struct{})
		var refused atomic.Int64
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if err := cb.Call(t.Context(), func() error { running.Add(1); <-release; return nil }); err != nil {
					refused.Add(1)
				}
			})
		}
		synctest.Wait()
		if running.Load() != 3 || refused.Load() != 47 {
			t.Errorf("%d probes run, %d calls refused", running.Load(), refused.Load())
		}
		close(release)
		wg.Wait()
		if cb.State() != circuitClosed {
			t.Errorf("state %v", cb.State())
		}
	})
}

// A call that began before the circuit opened tells nothing about the time after.
func TestCircuitBreaker_LateResultsDoNotCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cb := connectplugin.NewCircuitBreaker(connectplugin.CircuitBreakerConfig{FailureThreshold: 1, SuccessThreshold: 1, Timeout: time.Second})
		release := make(chan error)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { _ = cb.Call(t.Context(), func() error { return <-release }) })
		}
		synctest.Wait()
		_ = cb.Call(t.Context(), func() error { return hosttest.ErrDown })
		release <- nil
		synctest.Wait()
		if cb.State() != circuitOpen {
			t.Errorf("a late success: state %v", cb.State())
		}
		advance(time.Second)
		if err := cb.Call(t.Context(), func() error { return nil }); err != nil || cb.State() != circuitClosed {
			t.Errorf("got %v, state %v", err, cb.State())
		}
		release <- hosttest.ErrDown
		wg.Wait()
		if cb.State() != circuitClosed {
			t.Errorf("a late failure: state %v", cb.State())
		}
	})
}

func TestCircuitBreaker_PanicsCountAndGoOn(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"panic", "goexit"} {
		cb := connectplugin.NewCircuitBreaker(connectplugin.CircuitBreakerConfig{FailureThreshold: 1})
		got := make(chan any, 1)
		go func() {
			defer func() { got <- recover() }()
			_ = cb.Call(t.Context(), func() error {
				if name == "goexit" {
					runtime.Goexit()
				}
				panic("boom")
			})
		}()
		if v := <-got; name == "panic" && v != "boom" {
			t.Errorf("%s: recovered %v", name, v)
		}
		if cb.State() != circuitOpen {
			t.Errorf("%s: state %v", name, cb.State())
		}
	}
}

// The callback may use the circuit breaker, and may panic.
func TestCircuitBreaker_CallbackOutsideTheLock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var cb *connectplugin.CircuitBreaker
		var changes []string
		cb = connectplugin.NewCircuitBreaker(connectplugin.CircuitBreakerConfig{
			FailureThreshold: 1, SuccessThreshold: 1, Timeout: time.Second,
			OnStateChange: func(from, to connectplugin.CircuitState) {
				changes = append(changes, fmt.Sprint(from, ">", to))
				if to == circuitOpen && len(changes) == 1 {
					advance(time.Second)
					_ = cb.Call(t.Context(), func() error { return nil }) // half-open, closed
					changes = append(changes, "returned")
				}
				if to == circuitClosed {
					panic("callback")
				}
			},
		})
		func() {
			defer func() {
				if v := recover(); v != "callback" {
					t.Errorf("recovered %v", v)
				}
			}()
			_ = cb.Call(t.Context(), func() error { return hosttest.ErrDown })
		}()
		_ = cb.Call(t.Context(), func() error { return hosttest.ErrDown })
		want := []string{"closed>open", "returned", "open>half-open", "half-open>closed", "closed>open"}
		if !slices.Equal(changes, want) {
			t.Errorf("announced %v, want %v", changes, want)
		}
	})
}

// A panicking callback must not cost a half-open circuit its probe.
func TestCircuitBreaker_CallbackPanicReleasesTheProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first := true
		cb := connectplugin.NewCircuitBreaker(connectplugin.CircuitBreakerConfig{
			FailureThreshold: 1, SuccessThreshold: 1, Timeout: time.Second,
			OnStateChange: func(_, to connectplugin.CircuitState) {
				if to == circuitHalfOpen && first {
					first = false
					panic("callback")
				}
			},
		})
		_ = cb.Call(t.Context(), func() error { return hosttest.ErrDown })
		advance(time.Second)
		func() {
			defer func() { _ = recover() }()
			_ = cb.Call(t.Context(), func() error { return nil })
		}()
		advance(time.Second)
		if err := cb.Call(t.Context(), func() error { return nil }); err != nil || cb.State() != circuitClosed {
			t.Errorf("got %v, state %v", err, cb.State())
		}
	})
}

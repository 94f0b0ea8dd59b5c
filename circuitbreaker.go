package connectplugin

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/breaker"
)

// CircuitState is the state of a [CircuitBreaker].
type CircuitState int

// The states of a circuit breaker.
const (
	// CircuitClosed lets every call through.
	CircuitClosed CircuitState = CircuitState(breaker.Closed)
	// CircuitOpen refuses every call.
	CircuitOpen CircuitState = CircuitState(breaker.Open)
	// CircuitHalfOpen lets a few calls through to see how they fare.
	CircuitHalfOpen CircuitState = CircuitState(breaker.HalfOpen)
)

// String returns "closed", "open" or "half-open", and "unknown" for what is no state.
func (s CircuitState) String() string {
	switch s {
	case CircuitClosed:
		return "closed"
	case CircuitOpen:
		return "open"
	case CircuitHalfOpen:
		return "half-open"
	default:
		return "unknown"
	}
}

// Defaults of CircuitBreakerConfig.
const (
	defaultFailureThreshold = 5
	defaultSuccessThreshold = 2
	defaultCircuitTimeout   = 10 * time.Second
)

var errCircuitOpen = errors.New("circuit breaker is open")

// CircuitBreakerConfig configures a [CircuitBreaker]. A zero or negative number
// means the value of [DefaultCircuitBreakerConfig].
type CircuitBreakerConfig struct {
	// FailureThreshold is how many failures in a row open the circuit.
	FailureThreshold int
	// SuccessThreshold is how many successes close a half-open circuit. No more
	// calls than that are let through at a time while it is half-open.
	SuccessThreshold int
	// Timeout is how long the circuit stays open before it is half-open.
	Timeout time.Duration
	// IsFailure says whether an error tells against the other side. Nil counts
	// errors without a code and the codes Unknown, DeadlineExceeded,
	// ResourceExhausted, Internal, Unavailable and DataLoss. A call that its
	// caller gave up (Canceled) tells nothing unless IsFailure says so.
	IsFailure func(error) bool
	// OnStateChange is called after each change, one call at a time and in order,
	// without a lock, by one of the goroutines that use the circuit breaker.
	OnStateChange func(from, to CircuitState)
}

// DefaultCircuitBreakerConfig returns 5 failures to open, 10 s until half-open,
// 2 successes to close, and the rule of a nil IsFailure, which callers may call.
func DefaultCircuitBreakerConfig() CircuitBreakerConfig {
	return CircuitBreakerConfig{
		FailureThreshold: defaultFailureThreshold,
		SuccessThreshold: defaultSuccessThreshold,
		Timeout:          defaultCircuitTimeout,
		IsFailure:        isOutage,
	}
}

// CircuitBreaker stops calling what keeps failing. It is safe for concurrent use
// and starts no goroutine: an open circuit becomes half-open with the first call
// after its timeout. Make it with [NewCircuitBreaker]; a nil one and the zero value panic.
type CircuitBreaker struct {
	// Fixed at creation.
	config  CircuitBreakerConfig
	machine *breaker.Breaker
}

// NewCircuitBreaker returns a closed circuit breaker.
func NewCircuitBreaker(config CircuitBreakerConfig) *CircuitBreaker {
	d := DefaultCircuitBreakerConfig()
	if config.FailureThreshold <= 0 {
		config.FailureThreshold = d.FailureThreshold
	}
	if config.SuccessThreshold <= 0 {
		config.SuccessThreshold = d.SuccessThreshold
	}
	if config.Timeout <= 0 {
		config.Timeout = d.Timeout
	}
	if config.IsFailure == nil {
		config.IsFailure = isOutage
	}
	machine := breaker.New(breaker.Config{
		Failures: config.FailureThreshold, Successes: config.SuccessThreshold, Timeout: config.Timeout,
	}, config.OnStateChange != nil)
	return &CircuitBreaker{config: config, machine: machine}
}

// CircuitBreakerInterceptor returns an interceptor that makes unary calls
// through cb, which several clients of one server may share. Put it behind
// [RetryInterceptor], so that it counts attempts. A nil cb, or one that
// [NewCircuitBreaker] did not make, is a programming error and panics.
func CircuitBreakerInterceptor(cb *CircuitBreaker) connect.UnaryInterceptorFunc {
	cb.mustBeMade("CircuitBreakerInterceptor: the circuit breaker")
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			var res connect.AnyResponse
			err := cb.Call(ctx, func() error {
				var err error
				res, err = next(ctx, req)
				return err
			})
			if err != nil {
				return nil, err
			}
			return res, nil
		}
	}
}

// State returns the present state.
func (cb *CircuitBreaker) State() CircuitState {
	cb.mustBeMade("the CircuitBreaker")
	return CircuitState(cb.machine.State())
}

// Call runs fn and returns its error. It returns [connect.CodeUnavailable]
// without running fn while the circuit is open or enough calls try a half-open
// one, and the context's error, coded, if that has ended already. A panic of fn
// counts as a failure and goes on.
func (cb *CircuitBreaker) Call(ctx context.Context, fn func() error) error {
	cb.mustBeMade("the CircuitBreaker")
	if err := contextError(ctx); err != nil {
		return err
	}
	era, admitted := cb.machine.Admit(time.Now())
	if !admitted {
		return connect.NewError(connect.CodeUnavailable, errCircuitOpen)
	}
	outcome := breaker.Failure // also of a panic and of runtime.Goexit
	defer func() {
		cb.machine.Record(era, outcome, time.Now())
		cb.announce()
	}()
	cb.announce()
	err := fn()
	outcome = cb.judge(err)
	return err
}

// mustBeMade panics where NewCircuitBreaker did not make it.
func (cb *CircuitBreaker) mustBeMade(what string) {
	mustBeMade(what, cb != nil && cb.machine != nil, "NewCircuitBreaker")
}

func (cb *CircuitBreaker) judge(err error) breaker.Outcome {
	switch {
	case err == nil:
		return breaker.Success
	case cb.config.IsFailure(err):
		return breaker.Failure
	case isCanceled(err):
		return breaker.Neither
	default:
		return breaker.Success
	}
}

// announce delivers the changes that wait. One goroutine does at a time; a
// change that OnStateChange itself brings about is delivered after it returned.
func (cb *CircuitBreaker) announce() {
	for {
		change, told, ok := cb.machine.Next()
		if !ok {
			return
		}
		cb.tell(change, told)
	}
}

func (cb *CircuitBreaker) tell(change breaker.Change, told func()) {
	defer told()
	cb.config.OnStateChange(CircuitState(change.From), CircuitState(change.To))
}

// isOutage tells trouble of the other side from requests that it refused.
func isOutage(err error) bool {
	if isCanceled(err) {
		return false
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	switch connect.CodeOf(err) {
	case connect.CodeUnknown, connect.CodeDeadlineExceeded, connect.CodeResourceExhausted,
		connect.CodeInternal, connect.CodeUnavailable, connect.CodeDataLoss:
		return true
	case connect.CodeCanceled, connect.CodeInvalidArgument, connect.CodeNotFound, connect.CodeAlreadyExists,
		connect.CodePermissionDenied, connect.CodeFailedPrecondition, connect.CodeAborted,
		connect.CodeOutOfRange, connect.CodeUnimplemented, connect.CodeUnauthenticated:
		return false
	default:
		return true
	}
}

func isCanceled(err error) bool {
	return connect.CodeOf(err) == connect.CodeCanceled || errors.Is(err, context.Canceled)
}

package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"
)

// CircuitState is the state of a [CircuitBreaker].
type CircuitState int

// The states of a circuit breaker.
const (
	// CircuitClosed lets every call through.
	CircuitClosed CircuitState = 0
	// CircuitOpen refuses every call.
	CircuitOpen CircuitState = 1
	// CircuitHalfOpen lets a few calls through to see how they fare.
	CircuitHalfOpen CircuitState = 2
)

// String returns "closed", "open" or "half-open".
func (s CircuitState) String() string {
	switch s {
	case CircuitClosed:
		return "closed"
	case CircuitOpen:
		return "open"
	case CircuitHalfOpen:
		return "half-open"
	default:
		return fmt.Sprintf("CircuitState(%d)", int(s))
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
// 2 successes to close.
func DefaultCircuitBreakerConfig() CircuitBreakerConfig {
	return CircuitBreakerConfig{
		FailureThreshold: defaultFailureThreshold,
		SuccessThreshold: defaultSuccessThreshold,
		Timeout:          defaultCircuitTimeout,
	}
}

// CircuitBreaker stops calling what keeps failing. It is safe for concurrent use
// and starts no goroutine: an open circuit becomes half-open with the first call
// after its timeout.
type CircuitBreaker struct {
	config CircuitBreakerConfig // fixed at creation

	mu        sync.Mutex
	state     CircuitState
	era       uint64 // counts changes of state; a call's result counts in its own era only
	failures  int    // in a row, while closed
	successes int    // while half-open
	probes    int    // in flight, while half-open
	openUntil time.Time
	changes   []stateChange // not announced yet
	announces bool          // somebody is calling OnStateChange
}

type stateChange struct{ from, to CircuitState }

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
	return &CircuitBreaker{config: config}
}

// CircuitBreakerInterceptor returns an interceptor that makes unary calls
// through cb, which several clients of one server may share. Put it behind
// [RetryInterceptor], so that it counts attempts.
func CircuitBreakerInterceptor(cb *CircuitBreaker) connect.UnaryInterceptorFunc {
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
	cb.mu.Lock()
	defer cb.mu.Unlock()
	return cb.state
}

// Call runs fn and returns its error. It returns [connect.CodeUnavailable]
// without running fn while the circuit is open or enough calls try a half-open
// one, and the context's error, coded, if that has ended already. A panic of fn
// counts as a failure and goes on.
func (cb *CircuitBreaker) Call(ctx context.Context, fn func() error) error {
	if err := contextError(ctx); err != nil {
		return err
	}
	era, admitted := cb.admit(time.Now())
	if !admitted {
		return connect.NewError(connect.CodeUnavailable, errCircuitOpen)
	}
	verdict := outcomeFailure // also of a panic and of runtime.Goexit
	defer func() {
		cb.record(era, verdict, time.Now())
		cb.announce()
	}()
	cb.announce()
	err := fn()
	verdict = cb.judge(err)
	return err
}

type outcome int

const (
	outcomeSuccess outcome = iota
	outcomeFailure
	outcomeNeither
)

func (cb *CircuitBreaker) judge(err error) outcome {
	switch {
	case err == nil:
		return outcomeSuccess
	case cb.config.IsFailure(err):
		return outcomeFailure
	case isCanceled(err):
		return outcomeNeither
	default:
		return outcomeSuccess
	}
}

// admit reports whether a call may begin, and in which era.
func (cb *CircuitBreaker) admit(now time.Time) (uint64, bool) {
	cb.mu.Lock()
	defer cb.mu.Unlock()
	if cb.state == CircuitOpen && !now.Before(cb.openUntil) {
		cb.changeLocked(CircuitHalfOpen)
	}
	switch cb.state {
	case CircuitClosed:
		return cb.era, true
	case CircuitHalfOpen:
		if cb.probes+cb.successes >= cb.config.SuccessThreshold {
			return 0, false
		}
		cb.probes++
		return cb.era, true
	case CircuitOpen:
		return 0, false
	default:
		return 0, false
	}
}

// record counts the outcome of a call, unless the state has changed since it
// began.
func (cb *CircuitBreaker) record(era uint64, result outcome, now time.Time) {
	cb.mu.Lock()
	defer cb.mu.Unlock()
	if era != cb.era {
		return
	}
	switch cb.state {
	case CircuitClosed:
		cb.recordClosedLocked(result, now)
	case CircuitHalfOpen:
		cb.probes--
		cb.recordProbeLocked(result, now)
	case CircuitOpen: // admits no calls, so none began in its era
	}
}

func (cb *CircuitBreaker) recordClosedLocked(result outcome, now time.Time) {
	switch result {
	case outcomeSuccess:
		cb.failures = 0
	case outcomeFailure:
		cb.failures++
		if cb.failures >= cb.config.FailureThreshold {
			cb.openLocked(now)
		}
	case outcomeNeither:
	}
}

func (cb *CircuitBreaker) recordProbeLocked(result outcome, now time.Time) {
	switch result {
	case outcomeSuccess:
		cb.successes++
		if cb.successes >= cb.config.SuccessThreshold {
			cb.changeLocked(CircuitClosed)
		}
	case outcomeFailure:
		cb.openLocked(now)
	case outcomeNeither:
	}
}

func (cb *CircuitBreaker) openLocked(now time.Time) {
	cb.openUntil = now.Add(cb.config.Timeout)
	cb.changeLocked(CircuitOpen)
}

func (cb *CircuitBreaker) changeLocked(to CircuitState) {
	if cb.config.OnStateChange != nil {
		cb.changes = append(cb.changes, stateChange{from: cb.state, to: to})
	}
	cb.state = to
	cb.era++
	cb.failures, cb.successes, cb.probes = 0, 0, 0
}

// announce delivers the changes that wait. One goroutine does at a time; a
// change that OnStateChange itself brings about is delivered after it returned.
func (cb *CircuitBreaker) announce() {
	for {
		change, ok := cb.nextChange()
		if !ok {
			return
		}
		cb.tell(change)
	}
}

func (cb *CircuitBreaker) nextChange() (stateChange, bool) {
	cb.mu.Lock()
	defer cb.mu.Unlock()
	if cb.announces || len(cb.changes) == 0 {
		return stateChange{}, false
	}
	change := cb.changes[0]
	cb.changes = cb.changes[1:]
	cb.announces = true
	return change, true
}

func (cb *CircuitBreaker) tell(change stateChange) {
	defer func() {
		cb.mu.Lock()
		defer cb.mu.Unlock()
		cb.announces = false
	}()
	cb.config.OnStateChange(change.from, change.to)
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

package connectplugin

import (
	"context"
	"errors"
	"math"
	"net"
	"reflect"
	"time"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/backoff"
)

// Defaults of RetryPolicy.
const (
	defaultRetryAttempts       = 3
	defaultRetryInitialBackoff = 100 * time.Millisecond
	defaultRetryMaxBackoff     = 10 * time.Second
	defaultRetryMultiplier     = 2.0
)

// RetryPolicy says which unary calls [RetryInterceptor] repeats and how long it
// waits in between. A zero field means the value of [DefaultRetryPolicy], except
// for Jitter.
type RetryPolicy struct {
	// MaxAttempts is the number of calls altogether. 1 never repeats.
	MaxAttempts int
	// InitialBackoff is the wait before the second attempt.
	InitialBackoff time.Duration
	// MaxBackoff is the longest wait.
	MaxBackoff time.Duration
	// BackoffMultiplier is the factor from one wait to the next, at least 1.
	BackoffMultiplier float64
	// Jitter makes each wait a random part, at least half, of the full one, so
	// that clients that failed together do not come back together.
	Jitter bool
	// IsRetryable decides whether a call that failed with an error is repeated.
	// It speaks for every procedure under the interceptor: one that is not
	// idempotent may then run twice.
	//
	// Nil repeats [connect.CodeUnavailable] only, and that only where nothing can
	// happen twice: the procedure is declared idempotent or free of side effects
	// (the idempotency_level of its proto), or the request never left, because the
	// transport had not been asked or could not connect, or because a [Client] knew that
	// nobody provides the service, or the host says that it did nothing with it. ResourceExhausted is not
	// repeated: it asks for fewer requests.
	IsRetryable func(error) bool
}

// DefaultRetryPolicy returns three attempts, waits of 100 ms to 10 s that double
// and are jittered, and the cautious rule of a nil IsRetryable. Called directly, its
// IsRetryable says of an error alone whether another attempt may help; in the
// interceptor it also asks whether the request may be made twice.
func DefaultRetryPolicy() RetryPolicy {
	return RetryPolicy{
		MaxAttempts:       defaultRetryAttempts,
		InitialBackoff:    defaultRetryInitialBackoff,
		MaxBackoff:        defaultRetryMaxBackoff,
		BackoffMultiplier: defaultRetryMultiplier,
		Jitter:            true,
		IsRetryable:       isPassing,
	}
}

// isPassing reports whether another attempt may help.
func isPassing(err error) bool { return connect.CodeOf(err) == connect.CodeUnavailable }

// RetryInterceptor returns a client interceptor that repeats failed unary calls
// as policy says (see [RetryPolicy]; the idea of the wait is from
// https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter).
// It never repeats a stream, and does nothing in a handler. It returns the last
// error when attempts are used up or the next one would begin after the
// context's deadline, and the context's error when that ends during a wait.
// Interceptors that come after it run once per attempt.
func RetryInterceptor(policy RetryPolicy) connect.UnaryInterceptorFunc {
	p := retrier{RetryPolicy: policy.withDefaults(), cautious: policy.isCautious()}
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if spec := req.Spec(); spec.Procedure != "" && !spec.IsClient {
				return next(ctx, req)
			}
			return p.call(ctx, req, next)
		}
	}
}

// retrier is a policy at work.
type retrier struct {
	RetryPolicy

	cautious bool // nobody decided which procedures may run twice
}

// isCautious reports whether the policy has the rule of [DefaultRetryPolicy], which
// knows requests as well as errors.
func (p RetryPolicy) isCautious() bool {
	return p.IsRetryable == nil || reflect.ValueOf(p.IsRetryable).Pointer() == reflect.ValueOf(isPassing).Pointer()
}

func (p RetryPolicy) withDefaults() RetryPolicy {
	d := DefaultRetryPolicy()
	if p.MaxAttempts == 0 {
		p.MaxAttempts = d.MaxAttempts
	}
	if p.InitialBackoff <= 0 {
		p.InitialBackoff = d.InitialBackoff
	}
	if p.MaxBackoff <= 0 {
		p.MaxBackoff = d.MaxBackoff
	}
	if p.BackoffMultiplier == 0 || math.IsNaN(p.BackoffMultiplier) {
		p.BackoffMultiplier = d.BackoffMultiplier
	}
	p.BackoffMultiplier = max(p.BackoffMultiplier, 1)
	return p
}

func (p *retrier) call(ctx context.Context, req connect.AnyRequest, next connect.UnaryFunc) (connect.AnyResponse, error) {
	until, _ := ctx.Deadline()
	attempts := &backoff.Attempts{Most: p.MaxAttempts, Waits: backoff.Waits{
		Initial: p.InitialBackoff, Max: p.MaxBackoff, Factor: p.BackoffMultiplier, Jitter: p.Jitter,
	}}
	for {
		res, err := next(ctx, req)
		if err == nil || !attempts.Failed() || ctx.Err() != nil || !p.retryable(req, err) {
			return res, err
		}
		wait, ok := attempts.Pause(time.Now(), until)
		switch {
		case !ok:
			return nil, err
		case !backoff.Wait(ctx, wait):
			return nil, contextError(ctx)
		}
	}
}

func (p *retrier) retryable(req connect.AnyRequest, err error) bool {
	if !p.cautious {
		return p.IsRetryable(err)
	}
	return isPassing(err) && (isIdempotent(req) || isUnsent(req, err))
}

func isIdempotent(req connect.AnyRequest) bool {
	switch req.Spec().IdempotencyLevel {
	case connect.IdempotencyIdempotent, connect.IdempotencyNoSideEffects:
		return true
	case connect.IdempotencyUnknown:
		return false
	default:
		return false
	}
}

// isUnsent reports whether the request cannot have reached a server. Connect
// notes the HTTP method when it hands the request to the transport.
func isUnsent(req connect.AnyRequest, err error) bool {
	if req.HTTPMethod() == "" || errors.Is(err, errUntouched) {
		return true
	}
	if connect.IsWireError(err) {
		return false
	}
	dial, ok := errors.AsType[*net.OpError](err)
	return ok && dial.Op == "dial"
}

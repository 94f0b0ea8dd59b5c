package tools_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// retryFailures returns a call that fails the given number of times and notes when it
// was made.
func retryFailures(times int, code connect.Code) (connect.UnaryFunc, *[]time.Duration) {
	start := time.Now()
	var at []time.Duration
	return func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
		at = append(at, time.Since(start))
		if len(at) <= times {
			return nil, connect.NewError(code, hosttest.ErrDown)
		}
		return connect.NewResponse(&emptypb.Empty{}), nil
	}, &at
}

func TestRetryInterceptor_Backoff(t *testing.T) {
	t.Parallel()
	always := func(error) bool { return true }
	const ms = time.Millisecond
	tests := []struct {
		name   string
		policy connectplugin.RetryPolicy
		fails  int
		code   connect.Code
		want   []time.Duration // when the attempts are made, without jitter
		ok     bool
	}{
		{"success at once", connectplugin.RetryPolicy{}, 0, connect.CodeUnavailable, []time.Duration{0}, true},
		{"defaults of the zero value", connectplugin.RetryPolicy{}, 9, connect.CodeUnavailable, []time.Duration{0, 100 * ms, 300 * ms}, false},
		{"succeeds in between", connectplugin.RetryPolicy{}, 1, connect.CodeUnavailable, []time.Duration{0, 100 * ms}, true},
		{"one attempt", connectplugin.RetryPolicy{MaxAttempts: 1}, 9, connect.CodeUnavailable, []time.Duration{0}, false},
		{"negative attempts", connectplugin.RetryPolicy{MaxAttempts: -1}, 9, connect.CodeUnavailable, []time.Duration{0}, false},
		{
			"capped",
			connectplugin.RetryPolicy{MaxAttempts: 5, InitialBackoff: 10 * ms, MaxBackoff: 25 * ms},
			9, connect.CodeUnavailable,
			[]time.Duration{0, 10 * ms, 30 * ms, 55 * ms, 80 * ms},
			false,
		},
		{
			"multiplier below 1",
			connectplugin.RetryPolicy{InitialBackoff: 10 * ms, BackoffMultiplier: 0.5},
			9, connect.CodeUnavailable,
			[]time.Duration{0, 10 * ms, 20 * ms},
			false,
		},
		{
			"overflow",
			connectplugin.RetryPolicy{InitialBackoff: time.Hour, BackoffMultiplier: 1e300, MaxBackoff: 2 * time.Hour},
			9,
			connect.CodeUnavailable,
			[]time.Duration{0, time.Hour, 3 * time.Hour},
			false,
		},
		{"not retryable", connectplugin.RetryPolicy{}, 9, connect.CodeInternal, []time.Duration{0}, false},
		{"asks for less", connectplugin.RetryPolicy{}, 9, connect.CodeResourceExhausted, []time.Duration{0}, false},
		{"own rule", connectplugin.RetryPolicy{MaxAttempts: 2, IsRetryable: always}, 9, connect.CodeInternal, []time.Duration{0, 100 * ms}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				next, at := retryFailures(tt.fails, tt.code)
				res, err := connectplugin.RetryInterceptor(tt.policy)(next)(t.Context(), connect.NewRequest(&emptypb.Empty{}))
				if (err == nil) != tt.ok || (res != nil) != tt.ok {
					t.Errorf("got %v, %v", res, err)
				}
				if err != nil && connect.CodeOf(err) != tt.code {
					t.Errorf("got %v, want the last error", err)
				}
				if len(*at) != len(tt.want) {
					t.Fatalf("attempts at %v, want %v", *at, tt.want)
				}
				for i, want := range tt.want {
					if (*at)[i] != want {
						t.Errorf("attempts at %v, want %v", *at, tt.want)
						break
					}
				}
			})
		})
	}
}

func TestRetryInterceptor_Jitter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		distinct := map[time.Duration]bool{}
		for range 200 {
			next, at := retryFailures(1, connect.CodeUnavailable)
			policy := connectplugin.DefaultRetryPolicy()
			if _, err := connectplugin.RetryInterceptor(policy)(next)(t.Context(), connect.NewRequest(&emptypb.Empty{})); err != nil {
				t.Fatal(err)
			}
			wait := (*at)[1]
			if wait < policy.InitialBackoff/2 || wait > policy.InitialBackoff {
				t.Fatalf("waited %v", wait)
			}
			distinct[wait] = true
		}
		if len(distinct) < 100 {
			t.Errorf("only %d different waits in 200", len(distinct))
		}
	})
}

func TestRetryInterceptor_HonoursTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		retry := connectplugin.RetryInterceptor(connectplugin.RetryPolicy{MaxAttempts: 100})
		req := connect.NewRequest(&emptypb.Empty{})

		// A wait that cannot be over before the deadline is not begun.
		ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
		defer cancel()
		start := time.Now()
		next, at := retryFailures(100, connect.CodeUnavailable)
		if _, err := retry(next)(ctx, req); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("got %v, want the last error", err)
		}
		if len(*at) != 2 || time.Since(start) != 100*time.Millisecond {
			t.Errorf("attempts at %v, back after %v", *at, time.Since(start))
		}

		// The end of the context ends a wait.
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		start = time.Now()
		next, at = retryFailures(100, connect.CodeUnavailable)
		if _, err := retry(next)(ctx, req); connect.CodeOf(err) != connect.CodeCanceled || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if len(*at) != 1 || time.Since(start) != 50*time.Millisecond {
			t.Errorf("attempts at %v, back after %v", *at, time.Since(start))
		}

		// Nothing is repeated for a caller who has left.
		next, at = retryFailures(100, connect.CodeUnavailable)
		if _, err := retry(next)(ctx, req); connect.CodeOf(err) != connect.CodeUnavailable || len(*at) != 1 {
			t.Errorf("got %v, attempts at %v", err, *at)
		}
	})
}

// Over the wire: what may have happened is repeated only if it may happen twice.
func TestRetryInterceptor_RepeatsOnlyWhatIsSafe(t *testing.T) {
	t.Parallel()
	policy := connectplugin.RetryPolicy{InitialBackoff: time.Millisecond}
	widened := policy
	widened.IsRetryable = func(err error) bool { return connect.CodeOf(err) == connect.CodeUnavailable }
	tests := []struct {
		name   string
		policy connectplugin.RetryPolicy
		opts   []connect.ClientOption
		want   int64
	}{
		{"unknown", policy, nil, 1},
		{"idempotent", policy, []connect.ClientOption{connect.WithIdempotency(connect.IdempotencyIdempotent)}, 3},
		{"no side effects", policy, []connect.ClientOption{connect.WithIdempotency(connect.IdempotencyNoSideEffects)}, 3},
		{"unknown, own rule", widened, nil, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := &echo.Whoami{Observe: func(context.Context, http.Header) error {
				return connect.NewError(connect.CodeUnavailable, hosttest.ErrDown)
			}}
			// The same interceptor in the handler must not multiply the calls.
			srv := hosttest.StartTLS(t, e.Handler(connectplugin.RetryInterceptor(widened)))
			for _, c := range echo.Calls() {
				before := e.Calls.Load()
				opts := append([]connect.ClientOption{connect.WithInterceptors(connectplugin.RetryInterceptor(tt.policy))}, tt.opts...)
				_, err := c.Call(t.Context(), srv.Client(), srv.URL, nil, opts...)
				if connect.CodeOf(err) != connect.CodeUnavailable {
					t.Errorf("%s: got %v", c.Name, err)
				}
				want := tt.want
				if !isUnaryCall(c) {
					want = 1
				}
				if n := e.Calls.Load() - before; n != want {
					t.Errorf("%s: the handler ran %d times, want %d", c.Name, n, want)
				}
			}
		})
	}
}

func isUnaryCall(c echo.Call) bool { return c.Name[len(c.Name)-len("/unary"):] == "/unary" }

// refusingClient cannot connect.
type refusingClient struct{ dials atomic.Int64 }

func (c *refusingClient) Do(*http.Request) (*http.Response, error) {
	c.dials.Add(1)
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: hosttest.ErrDown}
}

func TestRetryInterceptor_TellsUnsentFromLost(t *testing.T) {
	t.Parallel()
	call := func(client connect.HTTPClient) error {
		retry := connectplugin.RetryInterceptor(connectplugin.RetryPolicy{InitialBackoff: time.Millisecond})
		_, err := connect.NewClient[echo.Text, echo.Text](client, "https://127.0.0.1:1"+echo.Unary, connect.WithInterceptors(retry)).
			CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x")))
		return err
	}
	lost, refused := &hosttest.CutClient{}, &refusingClient{}
	if err := call(lost); connect.CodeOf(err) != connect.CodeUnavailable || lost.Sent.Load() != 1 {
		t.Errorf("lost: got %v after %d requests", err, lost.Sent.Load())
	}
	if err := call(refused); connect.CodeOf(err) != connect.CodeUnavailable || refused.dials.Load() != 3 {
		t.Errorf("not connected: got %v after %d dials", err, refused.dials.Load())
	}
	// A real port that nobody listens on.
	if err := call(http.DefaultClient); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("closed port: got %v", err)
	}
}

// echoTo calls through a connection, with the interceptor before one that counts the attempts.
func echoTo(t *testing.T, conn *connectplugin.ServiceConn, policy connectplugin.RetryPolicy) (attempts int64, err error) {
	t.Helper()
	var made atomic.Int64
	count := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			made.Add(1)
			return next(ctx, req)
		}
	})
	_, err = echo.NewClient(conn, echo.Unary, connect.WithInterceptors(connectplugin.RetryInterceptor(policy), count)).
		CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x")))
	return made.Load(), err
}

// What a client knows that nobody provides was not sent: it is repeated, though it may happen only once.
func TestRetryInterceptor_RepeatsWhatTheClientDidNotSend(t *testing.T) {
	t.Parallel()
	e := &echo.Whoami{Observe: func(context.Context, http.Header) error {
		return connect.NewError(connect.CodeUnavailable, hosttest.ErrDown)
	}}
	rig := echo.NewRig(t, e.Handler(), nil)
	quick := connectplugin.RetryPolicy{InitialBackoff: time.Millisecond}
	connection := func(constraint string) *connectplugin.ServiceConn {
		conn, err := rig.Caller.Service(t.Context(), echo.Type, constraint)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	there := connection("")
	if n, err := echoTo(t, there, quick); n != 1 || connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("the provider fails: %d attempts, %v; want 1", n, err)
	}
	if n, err := echoTo(t, connection(">=9"), quick); n != 3 || connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("nobody provides that version: %d attempts, %v; want 3", n, err)
	}
	rig.Provider.Stop(t)
	hosttest.Eventually(t, "the client knows that nobody provides it", func() bool {
		return there.State() == connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE
	})
	if n, err := echoTo(t, there, quick); n != 3 || connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("nobody provides it: %d attempts, %v; want 3", n, err)
	}
	before := e.Calls.Load()
	rig.Stop(t)
	hosttest.Eventually(t, "the client does not reach the host", func() bool {
		n, err := echoTo(t, there, quick)
		return n == 3 && connect.CodeOf(err) == connect.CodeUnavailable
	})
	if n := e.Calls.Load(); n != before {
		t.Errorf("the handler ran %d times more", n-before)
	}
}

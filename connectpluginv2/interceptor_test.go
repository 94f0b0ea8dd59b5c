package connectpluginv2_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	connectv1 "connectrpc.com/connect"
	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/connectpluginv2"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// unwrapped is the outer error of the second version.
func unwrapped(err error) *connect.Error {
	coded, _ := errors.AsType[*connect.Error](err)
	return coded
}

// client calls a server of the second version over HTTP, without a host.
func client(t *testing.T, server *connect.Server, interceptors ...connectv1.UnaryInterceptorFunc) *connect.Client {
	t.Helper()
	s := httptest.NewUnstartedServer(connectpluginv2.NewHandler(server))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return connect.NewClient(connectpluginv2.NewTransport(echo.At(s.URL, s.Client())), connectpluginv2.ClientInterceptor(interceptors...))
}

// failingTimes fails so many calls.
func failingTimes(n int64, code connect.Code, calls *atomic.Int64) func(context.Context) error {
	return func(context.Context) error {
		if calls.Add(1) <= n {
			return connect.NewError(code, "not now")
		}
		return nil
	}
}

// Retry repeats what may be made twice, and nothing else.
func TestClientInterceptor_Retry(t *testing.T) {
	t.Parallel()
	retry := connectplugin.RetryInterceptor(connectplugin.RetryPolicy{InitialBackoff: time.Millisecond})
	for name, tt := range map[string]struct {
		level connect.IdempotencyLevel
		code  connect.Code
		calls int64
	}{
		"idempotent":      {connect.IdempotencyIdempotent, connect.CodeUnavailable, 3},
		"may run once":    {connect.IdempotencyUnknown, connect.CodeUnavailable, 1},
		"no use in again": {connect.IdempotencyIdempotent, connect.CodeNotFound, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int64
			c := client(t, newServer(failingTimes(2, tt.code, &calls)), retry)
			spec, res := specs["unary"], &echo.Text{}
			spec.IdempotencyLevel = tt.level
			err := c.CallUnary(t.Context(), spec, wrapperspb.String("ab"), res)
			if calls.Load() != tt.calls || (err == nil) != (tt.calls == 3) || err == nil && res.GetValue() != "ab" {
				t.Errorf("%d calls, %v, %q", calls.Load(), err, res.GetValue())
			}
			if err != nil && connect.CodeOf(err) != tt.code {
				t.Errorf("%v, want %v", err, tt.code)
			}
		})
	}
}

// A circuit breaker counts what tells against the other side, and refuses with unavailable.
func TestClientInterceptor_CircuitBreaker(t *testing.T) {
	t.Parallel()
	for code, opens := range map[connect.Code]bool{connect.CodeInternal: true, connect.CodeNotFound: false} {
		var calls atomic.Int64
		cb := connectplugin.NewCircuitBreaker(connectplugin.CircuitBreakerConfig{FailureThreshold: 2})
		c := client(t, newServer(failingTimes(10, code, &calls)), connectplugin.CircuitBreakerInterceptor(cb))
		for range 4 {
			_ = call(t.Context(), c, "unary")
		}
		last := call(t.Context(), c, "unary").Err
		if opens != (cb.State() == connectplugin.CircuitOpen) || opens != (connect.CodeOf(last) == connect.CodeUnavailable) || opens != (calls.Load() == 2) {
			t.Errorf("%v: %v after %d calls, %v", code, cb.State(), calls.Load(), last)
		}
	}
}

// Authentication and limits cover unary calls and streams alike, before anything is read,
// and their headers arrive.
func TestServerInterceptor_AuthAndLimits(t *testing.T) {
	t.Parallel()
	auth := connectplugin.NewTokenAuth("good", func(token string) (string, map[string]string, error) {
		if token != "good" {
			return "", nil, errors.New("unknown token")
		}
		return "somebody", nil, nil
	})
	var seen atomic.Value
	server := newServer(func(ctx context.Context) error {
		seen.Store(connectplugin.GetAuthContext(ctx).Identity)
		return nil
	}, connectpluginv2.ServerInterceptor(
		connectplugin.ComposeAuthServer(auth),
		connectplugin.RateLimitInterceptor(nil, nil, connectplugin.Rate{RequestsPerSecond: 1.0 / 3600, Burst: len(specs)}),
	))
	stranger, friend := client(t, server), client(t, server, auth.ClientInterceptor())
	if out := call(t.Context(), friend, "unary"); out.Err != nil || seen.Load() != "somebody" {
		t.Fatalf("%v, seen %v", out.Err, seen.Load())
	}
	for kind := range specs {
		if err := call(t.Context(), stranger, kind).Err; said(err) != "unauthenticated: unauthenticated" {
			t.Errorf("a stranger's %s: %v", kind, err)
		}
		ctx, info := connect.NewClientContext(t.Context())
		info.RequestHeader().Set("Authorization", "Bearer good")
		err := call(ctx, stranger, kind).Err
		if err != nil && (said(err) != "resource_exhausted: too many requests" || retryAfter(info) != "3600") {
			t.Errorf("%s: %v, %q", kind, err, retryAfter(info))
		}
	}
	if err := call(t.Context(), friend, "unary").Err; connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("beyond the limit: %v", err)
	}
}

func retryAfter(info *connect.CallInfo) string {
	return info.ResponseHeader().Get("Retry-After") + info.ResponseTrailer().Get("Retry-After")
}

// What an interceptor adds to one attempt is not in the next, and it sees the answer.
func TestClientInterceptor_HeadersAndMessages(t *testing.T) {
	t.Parallel()
	n := 0
	mark := func(next connectv1.UnaryFunc) connectv1.UnaryFunc {
		return func(ctx context.Context, req connectv1.AnyRequest) (connectv1.AnyResponse, error) {
			n++
			req.Header().Set(fmt.Sprintf("Attempt-%d", n), "x")
			if _, err := next(ctx, req); err == nil {
				t.Error("the first attempt went through")
			}
			n++
			req.Header().Del("Attempt-1")
			req.Header().Set("Attempt-2", "x")
			res, err := next(ctx, req)
			if err == nil && (res.Any().(*echo.Text).GetValue() != "ab" || res.Header().Get("Said") != "2" || req.Any() == nil) {
				t.Errorf("the answer is %v, %v", res.Any(), res.Header())
			}
			return res, err
		}
	}
	server := newServer(func(ctx context.Context) error {
		info, _ := connect.CallInfoForServerContext(ctx)
		if h := info.RequestHeader(); h.Get("Attempt-1") != "" || h.Get("Own") != "x" {
			return connect.NewError(connect.CodeAborted, "not this one")
		}
		info.ResponseHeader().Set("Said", "2")
		return nil
	})
	ctx, info := connect.NewClientContext(t.Context())
	info.RequestHeader().Set("Own", "x")
	if out := call(ctx, client(t, server, mark), "unary"); out.Err != nil || n != 2 {
		t.Errorf("%v after %d attempts", out.Err, n)
	}
}

// An interceptor's own error wins over the one of the call, and both are known.
func TestErrors_TheOuterOneCounts(t *testing.T) {
	t.Parallel()
	inner := connect.NewError(connect.CodeNotFound, "inner")
	outer := connectv1.NewError(connectv1.CodeAborted, fmt.Errorf("outer: %w", inner))
	if got := connectpluginv2.FromV1(outer); said(got) != "aborted: outer: not_found: inner" || !errors.Is(got, inner) {
		t.Errorf("%v", got)
	}
	back := connectpluginv2.ToV1(inner)
	if connectv1.CodeOf(back) != connectv1.CodeNotFound || unwrapped(connectpluginv2.FromV1(back)) != inner || said(back) != said(inner) {
		t.Errorf("%v", back)
	}
	if err := connectpluginv2.FromV1(http.ErrBodyNotAllowed); err != http.ErrBodyNotAllowed { //nolint:errorlint // the very error
		t.Errorf("%v", err)
	}
	if connectpluginv2.FromV1(nil) != nil || connectpluginv2.ToV1(nil) != nil {
		t.Error("no error became one")
	}
}

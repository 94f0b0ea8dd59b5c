package tools_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

func TestTokenBucketLimiter_Rates(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		rate           connectplugin.Rate
		first, seconds int // calls of 100 that pass at once, and ten seconds later
	}{
		"burst and rate":    {connectplugin.Rate{RequestsPerSecond: 1, Burst: 20}, 20, 10},
		"no burst":          {connectplugin.Rate{RequestsPerSecond: 4}, 4, 4},
		"no burst, slow":    {connectplugin.Rate{RequestsPerSecond: 0.25}, 1, 1},
		"no burst, uneven":  {connectplugin.Rate{RequestsPerSecond: 1.5}, 2, 2},
		"negative burst":    {connectplugin.Rate{RequestsPerSecond: 4, Burst: -1}, 4, 4},
		"zero":              {connectplugin.Rate{}, 0, 0},
		"only a burst":      {connectplugin.Rate{Burst: 3}, 3, 0},
		"negative":          {connectplugin.Rate{RequestsPerSecond: -1, Burst: 3}, 3, 0},
		"not a number":      {connectplugin.Rate{RequestsPerSecond: math.NaN()}, 0, 0},
		"infinite":          {connectplugin.Rate{RequestsPerSecond: math.Inf(1)}, 100, 100},
		"largest":           {connectplugin.Rate{RequestsPerSecond: math.MaxFloat64}, 100, 100},
		"smallest":          {connectplugin.Rate{RequestsPerSecond: math.SmallestNonzeroFloat64}, 1, 0},
		"minus infinity":    {connectplugin.Rate{RequestsPerSecond: math.Inf(-1), Burst: 1}, 1, 0},
		"burst and no rate": {connectplugin.Rate{RequestsPerSecond: 0, Burst: math.MaxInt}, 100, 100},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := connectplugin.NewTokenBucketLimiter()
				defer l.Close()
				if got := passing(l, tt.rate); got != tt.first {
					t.Errorf("%d calls pass at first, want %d", got, tt.first)
				}
				time.Sleep(10 * time.Second)
				if got := passing(l, tt.rate); got != tt.seconds {
					t.Errorf("%d calls pass ten seconds later, want %d", got, tt.seconds)
				}
			})
		})
	}
}

func passing(l connectplugin.RateLimiter, r connectplugin.Rate) int {
	n := 0
	for range 100 {
		if l.Allow("key", r) {
			n++
		}
	}
	return n
}

func TestTokenBucketLimiter_CloseRefuses(t *testing.T) {
	t.Parallel()
	r := connectplugin.Rate{RequestsPerSecond: 1, Burst: 1000}
	l := connectplugin.NewTokenBucketLimiter()
	if passing(l, r) != 100 {
		t.Error("an open limiter refuses")
	}
	l.Close()
	l.Close()
	var zero connectplugin.TokenBucketLimiter
	zero.Close()
	if passing(l, r) != 0 || passing(&zero, r) != 0 {
		t.Error("a closed limiter, or one that was never made, allows")
	}
}

func TestTokenBucketLimiter_ConcurrentUseAndClose(t *testing.T) {
	t.Parallel()
	l := connectplugin.NewTokenBucketLimiter()
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if l.Allow("key", connectplugin.Rate{Burst: 100}) {
					passed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if passed.Load() != 100 {
		t.Errorf("%d calls passed, want 100", passed.Load())
	}
	for range 4 {
		wg.Go(func() {
			for range 200 {
				l.Allow("key", connectplugin.Rate{Burst: 100})
			}
			l.Close()
		})
	}
	wg.Wait()
}

func TestAudit_H50_HTTPKeysAreNotChosenByThePeer(t *testing.T) {
	t.Parallel()
	keyOf := func(remote string, header http.Header) string {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.RemoteAddr, r.Header = remote, header
		return connectplugin.HTTPRateLimitKeyExtractor(r)
	}
	base := keyOf("192.0.2.1:1", nil)
	if keyOf("192.0.2.1:2", nil) != base || keyOf("192.0.2.2:1", nil) == base {
		t.Error("the key is not the address without the port")
	}
	for _, name := range []string{
		"X-Forwarded-For", "X-Real-Ip", "Forwarded", "True-Client-Ip", "X-Plugin-Runtime-ID", "Authorization", "X-API-Key", "Host", "Cookie",
	} {
		if got := keyOf("192.0.2.1:1", http.Header{name: {"198.51.100.7"}}); got != base {
			t.Errorf("with %s the key is %q, without %q", name, got, base)
		}
	}
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r = r.WithContext(connectplugin.WithAuthContext(r.Context(), &connectplugin.AuthContext{Identity: "192.0.2.1", Provider: "token"}))
	r.RemoteAddr = "198.51.100.1:1"
	first := connectplugin.HTTPRateLimitKeyExtractor(r)
	r.RemoteAddr = "198.51.100.2:1"
	if got := connectplugin.HTTPRateLimitKeyExtractor(r); got != first || got == base || !strings.Contains(got, "192.0.2.1") {
		t.Errorf("the keys of one caller are %q and %q", first, got)
	}
}

// countingHealth answers Check, and Watch once.
type countingHealth struct{ calls atomic.Int64 }

func (s *countingHealth) Check(context.Context, *connect.Request[connectpluginv1.HealthCheckRequest]) (*connect.Response[connectpluginv1.HealthCheckResponse], error) {
	s.calls.Add(1)
	return connect.NewResponse(&connectpluginv1.HealthCheckResponse{}), nil
}

func (s *countingHealth) Watch(_ context.Context, _ *connect.Request[connectpluginv1.HealthCheckRequest], out *connect.ServerStream[connectpluginv1.HealthCheckResponse]) error {
	s.calls.Add(1)
	return out.Send(&connectpluginv1.HealthCheckResponse{})
}

// serveHealth serves s over TLS and HTTP/2 behind wrap.
func serveHealth(t *testing.T, s *countingHealth, wrap func(http.Handler) http.Handler, opts ...connect.HandlerOption) *httptest.Server {
	t.Helper()
	_, h := connectpluginv1connect.NewHealthServiceHandler(s, opts...)
	return hosttest.StartTLS(t, wrap(h))
}

func asItIs(h http.Handler) http.Handler { return h }

func callCheck(ctx context.Context, c connectpluginv1connect.HealthServiceClient, header ...string) error {
	req := connect.NewRequest(&connectpluginv1.HealthCheckRequest{})
	for i := 0; i+1 < len(header); i += 2 {
		req.Header().Set(header[i], header[i+1])
	}
	_, err := c.Check(ctx, req)
	return err
}

func wantExhausted(t *testing.T, err error, retryAfter string) {
	t.Helper()
	var coded *connect.Error
	if !errors.As(err, &coded) || coded.Code() != connect.CodeResourceExhausted {
		t.Fatalf("got %v, want resource_exhausted", err)
	}
	if got := coded.Meta().Get("Retry-After"); got != retryAfter {
		t.Errorf("Retry-After is %q, want %q", got, retryAfter)
	}
}

func TestAudit_H50_InterceptorLimitsByPeerWhateverItClaims(t *testing.T) {
	t.Parallel()
	for name, extract := range map[string]func(connect.AnyRequest) string{"default": connectplugin.DefaultRateLimitKeyExtractor, "nil": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const burst = 3
			s := &countingHealth{}
			server := serveHealth(t, s, asItIs, connect.WithInterceptors(
				connectplugin.RateLimitInterceptor(nil, extract, connectplugin.Rate{RequestsPerSecond: 0.01, Burst: burst})))
			for i := range burst * 2 {
				// A new connection, so another port, and another claim each time.
				client := newRateLimitedConnection(t, server)
				err := callCheck(t.Context(), connectpluginv1connect.NewHealthServiceClient(client, server.URL),
					"X-Forwarded-For", "198.51.100."+string(rune('1'+i)), "X-Plugin-Runtime-ID", "runtime-"+string(rune('a'+i)))
				if i < burst && err != nil {
					t.Fatalf("call %d: %v", i, err)
				}
				if i >= burst {
					wantExhausted(t, err, "100")
				}
			}
			if s.calls.Load() != burst {
				t.Errorf("%d calls were served, want %d", s.calls.Load(), burst)
			}
		})
	}
}

func newRateLimitedConnection(t *testing.T, server *httptest.Server) *http.Client {
	t.Helper()
	base, ok := server.Client().Transport.(*http.Transport)
	if !ok {
		t.Fatal("not an HTTP transport")
	}
	transport := base.Clone()
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestRateLimitInterceptor_NilExtractorLimitsByAuthenticatedCaller(t *testing.T) {
	t.Parallel()
	server := serveHealth(t, &countingHealth{}, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // stands for authentication
			if who := r.Header.Get("Test-Identity"); who != "" {
				r = r.WithContext(connectplugin.WithAuthContext(r.Context(), &connectplugin.AuthContext{Identity: who, Provider: "test"}))
			}
			h.ServeHTTP(w, r)
		})
	}, connect.WithInterceptors(connectplugin.RateLimitInterceptor(connectplugin.NewTokenBucketLimiter(), nil, connectplugin.Rate{RequestsPerSecond: 0.01, Burst: 1})))
	client := connectpluginv1connect.NewHealthServiceClient(server.Client(), server.URL)
	for _, who := range []string{"a", "b", ""} {
		if err := callCheck(t.Context(), client, "Test-Identity", who); err != nil {
			t.Errorf("first call of %q: %v", who, err)
		}
		wantExhausted(t, callCheck(t.Context(), client, "Test-Identity", who), "100")
	}
}

func TestRateLimitInterceptor_OnTheClientLimitsPerHost(t *testing.T) {
	t.Parallel()
	s := &countingHealth{}
	server := serveHealth(t, s, asItIs)
	var keys []string
	limit := connectplugin.RateLimitInterceptor(nil, func(req connect.AnyRequest) string {
		keys = append(keys, connectplugin.DefaultRateLimitKeyExtractor(req))
		return keys[0]
	}, connectplugin.Rate{RequestsPerSecond: 0.01, Burst: 1})
	named := "https://plugins.example:" + server.URL[strings.LastIndex(server.URL, ":")+1:]
	transport := newRateLimitedConnection(t, server)
	if tr, ok := transport.Transport.(*http.Transport); ok {
		tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, server.Listener.Addr().String())
		}
		tr.TLSClientConfig.ServerName = "example.com" // the name in httptest's certificate
	}
	client := connectpluginv1connect.NewHealthServiceClient(transport, named, connect.WithInterceptors(limit))
	if err := callCheck(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	wantExhausted(t, callCheck(t.Context(), client), "100")
	if s.calls.Load() != 1 || keys[0] != "plugins.example" {
		t.Errorf("%d calls were served, the key is %q", s.calls.Load(), keys[0])
	}
}

func TestAudit_H13_HandlerLimitsStreamingAndEveryProtocol(t *testing.T) {
	t.Parallel()
	protocols := map[string][]connect.ClientOption{
		"connect": nil, "connect JSON": {connect.WithProtoJSON()}, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()},
	}
	for name, opts := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &countingHealth{}
			server := serveHealth(t, s, func(h http.Handler) http.Handler {
				return connectplugin.RateLimitHTTPHandler(h, nil, nil, connectplugin.Rate{RequestsPerSecond: 0.01, Burst: 2})
			})
			client := connectpluginv1connect.NewHealthServiceClient(server.Client(), server.URL, opts...)
			if err := callCheck(t.Context(), client); err != nil {
				t.Fatal(err)
			}
			if err := callWatch(t.Context(), client); err != nil {
				t.Fatal(err)
			}
			wantExhausted(t, callWatch(t.Context(), client), "100")
			wantExhausted(t, callCheck(t.Context(), client), "100")
			if s.calls.Load() != 2 {
				t.Errorf("%d calls were served, want 2", s.calls.Load())
			}
		})
	}
}

func callWatch(ctx context.Context, c connectpluginv1connect.HealthServiceClient) error {
	stream, err := c.Watch(ctx, connect.NewRequest(&connectpluginv1.HealthCheckRequest{}))
	if err != nil {
		return err
	}
	defer stream.Close()
	if stream.Receive() {
		return nil
	}
	return stream.Err()
}

func TestRateLimitHTTPHandler_OtherRequestsGet429(t *testing.T) {
	t.Parallel()
	served := 0
	h := connectplugin.RateLimitHTTPHandler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served++ }), connectplugin.NewTokenBucketLimiter(),
		func(r *http.Request) string { return r.URL.Path }, connectplugin.Rate{Burst: 1})
	get := func(path string) *http.Response {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Result()
	}
	for _, path := range []string{"/a", "/b"} {
		if r := get(path); r.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d", path, r.StatusCode)
		}
		r := get(path)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		if r.StatusCode != http.StatusTooManyRequests || r.Header.Get("Retry-After") != "" || !strings.Contains(string(body), "too many requests") {
			t.Errorf("%s: status %d, Retry-After %q, body %q", path, r.StatusCode, r.Header.Get("Retry-After"), body)
		}
	}
	if served != 2 {
		t.Errorf("%d requests were served, want 2", served)
	}
}

package broker_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// A client whose clock differs from the host's by more than half of a grant's life, or by nearly all of it, has another grant in
// time, and not with each call.
func TestGrants_ByAnotherClock(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]time.Duration{
		"the host's is ahead": time.Hour, "by half of a life": testGrantTTL/2 + time.Minute, "behind by nearly a life": time.Second - testGrantTTL,
		"behind by more than that": -time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var grants atomic.Int64
			shift := func(c *connectplugin.ServeConfig) { c.Interceptors = []connect.Interceptor{otherClock(ahead, &grants)} }
			wire.InBubble(t, grantHost(shift), func(t *testing.T, h *wire.BubbleHost) {
				t.Helper()
				conn, err := clientOf(t, h, ahead).Capability(t.Context(), "logger", "")
				if err != nil {
					t.Fatal(err)
				}
				logger := loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL())
				for minute := range 50 {
					if _, err := logger.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{})); err != nil {
						t.Errorf("minute %d: %v", minute, err)
					}
					<-time.After(time.Minute)
				}
				if n := grants.Load(); n > 9 {
					t.Errorf("the client asked for %d grants", n)
				}
			})
		})
	}
}

// otherClock has the broker of a host answer by a clock that is ahead.
func otherClock(ahead time.Duration, grants *atomic.Int64) connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			resp, err := next(ctx, req)
			if err != nil || !strings.HasSuffix(req.Spec().Procedure, "/RequestCapability") {
				return resp, err
			}
			grants.Add(1)
			if m, ok := resp.Any().(*connectpluginv1.RequestCapabilityResponse); ok {
				m.Grant.ExpiresAt = timestamppb.New(m.GetGrant().GetExpiresAt().AsTime().Add(ahead))
			}
			return resp, nil
		}
	}
}

// clientOf connects a client to a host whose clock is ahead.
func clientOf(t *testing.T, h *wire.BubbleHost, ahead time.Duration) *connectplugin.Client {
	t.Helper()
	c, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: wire.BubbleURL, SelfID: "api", SelfVersion: "1.0.0",
		HTTPClient: &http.Client{Transport: dated{h.HTTPClient(t).Transport, ahead}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// dated states the time of that host in the head of its answers.
type dated struct {
	http.RoundTripper

	ahead time.Duration
}

func (d dated) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := d.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Header.Set("Date", time.Now().Add(d.ahead).UTC().Format(http.TimeFormat))
	}
	return resp, err
}

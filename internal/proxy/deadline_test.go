package proxy_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// TestAudit_USE09_ACancelAfterTheDeadlineIsThat has a provider reset calls as gRPC-Go
// does when their time is over, and before.
func TestAudit_USE09_ACancelAfterTheDeadlineIsThat(t *testing.T) {
	t.Parallel()
	const (
		canceled = 1
		deadline = 4
	)
	tests := map[string]struct {
		name, value string
		after       time.Duration
		code        http2.ErrCode
		want        uint32
	}{
		"connect":          {"Connect-Timeout-Ms", "300", 300 * time.Millisecond, http2.ErrCodeCancel, deadline},
		"grpc":             {"Grpc-Timeout", "300m", 300 * time.Millisecond, http2.ErrCodeCancel, deadline},
		"in seconds":       {"Grpc-Timeout", "2S", 2 * time.Second, http2.ErrCodeCancel, deadline},
		"in nanoseconds":   {"Grpc-Timeout", "99999999n", 100 * time.Millisecond, http2.ErrCodeCancel, deadline},
		"a clock ahead":    {"Grpc-Timeout", "300m", 299 * time.Millisecond, http2.ErrCodeCancel, deadline},
		"before":           {"Grpc-Timeout", "300m", 200 * time.Millisecond, http2.ErrCodeCancel, canceled},
		"another reset":    {"Grpc-Timeout", "300m", 300 * time.Millisecond, http2.ErrCodeInternal, 13},
		"none":             {"X-Other", "1", 10 * time.Second, http2.ErrCodeCancel, canceled},
		"no unit":          {"Grpc-Timeout", "300", 10 * time.Second, http2.ErrCodeCancel, canceled},
		"nothing":          {"Grpc-Timeout", "", 10 * time.Second, http2.ErrCodeCancel, canceled},
		"too many digits":  {"Grpc-Timeout", "000000001n", 10 * time.Second, http2.ErrCodeCancel, canceled},
		"more than a time": {"Grpc-Timeout", "99999999H", 10 * time.Second, http2.ErrCodeCancel, canceled},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				pd := &played{on: func(c *playedConn, f http2.Frame) {
					if _, ok := f.(*http2.HeadersFrame); ok {
						id := f.Header().StreamID
						time.AfterFunc(tt.after, func() { c.locked(func() { _ = c.WriteRSTStream(id, tt.code) }) })
					}
				}}
				p := newPlayed(t, pd, nil)
				req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/a", http.NoBody)
				req.Header.Set(tt.name, tt.value)
				r := p.Forward(httptest.NewRecorder(), req, proxy.Call{Path: "/a"})
				if got := proxy.CodeOf(r.Err); got != tt.want || r.Fault {
					t.Errorf("code %d, want %d (%+v)", got, tt.want, r)
				}
			})
		})
	}
}

package link_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/link"
)

// A request waits for a connection until its time is all but over; one that has hardly any left
// waits to the end, and one that states none waits as long as the dial does.
func TestAudit_USE23_ARequestIsToldBeforeItsTimeIsOver(t *testing.T) {
	t.Parallel()

	for name, tt := range map[string]struct {
		left, want time.Duration
		deadline   bool
	}{
		"a second":   {time.Second, 875 * time.Millisecond, false},
		"a minute":   {20 * time.Second, 19500 * time.Millisecond, false},
		"hardly any": {5 * time.Millisecond, 5 * time.Millisecond, true},
		"no end":     {0, bound, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newPool(t, func(ctx context.Context, _ func(net.Conn) net.Conn) (net.Conn, error) {
					<-ctx.Done()

					return nil, ctx.Err()
				}, 4, nil)

				ctx := t.Context()

				if tt.left > 0 {
					var cancel context.CancelFunc

					ctx, cancel = context.WithTimeout(ctx, tt.left)
					defer cancel()
				}

				begun := time.Now()

				_, err := get(ctx, p, "http://host.example/")
				if took := time.Since(begun); took != tt.want || errors.Is(err, context.DeadlineExceeded) != tt.deadline || !link.Lost(err) {
					t.Errorf("after %v: %v", took, err)
				}

				p.Close()
			})
		})
	}
}

package host_test

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// deaf does not look at its context.
type deaf struct{ entered, leave chan struct{} }

func (d *deaf) Log(context.Context, *connect.Request[loggerv1.LogRequest]) (*connect.Response[loggerv1.LogResponse], error) {
	close(d.entered)
	<-d.leave
	return connect.NewResponse(&loggerv1.LogResponse{}), nil
}

// A shutdown is over when its time is, whatever the handlers of calls in flight do.
func TestHost_ShutdownInItsTime(t *testing.T) {
	t.Parallel()
	const grace = 10 * time.Second
	for name, tt := range map[string]struct {
		given time.Duration // of the caller's context; zero for none
		most  time.Duration
	}{
		"its own":      {0, grace},
		"the caller's": {3 * time.Second, 3 * time.Second},
		"a short one":  {100 * time.Millisecond, 600 * time.Millisecond}, // those cut off are told in half a second
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &deaf{}
			wire.InBubble(t, func(c *connectplugin.ServeConfig) {
				d.entered, d.leave = make(chan struct{}), make(chan struct{})
				c.Policy, c.GracefulShutdownTimeout, c.Limits.CallTimeout = connectplugin.OpenPolicy(), grace, time.Hour
				c.Plugins, c.Impls = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}, map[string]any{"logger": d}
			}, func(t *testing.T, h *wire.BubbleHost) {
				t.Helper()
				h.CutsOff = true
				client := h.HTTPClient(t)
				called := make(chan error, 1)
				go func() {
					_, err := loggerv1connect.NewLoggerClient(client, wire.BubbleURL).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{}))
					called <- err
				}()
				<-d.entered
				defer close(d.leave)
				ctx, giveUp := context.WithCancel(t.Context())
				defer giveUp()
				if tt.given > 0 {
					ctx, giveUp = context.WithTimeout(ctx, tt.given)
					defer giveUp()
				}
				begun := time.Now()
				err := h.Shutdown(ctx)
				if took := time.Since(begun); err == nil || took > tt.most {
					t.Errorf("the host ended after %s: %v", took, err)
				}
				if err := <-called; err == nil {
					t.Error("the call was not cut off")
				}
			})
		})
	}
}

package recovery_test

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A host that has more plugins than it wants to hear of is not told the same again and again; what
// has changed it is told at once, and a host that comes back is told everything.
func TestPluginsReportAsOftenAsTheHostWants(t *testing.T) {
	t.Parallel()

	var reports, asked atomic.Int32

	counting := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			resp, err := next(ctx, req)
			if err == nil && strings.HasSuffix(req.Spec().Procedure, "/ReportHealth") && resp.Header().Get("X-Plugin-Report-After") != "" {
				reports.Add(1)
			}
			return resp, err
		}
	})
	host := start(t, func(c *connectplugin.ServeConfig) {
		c.HealthProbe = connectplugin.HealthProbeConfig{Interval: 10 * time.Millisecond, ReportsPerSecond: 1, Lease: time.Hour}
		c.Interceptors = []connect.Interceptor{counting}
	})

	var ill atomic.Bool

	for i := range 5 { // one report a second of all together
		host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) {
			c.Services, c.HealthInterval = echoServices(), 10*time.Millisecond
			if i > 0 {
				return
			}
			c.Health = func() (connectpluginv1.HealthState, string) {
				asked.Add(1)
				if ill.Load() {
					return connectpluginv1.HealthState_HEALTH_STATE_DEGRADED, ""
				}
				return healthy, ""
			}
		})
	}

	hosttest.Eventually(t, "all were told", func() bool { return reports.Load() >= 5 })

	before, once := reports.Load(), asked.Load()
	hosttest.Eventually(t, "one is asked again and again", func() bool { return asked.Load() > once+40 })

	if n := reports.Load() - before; n > 40 {
		t.Errorf("%d reports that say nothing new", n)
	}

	degraded := func() bool {
		for _, p := range host.Plugins() {
			if p.Health == connectpluginv1.HealthState_HEALTH_STATE_DEGRADED {
				return true
			}
		}
		return false
	}

	ill.Store(true)
	hosttest.Eventually(t, "the host knows of a change", degraded)
	host.Kill(t)
	host.Restart(t)
	hosttest.Eventually(t, "another life of the host knows", degraded)
}

// A Health that blocks makes the plugin unhealthy, so that nobody is sent there, and holds up neither the end of the plugin
// nor what the host asks of it.
func TestPlugin_AHealthThatBlocksEndsWithTheContext(t *testing.T) {
	t.Parallel()

	var out hosttest.Buffer

	blocks := make(chan struct{})
	t.Cleanup(func() { close(blocks) })

	host := start(t, nil)

	var blocked atomic.Bool

	plugin := host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) {
		c.Services, c.HealthInterval, c.GracefulShutdownTimeout = echoServices(), 10*time.Millisecond, 50*time.Millisecond
		c.Client.Logger = slog.New(slog.NewTextHandler(&out, nil))
		c.Health = func() (connectpluginv1.HealthState, string) {
			if blocked.Load() {
				<-blocks
			}
			return healthy, ""
		}
	})
	state := func() string {
		for _, p := range host.Plugins() {
			if p.RuntimeID == plugin.Client.RuntimeID() {
				return p.Health.String() + " " + p.Reason
			}
		}
		return ""
	}

	blocked.Store(true)
	hosttest.Eventually(t, "the host is told", func() bool {
		return state() == "HEALTH_STATE_UNHEALTHY PluginServerConfig.Health does not return"
	})
	plugin.Stop(t) // which fails where it takes long

	if got := strings.Count(out.String(), "PluginServerConfig.Health has not returned for 5s"); got != 1 {
		t.Errorf("said %d times: %s", got, &out)
	}
}

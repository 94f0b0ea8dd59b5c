package router_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Plugins that call each other in a circle, one call waiting for the next, come to an end at what one of them may have open, without a
// deadline, and nothing of it stays.
func TestRouter_ACircleOfPlugins(t *testing.T) {
	t.Parallel()
	const most = 40
	for _, n := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			policy := &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
				"caller": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires = []string{"link-0"} }),
			}}
			for i := range n {
				policy.Plugins[fmt.Sprint("plugin-", i)] = hosttest.Allow(func(p *connectplugin.PluginPolicy) {
					p.Provides, p.Requires = []string{fmt.Sprint("link-", i)}, []string{fmt.Sprint("link-", (i+1)%n)}
				})
			}
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy, c.Limits.MaxOpenCallsPerIdentity = policy, most
			})
			var calls, open atomic.Int64
			for i := range n {
				startLink(t, host, i, (i+1)%n, &calls, &open)
			}
			conn, err := host.Enrol(t, "caller", hosttest.Requiring("link-0")).Service(t.Context(), "link-0", "")
			if err != nil {
				t.Fatal(err)
			}
			hosttest.Eventually(t, "the first is there", func() bool { return conn.State() == connectpluginv1.ServiceState_SERVICE_STATE_AVAILABLE })
			first := connect.NewClient[wrapperspb.StringValue, wrapperspb.StringValue](conn.HTTPClient(), conn.BaseURL()+"/link/Next")
			for range 3 {
				calls.Store(0)
				_, err := first.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x")))
				if connect.CodeOf(err) != connect.CodeResourceExhausted || calls.Load() > int64(n*(most+1)) {
					t.Errorf("%d calls: %v", calls.Load(), err)
				}
				hosttest.Eventually(t, "nothing of it stays", func() bool { return open.Load() == 0 })
			}
		})
	}
}

// startLink starts a plugin that answers when another one has answered it.
func startLink(t *testing.T, host *hosttest.Host, i, next int, calls, open *atomic.Int64) {
	t.Helper()
	var other atomic.Pointer[connect.Client[wrapperspb.StringValue, wrapperspb.StringValue]]
	handler := connect.NewUnaryHandler("/link/Next",
		func(ctx context.Context, req *connect.Request[wrapperspb.StringValue]) (*connect.Response[wrapperspb.StringValue], error) {
			calls.Add(1)
			open.Add(1)
			defer open.Add(-1)
			return other.Load().CallUnary(ctx, connect.NewRequest(req.Msg))
		})
	plugin := host.StartPlugin(t, fmt.Sprint("plugin-", i), func(c *connectplugin.PluginServerConfig) {
		c.Client.Metadata.Requires = hosttest.Requires(fmt.Sprint("link-", next))
		c.Services = []connectplugin.PluginService{{Type: fmt.Sprint("link-", i), Version: "1.0.0", Path: "/link/", Handler: handler}}
	})
	conn, err := plugin.Client.Service(t.Context(), fmt.Sprint("link-", next), "")
	if err != nil {
		t.Fatal(err)
	}
	other.Store(connect.NewClient[wrapperspb.StringValue, wrapperspb.StringValue](conn.HTTPClient(), conn.BaseURL()+"/link/Next"))
}

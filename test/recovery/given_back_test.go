package recovery_test

import (
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A right that is taken away and given back is there again on the connection that was made
// before, and for the plugin that follows the service; meanwhile calls are refused.
func TestRightsThatAreGivenBackComeBack(t *testing.T) {
	t.Parallel()
	narrow := func() *connectplugin.Policy {
		p := policy()
		p.Plugins["api"] = hosttest.Allow(func(*connectplugin.PluginPolicy) {})
		return p
	}
	for name, tt := range map[string]struct {
		take, give func(t *testing.T, h *hosttest.Restartable)
	}{
		"policy": {
			func(t *testing.T, h *hosttest.Restartable) { t.Helper(); hosttest.SetPolicy(t, h.Host, narrow()) },
			func(t *testing.T, h *hosttest.Restartable) { t.Helper(); hosttest.SetPolicy(t, h.Host, policy()) },
		},
		"revoked": {
			func(_ *testing.T, h *hosttest.Restartable) { h.RevokeSelf("api") },
			func(_ *testing.T, h *hosttest.Restartable) { h.Readmit("api") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := start(t, nil)
			host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) { c.Services, c.HealthInterval = echoServices(), never })
			s := service(t, caller(t, host))
			hosttest.Eventually(t, "it answers", func() bool { return once(t.Context(), s) == nil })
			tt.take(t, host)
			hosttest.Eventually(t, "calls are refused", func() bool {
				code := connect.CodeOf(once(t.Context(), s))
				return code == connect.CodeNotFound || code == connect.CodePermissionDenied || code == connect.CodeUnauthenticated
			})
			hosttest.Eventually(t, "the connection knows", func() bool { return s.State() == unavailable })
			tt.give(t, host)
			hosttest.Eventually(t, "it answers again", func() bool { return once(t.Context(), s) == nil })
		})
	}
}

// A plugin that follows a service is as healthy as before once its right to that is back.
func TestAFollowedServiceThatIsGivenBack(t *testing.T) {
	t.Parallel()
	host := start(t, nil)
	host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) { c.Services, c.HealthInterval = echoServices(), never })
	host.StartPlugin(t, "api", func(c *connectplugin.PluginServerConfig) {
		c.HealthInterval = 20 * time.Millisecond
		c.Client.Metadata.Requires = []connectplugin.ServiceDependency{{Type: echoType, WatchForChanges: true, RequiredForStartup: true}}
	})
	is := func(health connectpluginv1.HealthState) func() bool {
		return func() bool {
			for _, p := range host.Plugins() {
				if p.SelfID == "api" {
					return p.Health == health
				}
			}
			return false
		}
	}
	hosttest.Eventually(t, "it is healthy", is(healthy))
	p := policy()
	p.Plugins["api"] = hosttest.Allow(func(*connectplugin.PluginPolicy) {})
	hosttest.SetPolicy(t, host.Host, p)
	hosttest.Eventually(t, "it is degraded", is(connectpluginv1.HealthState_HEALTH_STATE_DEGRADED))
	hosttest.SetPolicy(t, host.Host, policy())
	hosttest.Eventually(t, "it is healthy again", is(healthy))
}

package registry_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

const (
	illState = connectpluginv1.HealthState_HEALTH_STATE_DEGRADED
	badState = connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY
)

// said returns what a host knows of the health of a plugin.
func said(host *hosttest.Host, c *connectplugin.Client) (state connectpluginv1.HealthState, reason string) {
	for _, p := range host.Plugins() {
		if p.RuntimeID == c.RuntimeID() {
			state, reason = p.Health, p.Reason
		}
	}
	return state, reason
}

// A plugin that says that it is unhealthy is, whatever it says why: an error of two lines is no word of health.
func TestHealth_AnyReasonWillDo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		reason, want string
		limits       connectplugin.Limits
	}{
		"two lines":             {"disk full\r\nread-only", "disk full  read-only", connectplugin.Limits{}},
		"no UTF-8":              {"disk \xff full", "disk ? full", connectplugin.Limits{}},
		"text that steers":      {"disk \u202e full", "disk   full", connectplugin.Limits{}},
		"too long":              {strings.Repeat("é", 3000), strings.Repeat("é", 510) + "…", connectplugin.Limits{}},
		"longer than this host": {strings.Repeat("x", 200), "", connectplugin.Limits{MaxFieldBytes: 128}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(cfg *connectplugin.ServeConfig) {
				cfg.Policy, cfg.Limits.MaxFieldBytes = hosttest.LoggerPolicy(), c.limits.MaxFieldBytes
			})
			var ill atomic.Bool
			plugin := host.StartPlugin(t, "logger", func(p *connectplugin.PluginServerConfig) {
				p.Services = []connectplugin.PluginService{hosttest.LoggerService(&hosttest.RecordingLogger{})}
				p.HealthInterval = 10 * time.Millisecond
				p.Health = func() (connectpluginv1.HealthState, string) {
					if ill.Load() {
						return badState, c.reason
					}
					return connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, ""
				}
			})
			ill.Store(true)
			hosttest.Eventually(t, "the host knows", func() bool {
				state, _ := said(host, plugin.Client)
				return state == badState
			})
			if _, reason := said(host, plugin.Client); reason != c.want {
				t.Errorf("reason %q, want %q", reason, c.want)
			}
		})
	}
}

// A plugin that misses more than a report can name says how it is, too.
func TestHealth_ManyMissingServices(t *testing.T) {
	t.Parallel()
	const many = 70
	var types []string
	for i := range many {
		types = append(types, fmt.Sprintf("type-%02d", i))
	}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"p": {nil, types}})
		c.Limits.MaxWatchesPerPlugin = many
	})
	plugin := host.StartPlugin(t, "p", func(p *connectplugin.PluginServerConfig) {
		p.HealthInterval = 10 * time.Millisecond
		for _, serviceType := range types {
			p.Client.Metadata.Requires = append(p.Client.Metadata.Requires,
				connectplugin.ServiceDependency{Type: serviceType, WatchForChanges: true})
		}
	})
	hosttest.Eventually(t, "the host knows", func() bool {
		state, _ := said(host, plugin.Client)
		return state == illState
	})
	missing := host.Lifecycle().GetHealthState(plugin.Client.RuntimeID()).UnavailableDependencies
	if len(missing) != 64 || !slices.Equal(missing, types[:len(missing)]) {
		t.Errorf("%d are missing: %q", len(missing), missing)
	}
}

// The same holds for what a plugin answers that is asked: a plugin of before sends it as it is.
func TestHealthProbe_AnyReasonWillDo(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}})
		c.HealthProbe = connectplugin.HealthProbeConfig{Interval: 20 * time.Millisecond, Timeout: 5 * time.Second, Lease: time.Hour}
	})
	p, client := admit(t, host, "p", "a")
	p.answers(func(context.Context) (*connectpluginv1.GetHealthResponse, error) {
		return &connectpluginv1.GetHealthResponse{State: badState, Reason: "disk full\nread-only"}, nil
	})
	hosttest.Eventually(t, "the host knows", func() bool {
		state, _ := said(host, client)
		return state == badState
	})
}

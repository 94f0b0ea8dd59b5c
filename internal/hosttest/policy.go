package hosttest

import (
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// Rights is the policy of plugins that prove the test's secret: by self id, what
// each provides and requires.
func Rights(plugins map[string][2][]string) *connectplugin.Policy {
	p := &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{}}
	for selfID, r := range plugins {
		p.Plugins[selfID] = Allow(func(pp *connectplugin.PluginPolicy) { pp.Provides, pp.Requires = r[0], r[1] })
	}
	return p
}

// SetInstances sets how many instances each plugin of a policy may have.
func SetInstances(p *connectplugin.Policy, n int) {
	for id, rules := range p.Plugins {
		rules.MaxInstances = n
		p.Plugins[id] = rules
	}
}

// Unproven is a policy that lets whoever names a self id be it, with every right.
func Unproven(selfIDs ...string) *connectplugin.Policy {
	p := connectplugin.OpenPolicy()
	rules := *p.Default
	p.Default, p.Plugins = nil, map[string]connectplugin.PluginPolicy{}
	for _, id := range selfIDs {
		p.Plugins[id] = rules
	}
	return p
}

// LoggerPolicy lets "logger" provide and "api" require the type logger.
func LoggerPolicy() *connectplugin.Policy {
	return &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
		"logger": Allow(func(p *connectplugin.PluginPolicy) { p.Provides = []string{"logger"} }),
		"api":    Allow(func(p *connectplugin.PluginPolicy) { p.Requires = []string{"logger"} }),
		"other":  Allow(nil),
	}}
}

// WithPolicy sets the policy of a host.
func WithPolicy(p *connectplugin.Policy) func(*connectplugin.ServeConfig) {
	return func(c *connectplugin.ServeConfig) { c.Policy = p }
}

// PolicyOf is the policy of one plugin that may do everything, and that edit changes.
func PolicyOf(selfID string, edit func(*connectplugin.PluginPolicy)) *connectplugin.Policy {
	all := []string{"*"}
	p := connectplugin.PluginPolicy{Provides: all, Requires: all, Capabilities: all, HostPlugins: all, AllowOwnAddress: true}
	edit(&p)
	return &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{selfID: p}}
}

// SetPolicy replaces the host's policy.
func SetPolicy(t testing.TB, host *Host, p *connectplugin.Policy) {
	t.Helper()
	if err := host.SetPolicy(p); err != nil {
		t.Fatalf("SetPolicy: %v", err)
	}
}

// EveryRight is the policy of one plugin that may use type "logger" in every way.
func EveryRight() *connectplugin.Policy {
	all := []string{"logger"}
	return &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
		"all": Allow(func(p *connectplugin.PluginPolicy) {
			p.Provides, p.Requires, p.Capabilities = all, all, all
		}),
	}}
}

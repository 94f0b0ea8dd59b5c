package policy_test

import (
	"log/slog"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// One plugin's policy is refused where the host could do nothing with it.
func TestPolicy_OfNoUse(t *testing.T) {
	t.Parallel()
	h := hosttest.Start(t, nil)
	for name, tt := range map[string]struct {
		give connectplugin.PluginPolicy
		want string // in the error, empty for none
	}{
		"TLS":                      {connectplugin.PluginPolicy{Endpoint: "https://127.0.0.1:1"}, ""},
		"plaintext":                {connectplugin.PluginPolicy{Endpoint: "http://127.0.0.1:1"}, ".Endpoint"},
		"an admin service":         {connectplugin.PluginPolicy{HostPlugins: []string{connectplugin.AdminRead}}, ""},
		"the name of a constant":   {connectplugin.PluginPolicy{HostPlugins: []string{"connectplugin.AdminRead"}}, connectplugin.AdminRead},
		"the name of the other":    {connectplugin.PluginPolicy{HostPlugins: []string{"x", "connectplugin.AdminChange"}}, "HostPlugins[1]"},
		"a host plugin of nobody ": {connectplugin.PluginPolicy{HostPlugins: []string{"kv"}}, ""},
	} {
		for _, p := range []*connectplugin.Policy{
			{Plugins: map[string]connectplugin.PluginPolicy{"a": tt.give}}, {Default: &tt.give},
		} {
			cfg := connectplugin.ServeConfig{Authority: h.Authority, Policy: p}
			for how, err := range map[string]error{"SetPolicy": h.SetPolicy(p), "Validate": cfg.Validate()} {
				if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s: %s: %v, want %q", name, how, err, tt.want)
				}
			}
		}
	}
	plain := connectplugin.ServeConfig{AllowInsecure: true, Policy: &connectplugin.Policy{
		Plugins: map[string]connectplugin.PluginPolicy{"a": {Endpoint: "http://127.0.0.1:1"}},
	}}
	if err := plain.Validate(); err != nil {
		t.Errorf("plaintext for development: %v", err)
	}
}

// The host warns of what policy names and it does not have.
func TestPolicy_UnknownHostPluginsAreWarnedOf(t *testing.T) {
	t.Parallel()
	var log hosttest.Buffer
	naming := func(names ...string) *connectplugin.Policy {
		return &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"operator": {HostPlugins: names}}}
	}
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Logger, c.Admin = slog.New(slog.NewTextHandler(&log, nil)), &connectplugin.AdminConfig{ReadOnly: true}
		c.Policy = naming("*", connectplugin.AdminRead)
	})
	const warning = "policy names plugins of the host that it does not have"
	if strings.Contains(log.String(), warning) {
		t.Errorf("warned of what is there: %s", log.String())
	}
	if err := h.SetPolicy(naming(connectplugin.AdminChange, "kv")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{warning, "HostPlugins[0]", "HostPlugins[1]", "kv"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in: %s", want, log.String())
		}
	}
}

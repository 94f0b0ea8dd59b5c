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
		"the highest port":         {connectplugin.PluginPolicy{Endpoint: "https://127.0.0.1:65535"}, ""},
		"a port that is none":      {connectplugin.PluginPolicy{Endpoint: "https://127.0.0.1:65536"}, `has port "65536"`},
		"port 0":                   {connectplugin.PluginPolicy{Endpoint: "https://127.0.0.1:0"}, `has port "0"`},
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

// Ports of addresses to listen on, and of hosts, are ports.
func TestConfig_PortsAreChecked(t *testing.T) {
	t.Parallel()
	for port, valid := range map[string]bool{"0": true, "1": true, "65535": true, "http": true, "65536": false, "99999": false, "-1": false, "x y": false} {
		host := connectplugin.ServeConfig{AllowInsecure: true, Addr: "127.0.0.1:" + port}
		plugin := connectplugin.PluginServerConfig{Addr: "127.0.0.1:" + port, Client: connectplugin.ClientConfig{
			HostURL: "http://127.0.0.1:1", SelfID: "a", AllowInsecure: true,
		}}
		for what, err := range map[string]error{"host": host.Validate(), "plugin": plugin.Validate()} {
			if (err == nil) != valid || err != nil && !strings.Contains(err.Error(), "Addr: ") {
				t.Errorf("%s at %q: %v", what, port, err)
			}
		}
	}
	if err := (&connectplugin.PluginServerConfig{Addr: "127.0.0.1", Client: connectplugin.ClientConfig{
		HostURL: "http://127.0.0.1:1", SelfID: "a", AllowInsecure: true,
	}}).Validate(); err == nil || !strings.Contains(err.Error(), "is no host:port") {
		t.Errorf("an address without a port: %v", err)
	}
	for url, valid := range map[string]bool{
		"https://127.0.0.1": true, "https://127.0.0.1:65535": true, "https://127.0.0.1:99999": false, "https://127.0.0.1:0": false,
		"https://127.0.0.1:99999/sub": false,
	} {
		if err := (&connectplugin.ClientConfig{HostURL: url, SelfID: "a"}).Validate(); (err == nil) != valid {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// Types that several may provide are types.
func TestPolicy_AllowMultipleNamesTypes(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"logger": true, "*": true, "a b": false, "": false} {
		cfg := connectplugin.ServeConfig{AllowInsecure: true, Policy: &connectplugin.Policy{AllowMultiple: []string{"logger", name}}}
		if err := cfg.Validate(); (err == nil) != want || err != nil && !strings.Contains(err.Error(), "Policy.AllowMultiple[1]") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// The host warns of an Endpoint that policy names for several plugins.
func TestPolicy_OneEndpointForTwoIsWarnedOf(t *testing.T) {
	t.Parallel()
	var log hosttest.Buffer
	naming := func(a, b string) *connectplugin.Policy {
		return &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"a": {Endpoint: a}, "b": {Endpoint: b}, "c": {}, "d": {}}}
	}
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		c.Policy = naming("https://127.0.0.1:1", "https://127.0.0.1:2")
	})
	const warning = "policy has one Endpoint for several plugins"
	if strings.Contains(log.String(), warning) {
		t.Errorf("warned of two: %s", log.String())
	}
	if err := h.SetPolicy(naming("https://127.0.0.1:1", "https://127.0.0.1:1/")); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), warning) || !strings.Contains(log.String(), `subject="[a b]"`) {
		t.Errorf("not warned of one: %s", log.String())
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
	p := naming(connectplugin.AdminChange, "kv")
	p.Public = []string{"health", "*", "nope"}
	if err := h.SetPolicy(p); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), "Policy.Public[0]") || strings.Contains(log.String(), "Policy.Public[1]") {
		t.Errorf("warned of what is there: %s", log.String())
	}
	for _, want := range []string{warning, "Policy.Public[2]", "nope", "HostPlugins[0]", "HostPlugins[1]", "kv"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in: %s", want, log.String())
		}
	}
}

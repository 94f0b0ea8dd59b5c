package policy_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
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
		"what is listened on":      {connectplugin.PluginPolicy{Endpoint: "https://0.0.0.0:9443"}, `Endpoint: "0.0.0.0" is for listening`},
		"and in IPv6":              {connectplugin.PluginPolicy{Endpoint: "https://[::]:9443"}, `Endpoint: "::" is for listening`},
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

// What a plugin of the host is to one that may not call it, is what is not there, in each protocol and to the byte: for a
// plugin of policy, whom a wildcard names and whom nothing does, an admin service or another one. The audit says what
// policy would have to name; so it does of a capability.
func TestAudit_REG3_HostPluginsThatAreForbiddenAreUnknown(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"none": hosttest.Allow(nil),
			"all":  hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.HostPlugins = []string{"*"} }),
		}}
		c.Plugins = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}
		c.Impls = map[string]any{"logger": &hosttest.RecordingLogger{}}
		c.Admin = &connectplugin.AdminConfig{}
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.NewCapability(http.NotFoundHandler(), "tool", "1.0.0"))
	})
	none, all := host.Enrol(t, "none", nil), host.Enrol(t, "all", nil)
	for _, c := range []struct {
		by              *connectplugin.Client
		name            string
		there, notThere string
	}{
		{none, "logger", "/capability.logger.v1.Logger/Log", "/capability.logger.v1.Lodger/Log"},
		{none, connectplugin.AdminRead, "/connectplugin.admin.v1.AdminReadService/Follow", "/connectplugin.admin.v1.AdminRealService/Follow"},
		{none, connectplugin.AdminChange, "/connectplugin.admin.v1.AdminChangeService/Drain", "/connectplugin.admin.v1.AdminChanceService/Drain"},
		{all, connectplugin.AdminRead, "/connectplugin.admin.v1.AdminReadService/GetSnapshot", "/connectplugin.admin.v1.AdminRealService/GetSnapshot"},
		{all, connectplugin.AdminChange, "/connectplugin.admin.v1.AdminChangeService/Revoke", "/connectplugin.admin.v1.AdminChanceService/Revoke"},
	} {
		for _, as := range [][2]string{
			{http.MethodPost, "application/proto"},
			{http.MethodPost, "application/json"},
			{http.MethodPost, "application/connect+proto"},
			{http.MethodPost, "application/grpc"},
			{http.MethodPost, "application/grpc-web+proto"},
			{http.MethodPost, "text/plain"},
			{http.MethodGet, ""},
			{http.MethodOptions, ""},
		} {
			there, notThere := answerOf(t, host, c.by, as, c.there), answerOf(t, host, c.by, as, c.notThere)
			if there != notThere || !strings.Contains(there, "not available") && !strings.Contains(there, "not%20available") {
				t.Errorf("%s of %s, %q: %q, what is not there %q", c.name, c.by.Config().SelfID, as, there, notThere)
			}
		}
		wantLack(t, host, c.by, connectplugin.RightHostPlugins, c.name)
	}
	if _, err := none.Capability(t.Context(), "tool", ""); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("the capability: %v", err)
	}
	wantLack(t, host, none, connectplugin.RightCapabilities, "tool")
	if _, err := loggerv1connect.NewLoggerClient(all.HTTPClient(), host.URL).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{})); err != nil {
		t.Errorf("who may: %v", err)
	}
}

// answerOf is all that a plugin sees of the answer to a request.
func answerOf(t *testing.T, host *hosttest.Host, by *connectplugin.Client, as [2]string, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), as[0], host.URL+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if as[1] != "" {
		req.Header.Set("Content-Type", as[1])
	}
	resp, err := by.HTTPClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Header.Del("Date")
	return fmt.Sprintf("%d %v %q %v", resp.StatusCode, resp.Header, body, resp.Trailer)
}

// wantLack checks that the audit says what policy lacks.
func wantLack(t *testing.T, host *hosttest.Host, c *connectplugin.Client, right connectplugin.AuditRight, name string) {
	t.Helper()
	want := fmt.Sprintf("not allowed by policy: add %q to Policy.Plugins[%q].%s", name, c.Config().SelfID, right)
	if !slices.ContainsFunc(host.Audit.Events(), func(e connectplugin.AuditEvent) bool {
		return e.Kind == connectplugin.AuditDenied && e.RuntimeID == c.RuntimeID() && e.Right == right && e.Subject == name && strings.HasPrefix(e.Reason, want)
	}) {
		t.Errorf("the audit misses %q: %v", want, host.Audit.Events())
	}
}

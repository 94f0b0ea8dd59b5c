package recovery_test

import (
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A program that forgot to declare what it requires is told so, and what it asks for.
func TestAudit_USE39_AnUndeclaredTypeIsNamed(t *testing.T) {
	t.Parallel()
	host := start(t, nil)
	c := host.Enrol(t, "api", func(c *connectplugin.ClientConfig) { c.Metadata.Requires = hosttest.Requires("other") })
	_, err := c.Service(t.Context(), echoType, "")
	if err == nil || !strings.Contains(err.Error(), `Metadata.Requires does not name "echo"`) || connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("%v", err)
	}
	for _, err := range c.WatchService(t.Context(), echoType) {
		if err == nil || !strings.Contains(err.Error(), "Metadata.Requires") {
			t.Errorf("watch: %v", err)
		}
	}
	if _, err := c.Service(t.Context(), "other", ""); err != nil {
		t.Errorf("what was declared: %v", err)
	}
	_, err = c.Service(t.Context(), "other", "latest")
	if err == nil || !strings.Contains(err.Error(), `write for example ">=1.2, <2"`) || strings.Contains(err.Error(), "constraint: constraint") {
		t.Errorf("a constraint that is none: %v", err)
	}
}

// So is one that asks for a capability which it does not get, whatever the reason; a constraint
// that is none is refused before the host is asked.
func TestAudit_USE39_ACapabilityThatIsNotGivenIsNamed(t *testing.T) {
	t.Parallel()
	host := start(t, func(c *connectplugin.ServeConfig) {
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.LoggerCapability(&hosttest.RecordingLogger{}))
		api := c.Policy.Plugins["api"]
		api.Capabilities = []string{"logger", "nothing"}
		c.Policy.Plugins["api"] = api
	})
	c := caller(t, host)
	for name, constraint := range map[string]string{"secrets": "", "nothing": "", "logger": ">=2"} {
		_, err := c.Capability(t.Context(), name, constraint)
		if err == nil || !strings.Contains(err.Error(), "PluginPolicy.Capabilities") || connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Capability(t.Context(), "logger", ">=1, <2"); err != nil {
		t.Errorf("what is given: %v", err)
	}
}

// A constraint that means something else than it looks like is refused by the client, and by the
// host whoever asks; one that says what it means finds its provider.
func TestAudit_USE38_AConstraintThatMisleadsIsRefused(t *testing.T) {
	t.Parallel()
	host := start(t, nil)
	provide(t, host)
	c := caller(t, host)
	for _, misread := range []string{"1.2-1.4", "0.1-9.0", "1.0.0-2.0.0", "v0.5-v1", "1.2 1.4", ">=1.0.x-2", "0.9-1.1 || 3.x"} {
		if _, err := c.Service(t.Context(), echoType, misread); err == nil || !strings.Contains(err.Error(), "write for example") {
			t.Errorf("%q: the client says: %v", misread, err)
		}
		if _, err := hosttest.Discover(t, c, echoType, misread); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%q: the host says: %v", misread, err)
		}
		cfg := host.ClientConfig(t, "api")
		cfg.Metadata.Requires = []connectplugin.ServiceDependency{{Type: echoType, MinVersion: misread}}
		if _, err := connectplugin.NewClient(cfg); err == nil {
			t.Errorf("%q: a client may declare it", misread)
		}
	}
	for _, plain := range []string{"1.0 - 1.4", ">=0.9, <2", "1.x", "0.5 - 0.9 || 1.0"} {
		if found, err := hosttest.Discover(t, c, echoType, plain); err != nil || found.GetEndpoint().GetVersion() != "1.0.0" {
			t.Errorf("%q: %v, %v", plain, found, err)
		}
	}
}

// A constraint that no provider meets is told with the version that there is.
func TestAudit_USE39_AnUnmetConstraintIsNamed(t *testing.T) {
	t.Parallel()
	host := start(t, nil)
	provide(t, host)
	c := caller(t, host)
	hosttest.Eventually(t, "the provider is there", func() bool { return service(t, c).State() == available })
	conn, err := c.Service(t.Context(), echoType, ">=2")
	if err != nil {
		t.Fatal(err)
	}
	err = once(t.Context(), conn)
	if connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), `satisfies ">=2"`) || !strings.Contains(err.Error(), "1.0.0") {
		t.Errorf("%v", err)
	}
	if conn, err = c.Service(t.Context(), echoType, ">=1"); err != nil {
		t.Fatal(err)
	}
	if err := once(t.Context(), conn); err != nil {
		t.Errorf("what is met: %v", err)
	}
}

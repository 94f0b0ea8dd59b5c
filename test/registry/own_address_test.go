package registry_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// A plugin whose base URL is that of the host, as where somebody took one for the other, is told at once. It was registered, and
// unhealthy some time later.
func TestRegister_AtTheHostsOwnAddress(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(echo.Policy()))
	at, err := url.Parse(host.URL)
	if err != nil {
		t.Fatal(err)
	}
	audited := func(reason string) bool {
		return slices.ContainsFunc(host.Audit.Events(), func(e connectplugin.AuditEvent) bool {
			return e.Kind == connectplugin.AuditDenied && strings.Contains(e.Reason, reason)
		})
	}
	provider := echo.EnrolProvider(t, host, "provider")
	for _, name := range []string{"127.0.0.1", "localhost", "LocalHost.", "[::ffff:127.0.0.1]"} {
		before := len(host.Audit.Events())
		err := echo.Register(t, provider, map[string]string{"base_url": "https://" + name + ":" + at.Port() + "/"})
		if connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("%s: %v, want permission_denied", name, err)
		}
		if !audited("base_url: the host itself listens there: set BaseURL") || len(host.Audit.Events()) == before {
			t.Errorf("%s: the audit does not say why", name)
		}
	}

	policy := echo.Policy()
	rules := policy.Plugins["provider"]
	rules.Endpoint = "https://localhost:" + at.Port()
	policy.Plugins["provider"] = rules
	if err := host.SetPolicy(policy); err != nil {
		t.Fatal(err)
	}
	if err := echo.Register(t, provider, nil); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("as policy says: %v, want permission_denied", err)
	}
	if !audited(`Policy.Plugins["provider"].Endpoint: the host itself listens there`) {
		t.Error("as policy says: the audit does not say why")
	}
}

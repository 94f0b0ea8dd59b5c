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

package client_test

import (
	"log/slog"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// What belongs to different connections goes together badly, and the host's audit says so.
func TestClient_BaseURLWithoutItsClient(t *testing.T) {
	t.Parallel()
	rig := echo.NewRig(t, echo.Service{}.Handler(), nil)
	conn := must(t)(rig.Caller.Service(t.Context(), echo.Type, ""))
	err := echo.CallUnary(t.Context(), echo.At(conn.BaseURL(), rig.Caller.HTTPClient()), nil, nil).Err
	if connect.CodeOf(err) != connect.CodeNotFound {
		t.Error(err)
	}
	said := false
	for _, e := range rig.Audit.Events() {
		said = said || e.Kind == connectplugin.AuditDenied && strings.Contains(e.Reason, "as the HTTPClient of a connection does")
	}
	if !said {
		t.Errorf("the audit does not say what goes together: %v", rig.Audit.Events())
	}
}

// A plugin that is told of another host than the one it enrolled with names the field that says so.
func TestServePlugin_AnotherHostIdentity(t *testing.T) {
	t.Parallel()
	rig := echo.NewRig(t, echo.Service{}.Handler(), nil)
	rig.Provider.Stop(t)
	log := &hosttest.Buffer{}
	rig.Provide(t, "other", echo.Service{}.Handler(), func(c *connectplugin.PluginServerConfig) {
		c.HostIdentity = "spiffe://other.example.com/host"
		c.Client.Logger = slog.New(slog.NewTextHandler(log, nil))
	})
	conn := must(t)(rig.Caller.Service(t.Context(), echo.Type, ""))
	if err := echo.CallUnary(t.Context(), conn, nil, nil).Err; connect.CodeOf(err) != connect.CodeUnavailable {
		t.Error(err)
	}
	hosttest.Eventually(t, "the plugin says whom it takes for its host", func() bool {
		return strings.Contains(log.String(), "as HostIdentity says")
	})
}

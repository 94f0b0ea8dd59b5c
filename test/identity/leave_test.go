package identity_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A program that leaves gives its identity back at once, so that it can run as often
// as it likes.
func TestLeave_EndsTheIdentity(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.LoggerPolicy()
		hosttest.SetInstances(c.Policy, 2)
	})
	for range 5 {
		c := host.Enrol(t, "logger", hosttest.Providing("logger"))
		id, token := c.RuntimeID(), c.RuntimeToken()
		if err := hosttest.RegisterWith(t, c, &connectpluginv1.RegisterServiceRequest{ServiceType: "logger", Version: "1.0.0"}); err != nil {
			t.Fatal(err)
		}
		if err := c.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if code := hosttest.ReportAs(t, host, id, token); code != connect.CodeUnauthenticated {
			t.Errorf("the token after leaving: %v, want unauthenticated", code)
		}
		if host.Registered("logger", id) {
			t.Error("what it registered is still there")
		}
		if err := c.Leave(t.Context()); !errors.Is(err, connectplugin.ErrClientClosed) {
			t.Errorf("a second time: %v, want ErrClientClosed", err)
		}
	}
}

// A client that holds no identity, or whose host is gone, closes all the same.
func TestLeave_WithoutAnIdentityOrAHost(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	c, err := connectplugin.NewClient(host.ClientConfig(t, "api"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Leave(t.Context()); err != nil {
		t.Errorf("before Connect: %v", err)
	}
	left := host.Enrol(t, "api", nil)
	host.Stop(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := left.Leave(ctx); err == nil {
		t.Error("nobody was told, and there is no error")
	}
	if err := left.Connect(t.Context()); !errors.Is(err, connectplugin.ErrClientClosed) {
		t.Errorf("Connect after Leave: %v, want ErrClientClosed", err)
	}
}

// Nobody makes another leave: the identity that ends is that of the credentials.
func TestLeave_NobodyElse(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	honest, other := host.Enrol(t, "api", nil), host.Enrol(t, "logger", nil)
	for name, header := range map[string]map[string][]string{
		"no token":        {"X-Plugin-Runtime-Id": {honest.RuntimeID()}},
		"another's token": hosttest.IdentityHeader(honest.RuntimeID(), other.RuntimeToken()),
	} {
		for protocol, opts := range hosttest.Protocols {
			client := connectpluginv1connect.NewPluginLifecycleClient(host.Stranger(t), host.URL, opts...)
			req := connect.NewRequest(&connectpluginv1.ReportHealthRequest{
				State: connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY, Leaving: true,
			})
			maps.Copy(req.Header(), header)
			if _, err := client.ReportHealth(t.Context(), req); connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Errorf("%s over %s: %v, want unauthenticated", name, protocol, err)
			}
		}
	}
	for _, c := range []*connectplugin.Client{honest, other} {
		if err := c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
			t.Errorf("still there: %v", err)
		}
	}
}

// A plugin that stops leaves nothing behind at the host.
func TestLeave_ServePluginLeaves(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	p := host.StartPlugin(t, "logger", nil)
	id := p.Client.RuntimeID()
	left := func() bool {
		return slices.ContainsFunc(host.Audit.Events(), func(e connectplugin.AuditEvent) bool {
			return e.Kind == connectplugin.AuditEnded && e.RuntimeID == id && e.Reason == "left"
		})
	}
	if left() {
		t.Fatal("it left while it runs")
	}
	p.Stop(t)
	if !left() {
		t.Error("it stopped and did not leave")
	}
}

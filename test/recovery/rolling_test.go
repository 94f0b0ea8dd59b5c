package recovery_test

import (
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A host is replaced behind a balancer of connections: the new one begins beside the old one, which has the plugins until it ends. Then they
// are the new one's, and nobody makes a connection anew. Who comes in between is at the new one, where nobody provides anything yet.
func TestRolling_BehindABalancer(t *testing.T) {
	t.Parallel()
	authority := hosttest.NewAuthority(t)
	begin := func() *hosttest.Host {
		return hosttest.Start(t, func(c *connectplugin.ServeConfig) { c.Authority, c.Policy = authority, policy() })
	}
	first := begin()
	balancer := hosttest.NewProxy(t, first)
	behind := func(c *connectplugin.ClientConfig) {
		c.HostURL, c.Metadata.Requires = balancer.URL, hosttest.Requires(echoType)
	}
	first.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) {
		c.Client.HostURL = balancer.URL
		c.Services = []connectplugin.PluginService{{Type: echoType, Version: "1.0.0", Path: "/echo.v1.Echo/", Handler: echoHandler()}}
	})
	conn, err := first.Enrol(t, "api", behind).Service(t.Context(), echoType, "1")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hosttest.Eventually(t, "it is called through the first host", func() bool { return once(t.Context(), conn) == nil })

	second := begin()
	balancer.Aim(second)
	newcomer, err := second.Enrol(t, "api", behind).Service(t.Context(), echoType, "1")
	if err != nil {
		t.Fatal(err)
	}
	defer newcomer.Close()
	for range 20 {
		if err := once(t.Context(), conn); err != nil {
			t.Errorf("while both are there: %v", err)
		}
		if err := once(t.Context(), newcomer); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("who came meanwhile: %v", err)
		}
	}
	first.Stop(t)
	hosttest.Eventually(t, "it is called through the second host", func() bool { return once(t.Context(), conn) == nil })
	hosttest.Eventually(t, "by who came meanwhile, too", func() bool { return once(t.Context(), newcomer) == nil })
}

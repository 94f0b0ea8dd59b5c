package broker_test

import (
	"context"
	"net/http"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// capabilityRig is a host with the capabilities "echo" and "different".
type capabilityRig struct {
	*hosttest.Host

	broker *connectplugin.CapabilityBroker
	seen   *echo.Recorder
}

func capabilityPolicy() *connectplugin.Policy {
	return &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
		"both":  hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Capabilities = []string{echo.Type, "different"} }),
		"thief": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Capabilities = []string{echo.Type, "different"} }),
		"none":  hosttest.Allow(nil),
	}}
}

func newCapabilityRig(t *testing.T, service http.Handler, edit func(*connectplugin.ServeConfig)) *capabilityRig {
	t.Helper()
	r := &capabilityRig{broker: connectplugin.NewCapabilityBroker(""), seen: &echo.Recorder{Next: service}}
	r.broker.RegisterCapability(hosttest.NewCapability(r.seen, echo.Type, "1.2.0"))
	r.broker.RegisterCapability(hosttest.NewCapability(r.seen, "different", "1.2.0"))
	r.Host = hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.CapabilityBroker = capabilityPolicy(), r.broker
		if edit != nil {
			edit(c)
		}
	})
	return r
}

// grant asks for a grant.
func (r *capabilityRig) grant(ctx context.Context, c *connectplugin.Client, kind, minVersion string) (*connectpluginv1.CapabilityGrant, error) {
	client := connectpluginv1connect.NewCapabilityBrokerClient(c.HTTPClient(), r.URL)
	resp, err := client.RequestCapability(ctx, connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{
		CapabilityType: kind, MinVersion: minVersion, Reason: "test",
	}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetGrant(), nil
}

func (r *capabilityRig) mustGrant(t *testing.T, c *connectplugin.Client, kind string) *connectpluginv1.CapabilityGrant {
	t.Helper()
	grant, err := r.grant(t.Context(), c, kind, "")
	if err != nil {
		t.Fatalf("RequestCapability(%s): %v", kind, err)
	}
	return grant
}

// bearerOf are the fields that come with a grant.
func bearerOf(grant *connectpluginv1.CapabilityGrant, more ...string) http.Header {
	h := http.Header{"Authorization": {"Bearer " + grant.GetBearerToken()}}
	for i := 0; i < len(more); i += 2 {
		h.Add(more[i], more[i+1])
	}
	return h
}

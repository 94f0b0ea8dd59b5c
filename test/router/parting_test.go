package router_test

import (
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// What a plugin says that has left is passed on for a while, but not once its operator revokes it: a plugin cannot leave in time to
// keep its streams.
func TestRouter_WhoIsRevokedAfterItLeftIsCutOff(t *testing.T) {
	t.Parallel()
	for name, revoke := range map[string]func(*hosttest.Host, string){
		"by its name":     func(h *hosttest.Host, _ string) { h.RevokeSelf("bad") },
		"by its instance": func(h *hosttest.Host, runtimeID string) { h.Revoke(runtimeID) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy = hosttest.Rights(map[string][2][]string{
					"slow": {{"slow"}, nil}, "bad": {{"bad"}, nil}, "caller": {nil, {"slow", "bad"}},
				})
			})
			caller := host.Enrol(t, "caller", hosttest.Requiring("slow", "bad"))
			streams, ids := map[string]*hosttest.Watching{}, map[string]string{}
			for _, selfID := range []string{"slow", "bad"} {
				streamer := &hosttest.Streamer{}
				plugin := host.StartPlugin(t, selfID, func(c *connectplugin.PluginServerConfig) {
					c.Services = []connectplugin.PluginService{streamer.Service(selfID)}
				})
				ids[selfID] = plugin.Client.RuntimeID()
				streams[selfID] = hosttest.Streaming(t, caller, host, selfID, ids[selfID])
				leave(t, host, plugin.Client)
			}
			revoke(host, ids["bad"])
			select { // that of the other goes on for as long as what a plugin answered before it left may
			case <-streams["bad"].End:
			case <-streams["slow"].End:
				t.Error("a plugin that was revoked goes on as long as one that only left")
			}
		})
	}
}

// leave has a plugin say that it leaves, and go on.
func leave(t *testing.T, host *hosttest.Host, c *connectplugin.Client) {
	t.Helper()
	_, err := connectpluginv1connect.NewPluginLifecycleClient(c.HTTPClient(), host.URL).ReportHealth(t.Context(),
		connect.NewRequest(&connectpluginv1.ReportHealthRequest{
			State: connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY, Leaving: true,
		}))
	if err != nil {
		t.Fatal(err)
	}
}

package host_test

import (
	"fmt"
	"net/http"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Everything that plugins hold is counted, and nothing is once they are gone.
func TestHost_Usage(t *testing.T) {
	t.Parallel()
	router := connectplugin.NewServiceRouter(nil, nil, nil)
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.EveryRight()
		c.ServiceRouter = router
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.LoggerCapability(&hosttest.RecordingLogger{}))
	})
	if got := host.Usage(); got != (connectplugin.Usage{}) {
		t.Fatalf("a host that nobody uses holds %+v", got)
	}
	c := host.Enrol(t, "all", hosttest.Declaring([]string{"logger"}, []string{"logger"}))
	served := hosttest.LoggerService(&hosttest.RecordingLogger{})
	if err := router.RegisterPluginHandler(c.RuntimeID(), served.Handler); err != nil {
		t.Fatal(err)
	}
	if err := hosttest.RegisterWith(t, c, &connectpluginv1.RegisterServiceRequest{ServiceType: "logger", Version: "1.0.0", EndpointPath: served.Path}); err != nil {
		t.Fatal(err)
	}
	w := hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "logger"})
	w.Next(t)
	broker := connectpluginv1connect.NewCapabilityBrokerClient(c.HTTPClient(), host.URL)
	for range 2 {
		if _, err := broker.RequestCapability(t.Context(), connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"})); err != nil {
			t.Fatal(err)
		}
	}
	want := connectplugin.Usage{
		Identities: 1, Grants: 2, Registrations: 1, ServiceTypes: 1, Plugins: 1, Endpoints: 1, Handlers: 1, Watches: 1, Calls: 1,
	}
	if got := host.Usage(); got != want {
		t.Errorf("the host holds %+v, want %+v", got, want)
	}
	host.Revoke(c.RuntimeID())
	hosttest.Eventually(t, "nothing is left but what was remembered of the type", func() bool {
		return host.Usage() == connectplugin.Usage{RememberedTypes: 1}
	})
}

// What all instances of a plugin hold together is said, too, and of whom that is most: of what proves nothing by address.
func TestAdmin_LimitsOfAllInstances(t *testing.T) {
	t.Parallel()
	host := administered(t, func(c *connectplugin.ServeConfig) {
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.NewCapability(http.NotFoundHandler(), "clock", "1.0.0"))
		c.Limits.MaxWatches, c.Limits.MaxWatchesPerPlugin, c.Limits.MaxGrantsPerIdentity = 40, 2, 3
		c.Policy.Plugins["unproven"] = connectplugin.PluginPolicy{AllowUnproven: true, Capabilities: []string{"*"}}
	})
	operator := host.Enrol(t, "operator", nil)
	const instances, ofUnproven = 3, 2
	for range instances {
		api := host.Enrol(t, "api", hosttest.Requiring("logger"))
		watch := hosttest.Watch(t, api, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "logger"})
		select {
		case <-watch.Events:
		case err := <-watch.End:
			t.Fatal(err)
		}
	}
	for range ofUnproven {
		unproven := host.Enrol(t, "unproven", func(c *connectplugin.ClientConfig) { c.Secret = nil })
		if _, err := unproven.Capability(t.Context(), "clock", ""); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]string{}
	for _, l := range snapshot(t, reader(host, operator.HTTPClient())).GetLimits() {
		got[l.GetName()] = fmt.Sprintf("%d of %d, %s", l.GetUsed(), l.GetMax(), l.GetOf())
	}
	for name, want := range map[string]string{
		"MaxWatches, of one plugin":           "3 of 24, api", // a quarter are 10
		"MaxGrantsPerIdentity, of one plugin": "2 of 16, unproven:127.0.0.1",
		"MaxOpenCalls, of one plugin":         "1 of 4096, operator", // who asks; watches are none
		"MaxConnections, of one plugin":       "3 of 2500, api",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
}

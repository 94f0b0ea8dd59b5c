package registry_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// The metadata of a service has room for what ServePlugin adds to it: with as many entries as a host takes without that, none of the
// plugin's registrations would be taken.
func TestRegistry_MetadataOfAServiceHasRoom(t *testing.T) {
	t.Parallel()
	const most = connectplugin.MaxMetadataEntries - 2
	entries := func(n int) func(*connectplugin.PluginServerConfig) {
		return func(c *connectplugin.PluginServerConfig) {
			service := hosttest.LoggerService(&hosttest.RecordingLogger{})
			service.Metadata = map[string]string{}
			for i := range n {
				service.Metadata[strconv.Itoa(i)] = ""
			}
			c.Services, c.Standby = []connectplugin.PluginService{service}, true
		}
	}
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	tls, err := host.Authority.PluginTLS("logger")
	if err != nil {
		t.Fatal(err)
	}
	tooMany := connectplugin.PluginServerConfig{Client: host.ClientConfig(t, "logger")}
	tooMany.Client.TLS = tls
	entries(most + 1)(&tooMany)
	if err := tooMany.Validate(); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), "Services[0].Metadata") {
		t.Errorf("%d entries: %v", most+1, err)
	}
	host.StartPlugin(t, "logger", entries(most)) // registers
}

// The registry itself takes as many entries as it says, whoever sends them, with those that ServePlugin adds.
func TestRegistry_MetadataOfARegistration(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	plugin := host.Enrol(t, "logger", func(c *connectplugin.ClientConfig) { c.Metadata.Provides = hosttest.Provides("logger") })
	for n, want := range map[int]connect.Code{
		connectplugin.MaxMetadataEntries - 1: 0, connectplugin.MaxMetadataEntries: 0, connectplugin.MaxMetadataEntries + 1: connect.CodeInvalidArgument,
	} {
		metadata := map[string]string{}
		for i := range n {
			metadata[strconv.Itoa(i)] = ""
		}
		err := hosttest.RegisterWith(t, plugin, &connectpluginv1.RegisterServiceRequest{ServiceType: "logger", Version: "1.0.0", Metadata: metadata})
		if hosttest.CodeOrZero(err) != want {
			t.Errorf("%d entries: %v, want %v", n, err, want)
		}
	}
}

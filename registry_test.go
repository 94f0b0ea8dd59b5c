package connectplugin_test

import (
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// register registers a service type over the wire and returns the registration id.
func register(t *testing.T, c *connectplugin.Client, serviceType, version string) (string, error) {
	t.Helper()
	resp, err := c.RegistryClient().RegisterService(t.Context(), connect.NewRequest(&connectpluginv1.RegisterServiceRequest{
		ServiceType: serviceType, Version: version, EndpointPath: "/x.v1.X/",
	}))
	if err != nil {
		return "", err
	}
	return resp.Msg.GetRegistrationId(), nil
}

func discover(t *testing.T, c *connectplugin.Client, serviceType, minVersion string) (*connectpluginv1.DiscoverServiceResponse, error) {
	t.Helper()
	resp, err := c.RegistryClient().DiscoverService(t.Context(), connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{
		ServiceType: serviceType, MinVersion: minVersion,
	}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func provides(types ...string) func(*connectplugin.ClientConfig) {
	return func(c *connectplugin.ClientConfig) { c.Metadata.Provides = hosttest.Provides(types...) }
}

func TestAudit_PROTO24_VersionsCompareSemantically(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		version, min string
		code         connect.Code // zero: found
	}{
		{"1.10.0", "1.9.0", 0},
		{"1.9.0", "1.10.0", connect.CodeNotFound},
		{"1.0.0-rc.1", "1.0.0", connect.CodeNotFound},
		{"1.0.0", "1.0.0-rc.1", 0},
		{"1.0.0-rc.2", "1.0.0-rc.10", connect.CodeNotFound},
		{"1.5.0", ">=1.2, <2", 0},
		{"2.0.0", ">=1.2, <2", connect.CodeNotFound},
		{"1.1.9", ">=1.2, <2", connect.CodeNotFound},
		{"1.0.0", "", 0},
		{"1.0.0", "not a version", connect.CodeInvalidArgument},
		{"1.0.0", ">=1 || garbage", connect.CodeInvalidArgument},
	} {
		t.Run(c.version+" for "+c.min, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, withPolicy(loggerPolicy()))
			if _, err := register(t, host.Enrol(t, "logger", provides("logger")), "logger", c.version); err != nil {
				t.Fatal(err)
			}
			got, err := discover(t, host.Enrol(t, "api", requires("logger")), "logger", c.min)
			switch {
			case c.code == 0 && err != nil:
				t.Errorf("not found: %v", err)
			case c.code == 0 && got.GetEndpoint().GetVersion() != c.version:
				t.Errorf("found %v", got)
			case c.code != 0 && connect.CodeOf(err) != c.code:
				t.Errorf("%v, want %v", err, c.code)
			}
			if c.code == connect.CodeInvalidArgument {
				return
			}
			if host.Registry().HasService("logger", c.min) != (c.code == 0) {
				t.Error("HasService differs from DiscoverService")
			}
		})
	}
}

func TestAudit_PROTO24_MalformedVersionsAreRefused(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, withPolicy(loggerPolicy()))
	c := host.Enrol(t, "logger", provides("logger"))
	for _, version := range []string{"", "one", "1.0.0\n", "1.0.0 ", ">=1", "1.0.0-" + string(make([]byte, 100))} {
		if _, err := register(t, c, "logger", version); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("version %q: %v, want invalid_argument", version, err)
		}
	}
	if _, err := register(t, c, "logger", "1.0.0"); err != nil {
		t.Errorf("an honest version: %v", err)
	}
}

// A capability honours min_version in the same way.
func TestAudit_PROTO24_CapabilityVersions(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = everyRight()
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(newLoggerCapability(&recordingLogger{})) // 1.2.0
	})
	c := host.Enrol(t, "all", nil)
	for constraint, ok := range map[string]bool{"": true, "1.1.9": true, "1.2.0-rc.1": true, "1.10.0": false, ">=1.2, <2": true, "<1.2": false} {
		if _, err := c.Capability(t.Context(), "logger", constraint); (err == nil) != ok {
			t.Errorf("constraint %q: %v, want granted: %t", constraint, err, ok)
		}
	}
}

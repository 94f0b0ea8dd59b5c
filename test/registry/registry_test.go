package registry_test

import (
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

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
			host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
			if _, err := hosttest.Register(t, host.Enrol(t, "logger", hosttest.Providing("logger")), "logger", c.version); err != nil {
				t.Fatal(err)
			}
			got, err := hosttest.Discover(t, host.Enrol(t, "api", hosttest.Requiring("logger")), "logger", c.min)
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
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	c := host.Enrol(t, "logger", hosttest.Providing("logger"))
	for _, version := range []string{"", "one", "1.0.0\n", "1.0.0 ", ">=1", "1.0.0-" + string(make([]byte, 100))} {
		if _, err := hosttest.Register(t, c, "logger", version); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("version %q: %v, want invalid_argument", version, err)
		}
	}
	if _, err := hosttest.Register(t, c, "logger", "1.0.0"); err != nil {
		t.Errorf("an honest version: %v", err)
	}
}

// A capability honours min_version in the same way.
func TestAudit_PROTO24_CapabilityVersions(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.EveryRight()
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.LoggerCapability(&hosttest.RecordingLogger{})) // 1.2.0
	})
	c := host.Enrol(t, "all", nil)
	for constraint, ok := range map[string]bool{"": true, "1.1.9": true, "1.2.0-rc.1": true, "1.10.0": false, ">=1.2, <2": true, "<1.2": false} {
		if _, err := c.Capability(t.Context(), "logger", constraint); (err == nil) != ok {
			t.Errorf("constraint %q: %v, want granted: %t", constraint, err, ok)
		}
	}
}

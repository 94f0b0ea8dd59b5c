package host_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// What nobody can mean is refused with the name of its field: durations that end before they are of use, nil pointers,
// names without letters.
func TestServeConfigThatNobodyCanMean(t *testing.T) {
	t.Parallel()
	for field, edit := range map[string]func(*connectplugin.ServeConfig){
		"RuntimeTokenTTL: 1ns is too short; write 1s or more": func(c *connectplugin.ServeConfig) { c.RuntimeTokenTTL = 1 },
		"CapabilityGrantTTL: 1ms is too short":                func(c *connectplugin.ServeConfig) { c.CapabilityGrantTTL = time.Millisecond },
		"HealthProbe.Interval: 1ns is too short; write 10ms":  func(c *connectplugin.ServeConfig) { c.HealthProbe.Interval = 1 },
		"RateLimiter: holds a nil pointer":                    func(c *connectplugin.ServeConfig) { c.RateLimiter = (*connectplugin.TokenBucketLimiter)(nil) },
		`Policy.Plugins["x"].HostPlugins[0]: is empty; write a nam`: func(c *connectplugin.ServeConfig) {
			c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"x": {HostPlugins: []string{""}}}}
		},
	} {
		cfg := &connectplugin.ServeConfig{Authority: hosttest.NewAuthority(t)}
		edit(cfg)
		if _, err := connectplugin.NewHost(cfg); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), field) {
			t.Errorf("got %v, want %q", err, field)
		}
	}
}

// The same of a plugin: a handler that is a nil pointer, and a path that no host passes calls on to.
func TestPluginServerConfigThatNobodyCanMean(t *testing.T) {
	t.Parallel()
	for field, edit := range map[string]func(*connectplugin.PluginServerConfig){
		"Services[0].Path: \"/connectplugin.v1.PluginControl/\" is one of this library's own services": func(c *connectplugin.PluginServerConfig) {
			c.Services[0].Path = "/connectplugin.v1.PluginControl/"
		},
		"Services[0]: needs Path and Handler": func(c *connectplugin.PluginServerConfig) { c.Services[0].Handler = (*http.ServeMux)(nil) },
		"HealthInterval: 1ns is too short":    func(c *connectplugin.PluginServerConfig) { c.HealthInterval = 1 },
	} {
		cfg := &connectplugin.PluginServerConfig{
			Client:   connectplugin.ClientConfig{HostURL: "http://127.0.0.1:1", SelfID: "x", AllowInsecure: true},
			Services: []connectplugin.PluginService{{Type: "x", Version: "1.0.0", Path: "/x/", Handler: http.NotFoundHandler()}},
		}
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		edit(cfg)
		if err := cfg.Validate(); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), field) {
			t.Errorf("got %v, want %q", err, field)
		}
	}
}

// A host that was shut down takes no other policy.
func TestSetPolicyAfterShutdown(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, nil)
	if err := host.Shutdown(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := host.SetPolicy(hosttest.LoggerPolicy()); !errors.Is(err, connectplugin.ErrHostClosed) {
		t.Errorf("got %v", err)
	}
}

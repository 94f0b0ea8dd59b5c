package platform_test

import (
	"errors"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// What makes no sense in a spec of a plugin of go-plugin is named. That such plugins run is
// tested with go-plugin itself, in module bench.
func TestGoPluginSpecIsChecked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit func(*connectplugin.PluginSpec)
		want string
	}{
		"no cookie":     {func(s *connectplugin.PluginSpec) { s.GoPlugin.CookieKey = "" }, "GoPlugin.CookieKey"},
		"cookie with =": {func(s *connectplugin.PluginSpec) { s.GoPlugin.CookieKey = "A=B" }, "GoPlugin.CookieKey"},
		"no value":      {func(s *connectplugin.PluginSpec) { s.GoPlugin.CookieValue = "" }, "GoPlugin.CookieValue"},
		"no version":    {func(s *connectplugin.PluginSpec) { s.GoPlugin.Version = "one" }, "GoPlugin.Version"},
		"nothing":       {func(s *connectplugin.PluginSpec) { s.Provides = nil }, "Provides"},
		"of nothing":    {func(s *connectplugin.PluginSpec) { s.GoPlugin.Services = map[string]string{"other": "a.B"} }, `GoPlugin.Services["other"]`},
		"a path":        {func(s *connectplugin.PluginSpec) { s.GoPlugin.Services = map[string]string{"echo": "a.B/C"} }, `GoPlugin.Services["echo"]`},
		"everything":    {func(s *connectplugin.PluginSpec) { s.GoPlugin.Services = map[string]string{"echo": "/"} }, `GoPlugin.Services["echo"]`},
		"its controller": {func(s *connectplugin.PluginSpec) {
			s.GoPlugin.Services = map[string]string{"echo": "plugin.GRPCController"}
		}, "host alone"},
		"with a slash": {func(s *connectplugin.PluginSpec) {
			s.GoPlugin.Services = map[string]string{"echo": "/plugin.GRPCBroker/"}
		}, "host alone"},
		"its health": {func(s *connectplugin.PluginSpec) {
			s.GoPlugin.Services = map[string]string{"echo": "grpc.health.v1.Health"}
		}, "host alone"},
		"a port":          {func(s *connectplugin.PluginSpec) { s.Port = 1234 }, "Port"},
		"a host":          {func(s *connectplugin.PluginSpec) { s.HostURL = "https://127.0.0.1:1" }, "HostURL"},
		"another process": {func(s *connectplugin.PluginSpec) { s.Strategy = "process" }, `is for the strategy "go-plugin"`},
		"nothing to say":  {func(s *connectplugin.PluginSpec) { s.Strategy, s.GoPlugin = "go-plugin", nil }, "GoPlugin: is nil"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t, "echo")
			sp := spec()
			sp.GoPlugin = &connectplugin.GoPluginSpec{CookieKey: "COOKIE", CookieValue: "value"}
			c.edit(&sp)
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
			_, err := h.Launcher().GetService("echo", "")
			if !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// A strategy that belongs to no launcher says so.
func TestGoPluginStrategyAlone(t *testing.T) {
	t.Parallel()
	s := connectplugin.NewGoPluginStrategy()
	if _, err := s.Launch(t.Context(), spec()); s.Name() != "go-plugin" || err == nil || !strings.Contains(err.Error(), "RegisterStrategy") {
		t.Errorf("%s: %v", s.Name(), err)
	}
}

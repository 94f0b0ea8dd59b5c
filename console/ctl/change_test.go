package ctl_test

import (
	"encoding/json"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// One instance of a plugin ends by its runtime id, and a launched one is replaced by its name.
func TestChangeOneInstance(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	one, other := r.Enrol(t, "api", nil), r.Enrol(t, "api", nil)
	if _, errs := run(t, 1, r.as("revoke", one.RuntimeID())...); !strings.Contains(errs, "revoke --instance "+one.RuntimeID()) || !strings.Contains(errs, "`revoke api`") {
		t.Errorf("revoke of a runtime id as if it were a name: %s", errs)
	}
	for _, command := range [][]string{{"drain"}, {"revoke", "--instance"}} {
		_, errs := run(t, 1, r.as(append(command, "api")...)...)
		if !strings.Contains(errs, "api is a self id") || !strings.Contains(errs, one.RuntimeID()) || !strings.Contains(errs, other.RuntimeID()) {
			t.Errorf("%s of a self id: %s", command, errs)
		}
	}
	if out, _ := run(t, 0, r.as("revoke", "--instance", one.RuntimeID())...); !strings.Contains(out, one.RuntimeID()+" ended") {
		t.Errorf("revoke: %s", out)
	}
	out, _ := run(t, 0, r.as("plugins")...)
	if strings.Contains(out, one.RuntimeID()) || !strings.Contains(out, other.RuntimeID()) {
		t.Errorf("plugins: %s", out)
	}
	if _, errs := run(t, 1, r.as("replace", "logger")...); !strings.Contains(errs, "launches no plugins") {
		t.Errorf("replace where nothing was launched: %s", errs)
	}
	r.Launcher().Configure(map[string]connectplugin.PluginSpec{
		"logger": {Provides: []string{"logger"}, Plugin: hosttest.LoggerPlugin{}, ImplFactory: func() any { return &hosttest.RecordingLogger{} }},
	})
	if err := r.Launcher().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	instance := func() string {
		out, _ := run(t, 0, r.as("services", "-o", "json")...)
		var s struct {
			Services []struct{ Providers []struct{ RuntimeID string } }
		}
		if err := json.Unmarshal([]byte(out), &s); err != nil || len(s.Services) != 1 || len(s.Services[0].Providers) != 1 {
			t.Fatalf("services: %v, %s", err, out)
		}
		return s.Services[0].Providers[0].RuntimeID
	}
	before := instance()
	if out, _ := run(t, 0, r.as("replace", "logger")...); !strings.Contains(out, "logger is replaced") || instance() == before {
		t.Errorf("replace: %s", out)
	}
	if _, errs := run(t, 1, r.as("replace", "nobody")...); !strings.Contains(errs, "nobody") {
		t.Errorf("replace nobody: %s", errs)
	}
}

package platform_test

import (
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A launched plugin that lost its identity and enrols again has what its operator left it.
func TestAudit_ATK17_ALaunchStaysNarrowed(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec()})
	if got, err := caller(t, h, "echo")("hello"); got != "hello" || err != nil {
		t.Fatalf("call: %q, %v", got, err)
	}
	first := h.Plugins()[0]
	if len(first.Rights.Provides) != 1 || !h.Registered("echo", first.RuntimeID) {
		t.Fatalf("before: %+v", first)
	}
	h.Registry().SetAllowedServices(first.RuntimeID, []string{"other"})
	h.Revoke(first.RuntimeID)
	var again connectplugin.PluginStatus
	hosttest.Eventually(t, "it enrols again", func() bool {
		for _, p := range h.Plugins() {
			if p.RuntimeID != "" && p.RuntimeID != first.RuntimeID && p.Launch != nil { // the launcher has noticed
				again = p
				return true
			}
		}
		return false
	})
	if again.Launch.Restarts != 0 {
		t.Fatalf("it is another launch: %+v", again)
	}
	if len(again.Rights.Provides) != 0 || h.Registered("echo", again.RuntimeID) {
		t.Errorf("after: %+v", again)
	}
}

package platform_test

import (
	"strings"
	"sync/atomic"
	"syscall"
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

// What policy takes from an instance that replaces another, while that still serves, is there again
// when policy gives it back, as it is of one that is in service.
func TestAudit_USE22_WhatPolicyTakesFromAReplacementComesBack(t *testing.T) {
	t.Parallel()
	may := func(types ...string) *connectplugin.Policy {
		return &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"echo": {Provides: types}}}
	}
	registered, on := make(chan string), make(chan struct{})
	var replaces atomic.Bool
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = may("echo")
		c.Audit = func(e connectplugin.AuditEvent) {
			if e.Kind == connectplugin.AuditRegistered && replaces.CompareAndSwap(true, false) {
				registered <- e.RuntimeID
				<-on
			}
		}
	})
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec()})
	if got, err := caller(t, h, "echo")("hello"); got != "hello" || err != nil {
		t.Fatalf("call: %q, %v", got, err)
	}
	replaces.Store(true)
	replaced := make(chan error, 1)
	go func() { replaced <- h.Launcher().Replace(t.Context(), "echo") }()
	next := <-registered
	hosttest.SetPolicy(t, h, may("other"))
	close(on)
	if err := <-replaced; err != nil {
		t.Fatal(err)
	}
	if all := h.Registry().GetAllProviders("echo"); len(all) != 0 {
		t.Errorf("it provides what it may not: %+v", all)
	}
	hosttest.SetPolicy(t, h, may("echo"))
	if all := h.Registry().GetAllProviders("echo"); len(all) != 1 || all[0].RuntimeID != next {
		t.Errorf("given back: %+v", all)
	}
	if got, err := caller(t, h, "echo")("again"); got != "again" || err != nil {
		t.Errorf("call: %q, %v", got, err)
	}
}

// A launched plugin whose identity ended, and whose process has not heard of it yet, is shown as that.
func TestPlugins_SayThatARunningPluginWasRevoked(t *testing.T) {
	t.Parallel()
	for want, end := range map[string]func(h *hosttest.Host, runtimeID string){
		"it was revoked":     func(h *hosttest.Host, _ string) { h.RevokeSelf("echo") },
		"its identity ended": func(h *hosttest.Host, runtimeID string) { h.Revoke(runtimeID) },
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			h := start(t, "echo")
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec()})
			if _, err := h.Launcher().GetService("echo", "echo"); err != nil {
				t.Fatal(err)
			}
			p := h.Plugins()[0]
			if p.Launch.Err != "" {
				t.Errorf("before: %q", p.Launch.Err)
			}
			if err := syscall.Kill(p.Launch.Pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			end(h, p.RuntimeID)
			after := h.Plugins()
			if len(after) != 1 || after[0].RuntimeID != "" || after[0].Launch.Pid != p.Launch.Pid || !strings.HasPrefix(after[0].Launch.Err, want) {
				t.Errorf("after: %+v", after)
			}
			if err := syscall.Kill(p.Launch.Pid, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
		})
	}
}

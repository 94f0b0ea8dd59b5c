package platform_test

import (
	"context"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Whatever a plugin does with its descriptors, its process group and its signals, stopping it is
// over soon after the context is, and nothing of it stays.
func TestAudit_GAPTERMINATION_HostilePluginEndsWithTheContext(t *testing.T) {
	t.Parallel()
	for name, words := range map[string][]string{
		"does not read what the host says":  {"clog", "deaf"},
		"has joined the group of its host":  {"leave", "deaf"},
		"has closed what it inherited":      {"close", "deaf"},
		"has a child in the group that it left": {"child=TOKEN", "leave", "deaf"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t, "echo")
			token := "hostile-" + strings.ReplaceAll(name, " ", "-")
			sp := spec(strings.Fields(strings.ReplaceAll(strings.Join(words, " ")+" print=TOKEN", "TOKEN", token))...)
			sp.StopGrace = time.Hour // but the context ends before
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
			if got, err := caller(t, h, "echo")("x"); got != "x" || err != nil {
				t.Fatalf("%q, %v", got, err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			stopped := make(chan error, 1)
			go func() { stopped <- h.Launcher().Stop(ctx, "echo") }()
			select {
			case err := <-stopped:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(wait):
				t.Fatal("Stop waits for the plugin")
			}
			allGone(t, token)
			if got := h.Plugins(); len(got) != 0 {
				t.Errorf("left: %+v", got)
			}
		})
	}
}

// A launch that does not become a plugin is over with its time, whatever the process does.
func TestAudit_H53_HostileLaunchEndsInTime(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("this system has no such signals")
	}
	for _, word := range []string{"freeze", "hang", "leave hang"} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			h := start(t, "echo")
			token, mark := "late-"+strings.ReplaceAll(word, " ", "-"), filepath.Join(t.TempDir(), "mark")
			sp := spec(strings.Fields("print=" + token + " " + strings.ReplaceAll(word, "hang", "hang="+mark))...)
			sp.ReadyTimeout = 300 * time.Millisecond
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
			if _, err := h.Launcher().GetService("echo", "echo"); err == nil || !strings.Contains(err.Error(), "not healthy in time") {
				t.Errorf("error %v", err)
			}
			allGone(t, token)
			if got := h.Plugins(); len(got) != 0 {
				t.Errorf("left: %+v", got)
			}
		})
	}
}

// A plugin at a socket is nowhere else, whatever it says.
func TestAudit_H58_PluginThatNamesAnAddressOfOthers(t *testing.T) {
	t.Parallel()
	h := start(t, "echo", "other")
	victim := spec("type=other")
	victim.Provides = []string{"other"}
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"other": victim})
	if _, err := h.Launcher().GetService("other", "other"); err != nil {
		t.Fatal(err)
	}
	somewhere := hosttest.Listen(t)
	defer func() { _ = somewhere.Close() }()
	for name, address := range map[string]string{
		"of nobody": "https://" + somewhere.Addr().String(), "of the host": h.URL, "of another plugin": h.Plugins()[0].Endpoint,
	} {
		sp := spec("says=" + address)
		h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
		if got, err := caller(t, h, "echo")("x"); got != "x" || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		for _, p := range h.Plugins() {
			if p.SelfID == "echo" && (!strings.HasPrefix(p.Endpoint, "unix:") || p.Endpoint == address) {
				t.Errorf("%s: the host calls it at %s", name, p.Endpoint)
			}
		}
		if err := h.Launcher().Stop(t.Context(), "echo"); err != nil {
			t.Error(err)
		}
	}
}

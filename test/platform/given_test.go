package platform_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// A plugin runs in the directory and within the limits that its spec names.
func TestLaunchedPluginGetsItsDirectoryAndLimits(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("this system has no limits of others")
	}
	h := start(t, "echo")
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	sp := spec()
	sp.Dir = dir
	sp.Rlimits = map[connectplugin.Rlimit]uint64{connectplugin.RlimitOpenFiles: 77, connectplugin.RlimitCore: 0}
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	call := caller(t, h, "echo")
	if got, err := call("dir"); got != dir || err != nil {
		t.Errorf("it is in %q, %v", got, err)
	}
	limits, err := call("limits")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"Max open files": "77 77", "Max core file size": "0 0"} {
		_, rest, _ := strings.Cut(limits, name)
		if fields := strings.Fields(rest); len(fields) < 2 || strings.Join(fields[:2], " ") != want {
			t.Errorf("%s: %.40q, want %s", name, rest, want)
		}
	}
	for name, edit := range map[string]func(*connectplugin.PluginSpec){
		"PluginSpec[\"echo\"].Dir":            func(s *connectplugin.PluginSpec) { s.Dir = "relative" },
		"PluginSpec[\"echo\"].Rlimits[\"x\"]": func(s *connectplugin.PluginSpec) { s.Rlimits = map[connectplugin.Rlimit]uint64{"x": 1} },
	} {
		bad := spec()
		edit(&bad)
		h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": bad})
		if err := h.Launcher().Replace(t.Context(), "echo"); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	gone := spec()
	gone.Dir = filepath.Join(dir, "not-there")
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": gone})
	if err := h.Launcher().Replace(t.Context(), "echo"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
	if got, err := call("x"); got != "x" || err != nil {
		t.Errorf("after all that: %q, %v", got, err)
	}
}

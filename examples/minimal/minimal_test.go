//go:build unix

// Package minimal_test runs the programs of the top README.
package minimal_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/examples/internal/process"
)

const (
	programs = "github.com/masegraye/connect-plugin-go/examples/minimal/"
	serving  = "host is serving addr="
	wait     = 30 * time.Second
)

// start starts a program in dir and stops it at the end of the test, which fails
// if that does not end well.
func start(t *testing.T, dir, program, says string, args ...string) (*process.Process, string) {
	t.Helper()

	p, err := process.Start(dir, filepath.Join(dir, "bin", program), args...)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})

	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()

	line, err := p.Await(ctx, says)
	if err != nil {
		t.Fatal(err)
	}

	return p, line
}

func call(t *testing.T, dir, program, url, name string) (string, error) {
	t.Helper()

	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "bin", program), "-host", url, name)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()

	return strings.TrimSpace(string(out)), err
}

func TestMinimal(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	if err := process.Build(t.Context(), filepath.Join(dir, "bin"), 
		programs+"host", programs+"plugin", programs+"caller", programs+"pluginv2", programs+"callerv2"); err != nil {
		t.Fatal(err)
	}

	host, line := start(t, dir, "host", serving, "-addr", "127.0.0.1:0")
	_, addr, _ := strings.Cut(line, serving)
	url := "https://" + addr

	if out, err := call(t, dir, "caller", url, "nobody"); err == nil || !strings.Contains(out, "no provider of the service is available") {
		t.Errorf("call without a plugin: %q, %v", out, err)
	}

	plugin, _ := start(t, dir, "plugin", "service registered", "-host", url)

	if out, err := call(t, dir, "caller", url, "World"); err != nil || out != "Hello, World!" {
		t.Errorf("call: %q, %v", out, err)
	}

	if out, err := call(t, dir, "callerv2", url, "World"); err != nil || out != "Hello, World!" {
		t.Errorf("call with v2: %q, %v", out, err)
	}

	// The plugin finds its host again.
	if err := host.Stop(); err != nil {
		t.Error(err)
	}

	start(t, dir, "host", serving, "-addr", addr)

	for deadline := time.Now().Add(wait); ; {
		out, err := call(t, dir, "caller", url, "again")
		if err == nil && out == "Hello, again!" {
			break
		}

		if time.Now().After(deadline) {
			t.Fatalf("call after the restart: %q, %v; the plugin said:\n%s", out, err, plugin.Output())
		}

		time.Sleep(100 * time.Millisecond)
	}

	if err := plugin.Stop(); err != nil {
		t.Error(err)
	}

	start(t, dir, "pluginv2", "service registered", "-host", url)

	for _, program := range []string{"caller", "callerv2"} {
		if out, err := call(t, dir, program, url, "World"); err != nil || out != "Hello, World!" {
			t.Errorf("call of a plugin with v2: %s says %q, %v", program, out, err)
		}
	}
}

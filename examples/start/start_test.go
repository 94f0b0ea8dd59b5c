//go:build unix

// Package start_test runs the programs of docs/getting-started.md.
package start_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/examples/internal/processtest"
)

func TestStart(t *testing.T) {
	t.Parallel()

	p := processtest.Build(t, "start/host", "start/logger", "start/app", "start/loggerv2", "start/appv2")
	host, url := p.StartHost("start/host")

	if out, ok := p.Run("start/app", "-host", url, "nobody"); ok || out != "" {
		t.Errorf("without a logger app said %q", out)
	}

	logger, _ := p.Start("start/logger", "service registered", "-host", url)

	if out, ok := p.Run("start/app", "-host", url, "hello", "there"); !ok || out != "logged" {
		t.Errorf("app said %q", out)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	if _, err := logger.Await(ctx, "app: hello there"); err != nil {
		t.Error(err)
	}

	if out, ok := p.Run("start/appv2", "-host", url, "hello", "from", "v2"); !ok || out != "logged" {
		t.Errorf("appv2 said %q", out)
	}

	// The logger finds its host again.
	if err := host.Stop(); err != nil {
		t.Error(err)
	}

	p.Start("start/host", "host is serving addr=", "-addr", strings.TrimPrefix(url, "https://"))

	for {
		out, ok := p.Run("start/app", "-host", url, "hello", "again")
		if ok {
			break
		}

		if ctx.Err() != nil {
			t.Fatalf("after the restart app said %q", out)
		}
	}

	// Both versions of Connect mix.
	if err := logger.Stop(); err != nil {
		t.Error(err)
	}

	second, _ := p.Start("start/loggerv2", "service registered", "-host", url)

	for _, program := range []string{"start/app", "start/appv2"} {
		if out, ok := p.Run(program, "-host", url, "to", "v2"); !ok || out != "logged" {
			t.Errorf("%s said %q", program, out)
		}

		if _, err := second.Await(ctx, "app: to v2"); err != nil {
			t.Error(err)
		}
	}

	// Who has another plugin's credentials is not the app.
	if err := os.RemoveAll(filepath.Join(p.Dir, "run", "app")); err != nil {
		t.Fatal(err)
	}

	if err := os.Rename(filepath.Join(p.Dir, "run", "logger"), filepath.Join(p.Dir, "run", "app")); err != nil {
		t.Fatal(err)
	}

	if out, ok := p.Run("start/app", "-host", url, "hello"); ok || out != "" {
		t.Errorf("with the logger's certificate app said %q", out)
	}
}

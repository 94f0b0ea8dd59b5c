//go:build unix

// Package capability_test runs the programs of the example.
package capability_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/examples/internal/processtest"
)

func TestCapability(t *testing.T) {
	t.Parallel()

	p := processtest.Build(t, "capability/host", "capability/worker")
	host, url := p.StartHost("capability/host")

	if out, ok := p.Run("capability/worker", "-host", url, "-as", "nosy"); ok || out != "" {
		t.Errorf("nosy said %q", out)
	}

	if out, ok := p.Run("capability/worker", "-host", url); !ok || out != "logged" {
		t.Errorf("worker said %q", out)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	line, err := host.Await(ctx, "a plugin logs")
	if err != nil {
		t.Fatal(err)
	}

	if !strings.Contains(line, "plugin=worker severity=info text=\"work begins\"") || strings.Contains(host.Output(), "plugin=nosy severity") {
		t.Errorf("the host's log: %s", line)
	}
}

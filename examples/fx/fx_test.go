//go:build unix

// Package main_test runs the programs of the example.
package main_test

import (
	"testing"

	"github.com/masegraye/connect-plugin-go/examples/internal/processtest"
)

func TestFx(t *testing.T) {
	t.Parallel()

	p := processtest.Build(t, "kv/host", "fx")
	_, url := p.StartHost("kv/host")

	for _, want := range []string{"start 1", "start 2"} {
		if out, ok := p.Run("fx", "-host", url); !ok || out != want {
			t.Errorf("it said %q, want %q", out, want)
		}
	}

	if out, ok := p.Run("fx", "-host", "https://127.0.0.1:1", "-wait", "200ms"); ok || out != "" {
		t.Errorf("without a host it said %q", out)
	}
}

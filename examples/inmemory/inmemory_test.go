//go:build unix

// Package main_test runs the program of the example.
package main_test

import (
	"testing"

	"github.com/masegraye/connect-plugin-go/examples/internal/processtest"
)

func TestInMemory(t *testing.T) {
	t.Parallel()

	if out, ok := processtest.Build(t, "inmemory").Run("inmemory"); !ok || out != "the store is in the host's own process" {
		t.Errorf("it said %q", out)
	}
}

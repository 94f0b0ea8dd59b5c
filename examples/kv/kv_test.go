//go:build unix

// Package kv_test runs the programs of the example.
package kv_test

import (
	"testing"

	"github.com/masegraye/connect-plugin-go/examples/internal/processtest"
)

func TestKV(t *testing.T) {
	t.Parallel()

	p := processtest.Build(t, "kv/host", "kv/client")
	_, url := p.StartHost("kv/host")

	const want = `greeting is hello
imported 10
there are 10 squares
square/2 is 4
square/none is not there`

	if out, ok := p.Run("kv/client", "-host", url); !ok || out != want {
		t.Errorf("the client said %q", out)
	}
}

//go:build unix

// Package pki_test runs the programs of the example.
package pki_test

import (
	"path/filepath"
	"testing"

	"github.com/masegraye/connect-plugin-go/examples/internal/processtest"
)

func TestOwnPKI(t *testing.T) {
	t.Parallel()

	p := processtest.Build(t, "pki/mkpki", "pki/host", "pki/plugin", "pki/caller")
	if _, ok := p.Run("pki/mkpki"); !ok {
		t.Fatal("no certificates")
	}

	_, url := p.StartHost("pki/host")
	p.Start("pki/plugin", "service registered", "-host", url)

	if out, ok := p.Run("pki/caller", "-host", url, "World"); !ok || out != "Hello, World!" {
		t.Errorf("the caller said %q", out)
	}

	for _, other := range []string{"other", "plugin"} {
		if out, ok := p.Run("pki/caller", "-host", url, "-dir", filepath.Join("run", "pki", other), "Eve"); ok || out != "" {
			t.Errorf("with the certificate of %s the caller said %q", other, out)
		}
	}
}

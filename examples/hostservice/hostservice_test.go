//go:build unix

// Package hostservice_test runs the programs of the example.
package hostservice_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/masegraye/connect-plugin-go/examples/internal/processtest"
)

func TestHostService(t *testing.T) {
	t.Parallel()

	p := processtest.Build(t, "hostservice/host", "hostservice/plugin", "hostservice/operator")
	_, url := p.StartHost("hostservice/host")

	for _, tt := range []struct {
		program string
		args    []string
		want    string
		fails   bool
	}{
		{program: "plugin", args: []string{"-as", "blue", "navy"}, want: "navy"},
		{program: "plugin", args: []string{"-as", "blue"}, want: "navy"},
		{program: "plugin", args: []string{"-as", "green"}, fails: true},
		{program: "plugin", args: []string{"-as", "grey", "black"}, fails: true},
		{program: "operator", want: "blue"},
	} {
		out, ok := p.Run("hostservice/"+tt.program, append([]string{"-host", url}, tt.args...)...)
		if out != tt.want || ok == tt.fails {
			t.Errorf("%s %v said %q, ok: %t", tt.program, tt.args, out, ok)
		}
	}

	if err := os.WriteFile(filepath.Join(p.Dir, "run", "operator-key"), []byte("guessed"), 0o600); err != nil {
		t.Fatal(err)
	}

	if out, ok := p.Run("hostservice/operator", "-host", url); ok || out != "" {
		t.Errorf("a wrong key gets %q", out)
	}
}

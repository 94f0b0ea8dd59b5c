package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Both sides do all that is measured, and this library leaves nothing behind.
func TestMeasure(t *testing.T) {
	t.Parallel()
	programs := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", programs,
		"./plugins/own", "./plugins/ownplugin", "./plugins/theirs", "./goplugin/plugin")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	p := plan{programs: programs, starts: 2, launches: 10, rounds: 1, time: 20 * time.Millisecond, many: 1}
	var out bytes.Buffer
	if err := p.measure(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, row := range []string{"start to first call, p50", "stop, p50 where go-plugin went first", "unary 256 B x 32", "memory of a plugin", "10 launches, a tenth killed", "more processes"} {
		if !strings.Contains(out.String(), row) {
			t.Errorf("no %q in\n%s", row, out.String())
		}
	}
	if strings.Contains(out.String(), " 0 ") || strings.Contains(out.String(), " 0.00 ms") {
		t.Errorf("something was not measured:\n%s", out.String())
	}
}

package hosttest

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// childVariable marks the process in which a test runs that changes its process.
const childVariable = "CONNECTPLUGIN_TEST_CHILD"

// InChild runs the calling test again in a process of its own, with an environment, and reports
// whether this is that process.
func InChild(t *testing.T, environment ...string) bool {
	t.Helper()
	if os.Getenv(childVariable) != "" {
		return true
	}
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*Wait)
	defer cancel()
	child := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(append(os.Environ(), childVariable+"=1"), environment...)
	out, err := child.CombinedOutput()
	switch {
	case strings.Contains(string(out), "--- SKIP: "+t.Name()):
		t.Skipf("%s", out)
	case err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Errorf("in a process of its own: %v\n%s", err, out)
	}
	return false
}

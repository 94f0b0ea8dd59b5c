package ctl_test

import (
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A plugin that was drained is shown as such by those who list plugins and those who follow them, in tables
// and in JSON.
func TestDrainedIsShown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.startLogger(t).Client.RuntimeID()
	watched := begin(t, r.as("watch")...)
	hosttest.Eventually(t, "the plugin is seen", func() bool { return strings.Contains(watched.String(), id) })
	row := func() string {
		out, _ := run(t, 0, r.as("plugins")...)
		_, after, _ := strings.Cut(out, id)
		row, _, _ := strings.Cut(after, "\n")
		return row
	}
	if strings.Contains(row(), "drained") {
		t.Errorf("before: %s", row())
	}
	if out, _ := run(t, 0, r.as("drain", id, "-o", "json")...); strings.TrimSpace(out) != "{}" {
		t.Errorf("drain: %s", out)
	}
	if !strings.Contains(row(), "drained") {
		t.Errorf("afterwards: %s", row())
	}
	if out, _ := run(t, 0, r.as("plugins", "-o", "json")...); !strings.Contains(out, `"drained"`) {
		t.Errorf("JSON: %s", out)
	}
	hosttest.Eventually(t, "who watches sees it", func() bool { return strings.Contains(watched.String(), "drained and provides nothing") })
}

// Who names credentials that are not there learns how to make them, and not how to renew them.
func TestMissingCredentials(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/none"
	_, errs := run(t, 1, "plugins", "--host", "https://127.0.0.1:1", "--credentials", dir)
	if !strings.Contains(errs, "`connectpluginctl ca write operator "+dir+" --dir CA`") || strings.Contains(errs, "ca renew") {
		t.Errorf("it says %s", errs)
	}
}

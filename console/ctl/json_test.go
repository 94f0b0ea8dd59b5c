package ctl_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// jsonOf runs a command with -o json, which writes one object or list, and returns it.
func jsonOf(t *testing.T, args ...string) any {
	t.Helper()
	out, _ := run(t, 0, append(args, "-o", "json")...)
	var v any
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Errorf("%q: %v: %s", args, err, out)
	}
	return v
}

// member returns a member of an object, nil where there is none.
func member(v any, name string) any {
	o, _ := v.(map[string]any)
	return o[name]
}

// empty demands that a list is there and is one, though nothing is in it.
func empty(t *testing.T, v any, names ...string) {
	t.Helper()
	for _, name := range names {
		if list, ok := member(v, name).([]any); !ok || len(list) != 0 {
			t.Errorf("%s is %v, want []", name, member(v, name))
		}
	}
}

// Every command that ends has JSON for programs, and a list of nothing in it is a list.
func TestJSON(t *testing.T) {
	t.Parallel()
	r := &rig{dir: t.TempDir()}
	a := r.authority(t)
	r.Host = hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		admits(c, a)
		rules := c.Policy
		c.Admin.LoadPolicy = func(context.Context) (*connectplugin.Policy, error) { return rules, nil }
	})
	r.Authority = a
	for _, command := range []string{"services", "limits", "calls", "plugins"} {
		v := jsonOf(t, r.as(command)...)
		empty(t, v, "services", "watches", "grants", "revoked", "edges")
		for _, p := range member(v, "plugins").([]any) {
			empty(t, p, "services", "mayProvide")
		}
	}
	empty(t, jsonOf(t, r.as("policy", "check")...), "changes")
	if v := jsonOf(t, r.as("policy", "reload")...); v == nil {
		t.Error("policy reload is null")
	}
	id := r.startLogger(t).Client.RuntimeID()
	jsonOf(t, r.as("drain", id)...)
	jsonOf(t, r.as("revoke", "--instance", id)...)
	jsonOf(t, r.as("revoke", "logger")...)
	if got := member(jsonOf(t, r.as("plugins")...), "revoked"); len(got.([]any)) != 1 {
		t.Errorf("revoked: %v", got)
	}
	if got := member(jsonOf(t, r.as("readmit", "logger")...), "wasRevoked"); got != true {
		t.Errorf("readmit: %v", got)
	}
}

// So do those that need no host.
func TestJSON_WithoutHost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, own, none := filepath.Join(dir, "ca"), filepath.Join(dir, "own"), filepath.Join(dir, "none")
	if err := os.Mkdir(none, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := member(jsonOf(t, "ca", "new", "--dir", ca, "--trust-domain", "json.example"), "trustDomain"); got != "json.example" {
		t.Errorf("ca new: %v", got)
	}
	for _, args := range [][]string{{"ca", "write", "store", own, "--dir", ca}, {"ca", "renew", own, "--dir", ca}, {"ca", "list", own}} {
		if list, ok := jsonOf(t, args...).([]any); !ok || len(list) != 1 || member(list[0], "identity") != "spiffe://json.example/plugin/store" {
			t.Errorf("%q: %v", args, list)
		}
	}
	if list, ok := jsonOf(t, "ca", "list", none).([]any); !ok || len(list) != 0 {
		t.Errorf("ca list of nothing: %v", list)
	}
	if got := member(jsonOf(t, "audit", "key", dir), "publicKey"); got != filepath.Join(dir, "audit.pub") {
		t.Errorf("audit key: %v", got)
	}
	log := filepath.Join(dir, "audit.log")
	writeLog(t, dir, log)
	if got := member(jsonOf(t, "audit", "verify", log, "--key", filepath.Join(dir, "audit.pub")), "Events"); got != float64(3) {
		t.Errorf("audit verify: %v", got)
	}
}

// Each shell that is installed takes its script of completion, and what that asks for is completed.
func TestCompletionInShells(t *testing.T) {
	t.Parallel()
	for shell, flag := range map[string]string{"bash": "-n", "zsh": "-n", "fish": "--no-execute"} {
		program, err := exec.LookPath(shell)
		if err != nil {
			t.Logf("%s is not installed here", shell)
			continue
		}
		script, _ := run(t, 0, "completion", shell)
		file := filepath.Join(t.TempDir(), "completion")
		if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), program, flag, file).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v: %s", shell, err, out)
		}
	}
	for _, args := range [][]string{{"pl"}, {"policy", "ch"}, {"ca", "re"}} {
		out, _ := run(t, 0, append([]string{"__complete"}, args...)...)
		if first, _, _ := strings.Cut(out, "\t"); !strings.HasPrefix(first, args[len(args)-1]) {
			t.Errorf("%q is completed to %s", args, out)
		}
	}
}

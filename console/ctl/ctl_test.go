package ctl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/console/ctl"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

func TestMain(m *testing.M) { hosttest.Main(m) }

// buffer is written and read at the same time.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends.
func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// run runs the command and demands an exit code.
func run(t *testing.T, code int, args ...string) (out, errs string) {
	t.Helper()
	var o, e buffer
	if got := ctl.Run(t.Context(), args, ctl.Streams{Out: &o, Err: &e}); got != code {
		t.Fatalf("connectpluginctl %q: exit %d, want %d\n%s%s", args, got, code, o.String(), e.String())
	}
	return o.String(), e.String()
}

// rig is a host with an operator who has what `ca` wrote.
type rig struct {
	*hosttest.Host

	dir string
}

// as are the flags of an operator.
func (r *rig) as(args ...string) []string {
	return append(args, "--host", r.URL, "--credentials", filepath.Join(r.dir, "operator"), "--self-id", "operator")
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{dir: t.TempDir()}
	a := r.authority(t)
	r.Host = hosttest.Start(t, func(c *connectplugin.ServeConfig) { admits(c, a) })
	r.Authority = a
	return r
}

// authority makes an authority and the credentials of an operator, as operators do.
func (r *rig) authority(t *testing.T) *connectplugin.Authority {
	t.Helper()
	ca := filepath.Join(r.dir, "ca")
	run(t, 0, "ca", "new", "--dir", ca, "--trust-domain", "ctl.example")
	out, _ := run(t, 0, "ca", "write", "operator", filepath.Join(r.dir, "operator"), "--dir", ca)
	if !strings.Contains(out, "spiffe://ctl.example/plugin/operator") {
		t.Fatalf("ca write: %s", out)
	}
	a, err := connectplugin.LoadAuthority(connectplugin.AuthorityConfig{Dir: ca})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// admits makes a host one that an operator of an authority looks at.
func admits(c *connectplugin.ServeConfig, a *connectplugin.Authority) {
	c.Authority, c.Admin = a, &connectplugin.AdminConfig{}
	c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
		"operator": {HostPlugins: []string{connectplugin.AdminRead, connectplugin.AdminChange}},
		"logger":   hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = []string{"logger"} }),
		"api":      hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires = []string{"logger"} }),
	}}
}

func (r *rig) startLogger(t *testing.T) *hosttest.Plugin {
	t.Helper()
	return r.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{hosttest.LoggerService(&hosttest.RecordingLogger{})}
	})
}

// What the host holds is a table for people and JSON for programs.
func TestLook(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	logger := r.startLogger(t)
	for command, want := range map[string][]string{
		"plugins":  {"PLUGIN", "logger", logger.Client.RuntimeID(), "secret+certificate", "127.0.0.1"},
		"services": {"TYPE", "logger", logger.Client.RuntimeID(), "1.0.0"},
		"limits":   {"MaxIdentities", "100000", "Admin.Followers"},
		"calls":    {"no calls yet"},
		"plugins -o wide": {
			"MAY PROVIDE", "spiffe://ctl.example/plugin/logger", connectplugin.AdminChange + "," + connectplugin.AdminRead, "https://127.0.0.1:",
			"ENDPOINT", "REASON",
		},
	} {
		command := strings.Fields(command)
		out, _ := run(t, 0, r.as(command...)...)
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s has no %q:\n%s", command, w, out)
			}
		}
		if strings.Contains(out, "\x1b") {
			t.Errorf("%s is coloured though nobody looks: %q", command, out)
		}
		out, _ = run(t, 0, r.as(command[0], "-o", "json")...)
		var snapshot struct {
			Plugins []struct{ SelfID string }
		}
		if err := json.Unmarshal([]byte(out), &snapshot); err != nil || len(snapshot.Plugins) != 2 {
			t.Errorf("%s -o json: %v, %s", command, err, out)
		}
	}
}

// What is changed happens, and the identity of the operator does not stay.
func TestChange(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	logger := r.startLogger(t)
	out, _ := run(t, 0, r.as("drain", logger.Client.RuntimeID())...)
	if !strings.Contains(out, "is drained") {
		t.Errorf("drain: %s", out)
	}
	if out, _ = run(t, 0, r.as("plugins", "-o", "wide")...); !strings.Contains(out, "drained: it provides nothing") {
		t.Errorf("plugins after drain: %s", out)
	}
	run(t, 0, r.as("revoke", "--instance", logger.Client.RuntimeID())...) // which brings it back
	hosttest.Eventually(t, "it provides again", func() bool {
		return slices.ContainsFunc(r.Plugins(), func(p connectplugin.PluginStatus) bool {
			return p.SelfID == "logger" && len(p.Services) == 1 && p.Reason == ""
		})
	})
	if _, errs := run(t, 1, r.as("revoke", "operator")...); !strings.Contains(errs, "your own self id") {
		t.Errorf("an operator revokes itself: %s", errs)
	}
	run(t, 0, r.as("revoke", "logger")...)
	for _, p := range r.Plugins() {
		t.Errorf("%s is there after it was revoked and the operator left", p.SelfID)
	}
	out, _ = run(t, 0, r.as("readmit", "logger")...)
	if !strings.Contains(out, "may come again") || !strings.Contains(out, "`connectpluginctl replace logger`") {
		t.Errorf("readmit: %s", out)
	}
	r.Enrol(t, "api", nil)
	if out, _ := run(t, 0, r.as("revoke", "nobody")...); !strings.Contains(out, "no plugin of that name is there, only api; the name stays out") {
		t.Errorf("revoke of a name that nobody has: %s", out)
	}
	_, errs := run(t, 1, r.as("revoke", "--instance", "nobody")...)
	if !strings.Contains(errs, "not_found") {
		t.Errorf("revoke of nobody: %s", errs)
	}
	if _, errs = run(t, 1, append(r.as("plugins"), "--host", r.URL+"/elsewhere")...); !strings.Contains(errs, "No host answers there") {
		t.Errorf("another path: %s", errs)
	}
	for flag, value := range map[string]string{"--allow": "spiffe://a/plugin/b", "--listen": "0.0.0.0:0"} {
		if _, errs = run(t, 2, append(r.as("page"), flag, value)...); !strings.Contains(errs, "--tls") {
			t.Errorf("page %s: %s", flag, errs)
		}
	}
	for want, args := range map[string][]string{
		"add --name (":           {"--tls", "--listen", "0.0.0.0:0"},
		"add --tls and --name (": {"--listen", "0.0.0.0:0"},
		"--listen nope is":       {"--listen", "nope"},
		"--listen :70000 is":     {"--listen", ":70000"},
	} {
		if _, errs = run(t, 2, append(r.as("page"), args...)...); !strings.Contains(errs, want) {
			t.Errorf("page %s: %s", args, errs)
		}
	}
	r.RevokeSelf("operator")
	if _, errs = run(t, 1, r.as("plugins")...); !strings.Contains(errs, "it was revoked") || strings.Contains(errs, "HostPlugins") {
		t.Errorf("a revoked operator is told: %s", errs)
	}
	r.Readmit("operator")
	for _, command := range []string{"reload", "check"} {
		if _, errs = run(t, 1, r.as("policy", command)...); !strings.Contains(errs, "LoadPolicy") {
			t.Errorf("policy %s: %s", command, errs)
		}
	}
	r.Launcher()
	for name, want := range map[string]string{"nosuch": "PluginLauncher.Configure", "operator": "did not launch it"} {
		if _, errs = run(t, 1, r.as("replace", name)...); !strings.Contains(errs, want) {
			t.Errorf("replace %s: %s", name, errs)
		}
	}
}

// What follows the host shows what happens, and ends without an error.
func TestFollow(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	var watched, tailed, errs buffer
	codes := make(chan int, 2)
	go func() {
		codes <- ctl.Run(ctx, r.as("watch", "--every", "200ms"), ctl.Streams{Out: &watched, Err: &errs})
	}()
	go func() { codes <- ctl.Run(ctx, r.as("tail", "-o", "json"), ctl.Streams{Out: &tailed, Err: &errs}) }()
	hosttest.Eventually(t, "both follow", func() bool {
		return strings.Contains(watched.String(), "+ operator-") && strings.Contains(tailed.String(), `"issued"`)
	})
	logger := r.startLogger(t)
	id := logger.Client.RuntimeID()
	hosttest.Eventually(t, "the plugin comes", func() bool {
		return strings.Contains(watched.String(), id) && strings.Contains(tailed.String(), id)
	})
	logger.Stop(t)
	hosttest.Eventually(t, "and goes", func() bool { return strings.Contains(watched.String(), "- "+id) })
	cancel()
	for range 2 {
		if code := <-codes; code != 0 {
			t.Errorf("exit %d: %s", code, errs.String())
		}
	}
}

// A policy is looked at before it is in force. Its secrets do not leave the machine.
func TestPolicyCheck(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.startLogger(t)
	file := filepath.Join(r.dir, "policy.json")
	for _, test := range []struct {
		name, text string
		code       int
		want       string
	}{
		{"the same", `{"Plugins":{"operator":{"HostPlugins":["` + connectplugin.AdminRead + `","` + connectplugin.AdminChange + `"]},
			"logger":{"Provides":["logger"],"Secret":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=","AllowOwnAddress":true}}}`, 0, "nothing would change"},
		{"less", `{"Plugins":{"logger":{"Secret":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}}}`, 0, "loses its registration"},
		{"a field that is none", `{"Plugin":{}}`, 3, "unknown field"},
		{"invalid", `{"Idempotent":["x"]}`, 3, "no procedure"},
		{"two", `{}{}`, 3, "follows"},
		{"none", " null\n", 3, "write {}"},
		{"a short secret", `{"Plugins":{"logger":{"Secret":"YWJj"}}}`, 3, `Plugins["logger"].Secret has 3 bytes`},
		{"a secret of nobody", `{"Default":{"Secret":""}}`, 3, "Default.Secret has 0 bytes"},
		{"a secret as it is", `{"Plugins":{"logger":{"Secret":"a secret as it is"}}}`, 3, `Plugins["logger"].Secret`},
		{"the name of a constant", `{"Plugins":{"operator":{"HostPlugins":["connectplugin.AdminRead"]}}}`, 3, connectplugin.AdminRead},
		{"fewer than none", `{"Plugins":{"logger":{"MaxInstances":-1}}}`, 3, `Plugins["logger"].MaxInstances is negative`},
		{"more than there can be", `{"Default":{"MaxInstances":4294967297}}`, 3, "Default.MaxInstances is too large"},
		{"nothing", "\n", 3, "is empty"},
		{"a plugin twice", "{\"plugins\":{\"logger\":{},\n\"logger\":{}}}", 3, `policy.json:2: "logger" is there twice`},
		{"two names that differ in case", `{"plugins":{"logger":{},"Logger":{}}}`, 0, "ends"},
		{"a field twice", `{"Plugins":{"logger":{"Provides":["a"],"provides":["b"]}}}`, 3, `policy.json:1: "provides" is there twice`},
		{"a field twice at the top", "{\"Plugins\":{},\n\n\"plugins\":{}}", 3, `policy.json:3: "plugins" is there twice`},
		{"no JSON", "{\"Plugins\":{\n\"logger\":{]}}", 3, "policy.json:2: invalid character"},
		{"the end is missing", "{\"Plugins\":{\n\"logger\":{", 3, "policy.json:2: unexpected EOF"},
		{"a field of another kind", "{\"Plugins\":{\n\"logger\":{\"Provides\":\"a\"}}}", 3, "policy.json:2: json: cannot unmarshal"},
		{"a field that is none in a line", "{\"Plugins\":{\n\"logger\":{\"Provide\":[]}}}", 3, "policy.json:2: json: unknown field"},
		{"one endpoint for two", `{"Plugins":{"logger":{"Endpoint":"https://127.0.0.1:1"},"b":{"Endpoint":"https://127.0.0.1:1/"}}}`, 0, "have one Endpoint"},
		{"a type that nobody provides", `{"AllowMultiple":["loger"],"Plugins":{"logger":{"Provides":["logger"]}}}`, 0, `AllowMultiple[0] is "loger"`},
		{"one that is misspelt", `{"Default":{"Provides":["kv"]},"Plugins":{"a":{"Requires":["kv","lgoger"]}}}`, 0, `Plugins["a"].Requires[1] is "lgoger"`},
		{"a port that is none", `{"Plugins":{"logger":{"Endpoint":"https://127.0.0.1:99999"}}}`, 3, `has port "99999"`},
		{"an editor's mark", "\xef\xbb\xbf{}", 3, "policy.json: it begins with a byte order mark (EF BB BF, of UTF-8)"},
		{"a shell's mark", "\xff\xfe{\x00}\x00", 3, "policy.json: it begins with a byte order mark (FF FE, of UTF-16)"},
		{"no type", `{"AllowMultiple":["a b"]}`, 3, "AllowMultiple[0]"},
		{"plaintext", `{"Plugins":{"logger":{"Endpoint":"http://127.0.0.1:1"}}}`, 3, "Endpoint"},
	} {
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, errs := run(t, test.code, r.as("policy", "check", file)...)
		if !strings.Contains(out+errs, test.want) {
			t.Errorf("%s: %s%s", test.name, out, errs)
		}
		out, errs = run(t, test.code, "policy", "check", "--offline", file) // where no host is
		holds := strings.Contains(out, "a host would take it") && (errs == "" || strings.Contains(errs, test.want))
		if test.code == 0 && !holds || test.code != 0 && !strings.Contains(errs, test.want) {
			t.Errorf("%s, offline: %s%s", test.name, out, errs)
		}
	}
	if err := os.WriteFile(file, []byte(`{"Plugins":{"a":{},"b":{}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _ := run(t, 0, "policy", "check", "--offline", file, "-o", "json"); out != "{\"plugins\":2}\n" {
		t.Errorf("offline, as JSON: %s", out)
	}
	if _, errs := run(t, 2, "policy", "check", "--offline"); !strings.Contains(errs, "FILE") {
		t.Errorf("offline, without a file: %s", errs)
	}
}

// A log that holds is said to, and one that does not is named and has an exit code of its own.
func TestAudit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	run(t, 0, "audit", "key", dir)
	if err := os.Remove(filepath.Join(dir, "audit.pub")); err != nil {
		t.Fatal(err)
	}
	run(t, 1, "audit", "key", dir) // never over another
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "audit.pub"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, 1, "audit", "key", dir) // nor beside the half of another
	if _, err := os.Stat(filepath.Join(dir, "audit.key")); err == nil {
		t.Error("a key that fits no audit.pub was left")
	}
	dir = t.TempDir()
	run(t, 0, "audit", "key", dir)
	log := filepath.Join(dir, "audit.log")
	if _, errs := run(t, 2, "audit", "verify", log); !strings.Contains(errs, "--key is missing") {
		t.Error(errs)
	}
	_, errs := run(t, 1, "audit", "verify", log, "--key", filepath.Join(dir, "audit.pub"))
	if !strings.Contains(errs, "no such file") {
		t.Error(errs)
	}
	writeLog(t, dir, log)
	out, _ := run(t, 0, "audit", "verify", log, "--key", filepath.Join(dir, "audit.pub"))
	if !strings.Contains(out, "the log holds: lines 1 to 5, 3 events") || !strings.Contains(out, "cut off") {
		t.Error(out)
	}
	for text, want := range map[string]string{`{"Plugins": {}}`: "which has seq, prev, time and signature", "kept": "is no checkpoint"} {
		wrong := filepath.Join(dir, "wrong.json")
		if err := os.WriteFile(wrong, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, errs = run(t, 1, "audit", "verify", log, "--key", filepath.Join(dir, "audit.pub"), "--checkpoint", wrong)
		if !strings.Contains(errs, "--checkpoint "+wrong) || !strings.Contains(errs, want) {
			t.Errorf("a file that is no checkpoint: %s", errs)
		}
	}
	out, _ = run(t, 0, "audit", "verify", log, "--key", filepath.Join(dir, "audit.pub"), "--checkpoint", filepath.Join(dir, "kept.json"))
	if strings.Contains(out, "cut off") {
		t.Error(out)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log, bytes.Replace(text, []byte("denied"), []byte("issued"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	_, errs = run(t, 3, "audit", "verify", log, "--key", filepath.Join(dir, "audit.pub"))
	if !strings.Contains(errs, "audit.log:2: was changed") {
		t.Error(errs)
	}
}

// Credentials are listed and renewed under the same key and names.
func TestCA(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, own := filepath.Join(dir, "ca"), filepath.Join(dir, "own")
	run(t, 0, "ca", "new", "--dir", ca)
	run(t, 0, "ca", "write", "store", own, "--dir", ca, "--name", "store.example,192.0.2.1")
	before, err := os.ReadFile(filepath.Join(own, "tls.crt"))
	if err != nil {
		t.Fatal(err)
	}
	out, _ := run(t, 0, "ca", "renew", own, "--dir", ca)
	after, err := os.ReadFile(filepath.Join(own, "tls.crt"))
	if err != nil || bytes.Equal(before, after) || !strings.Contains(out, "/plugin/store") {
		t.Errorf("renew: %v, %s", err, out)
	}
	out, _ = run(t, 0, "ca", "list", dir, "-o", "json")
	var list []struct{ Directory, Identity string }
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 || !strings.HasSuffix(list[0].Identity, "/plugin/store") {
		t.Errorf("list: %v, %s", err, out)
	}
	run(t, 2, "ca", "new")
	steering := filepath.Join(dir, "steering"+"\x1b[31m")
	run(t, 0, "ca", "write", "store", steering, "--dir", ca)
	if out, _ := run(t, 0, "ca", "list", steering); strings.Contains(out, "\x1b") {
		t.Errorf("a name steers the terminal: %q", out)
	}
	other := filepath.Join(dir, "other")
	run(t, 0, "ca", "new", "--dir", other)
	if _, errs := run(t, 1, "ca", "renew", own, "--dir", other); !strings.Contains(errs, "does not certify") {
		t.Errorf("renew by another authority: %s", errs)
	}
}

// Whoever may write into the directory of its credentials has its key certified under its own name alone.
func TestCA_AnothersCertificateBesideAKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, operator, own := filepath.Join(dir, "ca"), filepath.Join(dir, "operator"), filepath.Join(dir, "own")
	run(t, 0, "ca", "new", "--dir", ca)
	run(t, 0, "ca", "write", "operator", operator, "--dir", ca)
	run(t, 0, "ca", "write", "store", own, "--dir", ca)
	shown, err := os.ReadFile(filepath.Join(operator, "tls.crt")) // as a server shows it to everybody
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(own, "tls.crt"), shown, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs := run(t, 1, "ca", "renew", own, "--dir", ca); !strings.Contains(errs, "does not fit tls.crt beside it") {
		t.Errorf("renewed: %s", errs)
	}
	if after, err := os.ReadFile(filepath.Join(own, "tls.crt")); err != nil || !bytes.Equal(shown, after) {
		t.Errorf("the key of store was certified as operator (%v)", err)
	}
	run(t, 0, "ca", "renew", operator, "--dir", ca)
}

// What is typed wrongly is explained, with an exit code of its own.
func TestUsage(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing")
	marked := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(marked, []byte("\xef\xbb\xbfsixteen bytes or more"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"plugin"}, 2, "unknown command"},
		{[]string{"plugins", "--color"}, 2, "unknown flag"},
		{[]string{"plugins", "-o", "yaml"}, 2, "wide or json"},
		{[]string{"page", "--tls", "--credentials", ""}, 2, "--credentials is missing"},
		{[]string{"tail", "--all"}, 2, "unknown flag"},
		{[]string{"plugins", "extra"}, 2, "takes no arguments"},
		{[]string{"policy", "chek"}, 2, `no command "chek"`},
		{[]string{"ca", "lst", "."}, 2, `no command "lst"`},
		{[]string{"audit", "kye"}, 2, `no command "kye"`},
		{[]string{"policy", "--help"}, 0, ""},
		{[]string{"plugns"}, 2, "Did you mean this?\n plugins"},
		{[]string{"--version"}, 0, ""},
		{[]string{"plugins", "--host", "http://127.0.0.1:1"}, 2, "--insecure"},
		{[]string{"plugins", "--host", "https://127.0.0.1:1", "--insecure"}, 2, "--insecure speaks plaintext"},
		{[]string{"plugins", "--host", "http://127.0.0.1:1", "--insecure", "--secret-file", os.DevNull}, 1, "is empty"},
		{[]string{"plugins", "--host", "http://127.0.0.1:1", "--insecure", "--secret-file", marked}, 1, "--secret-file " + marked + ": it begins with a byte order mark"},
		{[]string{"plugins", "--host", "127.0.0.1:18743"}, 2, "--host 127.0.0.1:18743 is no URL of a host: write --host https://"},
		{[]string{"ca", "write", "api", missing, "--dir", missing, "--ttl", "-1h"}, 2, "--ttl -1h0m0s is negative"},
		{[]string{"audit", "verify", "log", "--from", "-1"}, 2, "--from -1: write a whole number that is not negative"},
		{[]string{"plugins", "--timeout", "5"}, 2, "--timeout 5: write a time such as 30s"},
		{nil, 2, "Available Commands:"},
		{[]string{"-o", "json"}, 2, "Available Commands:"},
		{[]string{"policy"}, 2, "takes a command, check or reload"},
		{[]string{"audit"}, 2, "takes a command, key or verify"},
		{[]string{"ca"}, 2, "takes a command, list or new or renew or write"},
		{[]string{"revoke"}, 2, "SELF_ID"},
		{[]string{"plugins", "--credentials", ""}, 2, "--credentials is missing"},
		{[]string{"plugins", "--credentials", t.TempDir()}, 1, "ca renew"},
		{[]string{"audit", "key", missing}, 1, "there is no directory " + missing + "\n"},
		{[]string{"ca", "list", missing}, 1, "there is no directory " + missing + "\n"},
		{[]string{"ca", "list", os.DevNull}, 1, "is no directory"},
		{[]string{"help"}, 0, ""},
		{[]string{"help", "policy", "check"}, 0, ""},
		{[]string{"help", "nothing"}, 2, `no command "nothing"`},
		{[]string{"help", "policy", "nothing"}, 2, `no command "policy nothing"`},
		{[]string{"completion"}, 2, "takes a command, bash or"},
		{[]string{"completion", "tcsh"}, 2, `no command "tcsh"`},
		{[]string{"ca", "new", "--dir", missing, "--ttl", "1h"}, 2, "--ttl is how long written credentials"},
		{[]string{"completion", "bash"}, 0, ""},
	} {
		_, errs := run(t, test.code, test.args...)
		if !strings.Contains(errs, test.want) {
			t.Errorf("%q: %s", test.args, errs)
		}
	}
	if out, _ := run(t, 0, "--help"); !strings.Contains(out, "2  the command line was wrong") {
		t.Errorf("the help has no exit codes:\n%s", out)
	}
}

package ctl_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// What the host would load is looked at where no file is named: it may have what the file has not.
func TestPolicyCheck_AsTheHostLoadsIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.startLogger(t)
	rules := hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = []string{"logger"} })
	loaded := &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
		"operator": {HostPlugins: []string{connectplugin.AdminRead, connectplugin.AdminChange}}, "logger": rules,
	}}
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Authority, c.Policy = r.Authority, loaded
		c.Admin = &connectplugin.AdminConfig{LoadPolicy: func(context.Context) (*connectplugin.Policy, error) { return loaded, nil }}
	})
	there := &rig{Host: h, dir: r.dir}
	there.Authority = r.Authority
	there.startLogger(t)
	file := filepath.Join(r.dir, "without.json")
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _ := run(t, 0, there.as("policy", "check", file)...); !regexp.MustCompile(`ends .*the policy does not name it`).MatchString(out) || !strings.Contains(out, "the file alone") {
		t.Errorf("of the file: %s", out)
	}
	if out, _ := run(t, 0, there.as("policy", "check")...); !strings.Contains(out, "nothing would change") {
		t.Errorf("of what the host loads: %s", out)
	}
}

// What the host cannot load does not hold either, and whoever has credentials need not say whose they are.
func TestPolicyCheck_OfWhatTheHostCannotLoad(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		admits(c, r.Authority)
		c.Policy.Plugins["eve"] = c.Policy.Plugins["operator"]
		c.Admin = &connectplugin.AdminConfig{LoadPolicy: func(context.Context) (*connectplugin.Policy, error) { return nil, os.ErrNotExist }}
	})
	eve := filepath.Join(r.dir, "eve")
	run(t, 0, "ca", "write", "eve", eve, "--dir", filepath.Join(r.dir, "ca"))
	if _, errs := run(t, 3, "policy", "check", "--host", h.URL, "--credentials", eve); !strings.Contains(errs, "the policy was not loaded") {
		t.Errorf("what does not load: %s", errs)
	}
	if out, _ := run(t, 0, "plugins", "--host", h.URL, "--credentials", eve); !strings.Contains(out, "eve") || strings.Contains(out, "operator") {
		t.Errorf("who looks: %s", out)
	}
}

// Credentials last as long as somebody says.
func TestCA_TTL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, cred := filepath.Join(dir, "ca"), filepath.Join(dir, "api")
	run(t, 0, "ca", "new", "--dir", ca)
	if _, errs := run(t, 1, "ca", "new", "--dir", ca); !strings.Contains(errs, "holds an authority already") {
		t.Errorf("again: %s", errs)
	}
	if out, _ := run(t, 0, "ca", "write", "api", cred, "--dir", ca, "--ttl", "720h"); !strings.Contains(out, "29d") {
		t.Errorf("for 30 days: %s", out)
	}
	if err := os.WriteFile(filepath.Join(cred, "tls.crt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs := run(t, 1, "ca", "renew", cred, "--dir", ca); !strings.Contains(errs, cred) || !strings.Contains(errs, "remove it, and write") {
		t.Errorf("renewal of a damaged one: %s", errs)
	}
	if _, errs := run(t, 1, "ca", "write", "api", cred, "--dir", ca); !strings.Contains(errs, "remove "+filepath.Join(cred, "tls.crt")) {
		t.Errorf("a damaged one is written: %s", errs)
	}
	if err := os.Remove(filepath.Join(cred, "tls.crt")); err != nil {
		t.Fatal(err)
	}
	run(t, 0, "ca", "write", "api", cred, "--dir", ca)
	if err := os.Remove(filepath.Join(cred, "tls.key")); err != nil {
		t.Fatal(err)
	}
	if _, errs := run(t, 1, "ca", "renew", cred, "--dir", ca); !strings.Contains(errs, "tls.key is missing") {
		t.Errorf("renewal without a key: %s", errs)
	}
	if err := os.Remove(filepath.Join(ca, "authority.crt")); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"ca", "new"}, {"ca", "write", "api", cred}} {
		if _, errs := run(t, 1, append(args, "--dir", ca)...); !strings.Contains(errs, "authority.crt, which belongs to it, is missing") {
			t.Errorf("%q of half an authority: %s", args, errs)
		}
	}
}

// What a host refuses of the policy that it reloads, it says to whoever had it do so.
func TestPolicyReload_SaysWhy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		admits(c, r.Authority)
		c.Admin = &connectplugin.AdminConfig{LoadPolicy: func(context.Context) (*connectplugin.Policy, error) {
			return &connectplugin.Policy{AllowMultiple: []string{""}}, nil
		}}
	})
	there := &rig{Host: h, dir: r.dir}
	if _, errs := run(t, 1, there.as("policy", "reload")...); !strings.Contains(errs, "Policy.AllowMultiple[0]") {
		t.Errorf("reload: %s", errs)
	}
	if _, errs := run(t, 3, there.as("policy", "check")...); !strings.Contains(errs, "Policy.AllowMultiple[0]") {
		t.Errorf("check: %s", errs)
	}
}

// Whoever asks a host that is away, that another authority certifies, that offers nothing to operators, or is none, learns
// in words what it is, and programs by the exit code.
func TestHostThatIsNotThere(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stranger := hosttest.Start(t, nil) // of another authority
	old := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		admits(c, r.Authority)
		c.Admin = nil
	})
	gone := hosttest.FreeAddr(t)
	for _, command := range []string{"plugins", "plugins -o json", "watch", "revoke api", "policy check"} {
		for name, test := range map[string]struct{ host, want string }{
			"away":              {"https://" + gone, "Is the host running, and is --host its address?"},
			"another authority": {stranger.URL, "another host answers there"},
			"without operators": {old.URL, "ServeConfig.Admin has to be set"},
		} {
			if command == "watch" && name == "away" {
				continue // it waits for the host, as one that follows does
			}
			out, errs := run(t, 1, append(r.as(strings.Fields(command)...), "--host", test.host)...)
			if !strings.Contains(errs, test.want) || out != "" {
				t.Errorf("%s, host %s: %q and %s", command, name, out, errs)
			}
		}
	}
}

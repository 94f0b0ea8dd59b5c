//go:build unix

package urlshortener_test

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/examples/internal/process"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/stack"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

const wait = 30 * time.Second

// newStack makes a stack with an authority and credentials, and nothing that runs.
// At the end of the test everything that runs must end well.
func newStack(t *testing.T) *stack.Stack {
	t.Helper()

	s := &stack.Stack{Dir: t.TempDir(), Bin: bin}
	if err := s.Enrol(t.Context()); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}

		if n := s.Left(); n > 0 {
			t.Errorf("%d processes are left", n)
		}
	})

	return s
}

// startAll starts the host and plugins.
func startAll(t *testing.T, s *stack.Stack, plugins ...string) {
	t.Helper()

	if err := s.StartHost(t.Context()); err != nil {
		t.Fatal(err)
	}

	for _, name := range plugins {
		if err := s.StartPlugin(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}

// editPolicy changes the policy of one plugin; nil removes it.
func editPolicy(t *testing.T, s *stack.Stack, name string, plugin map[string]any) {
	t.Helper()

	var policy struct {
		Plugins map[string]map[string]any `json:"plugins"`
	}

	data, err := os.ReadFile(s.PolicyFile())
	if err == nil {
		err = json.Unmarshal(data, &policy)
	}

	if err != nil {
		t.Fatal(err)
	}

	if policy.Plugins[name] = plugin; plugin == nil {
		delete(policy.Plugins, name)
	}

	if data, err = json.Marshal(policy); err == nil {
		err = os.WriteFile(s.PolicyFile(), data, 0o600)
	}

	if err != nil {
		t.Fatal(err)
	}
}

// refuses starts a program that must end with code 1 and say what is wanted.
func refuses(t *testing.T, dir, program string, args []string, want ...string) {
	t.Helper()

	p, err := process.Start(dir, filepath.Join(bin, program), args...)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()

	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()

	code, err := p.Wait(ctx)
	if err != nil || code != 1 {
		t.Errorf("%s: exit code %d, %v; want 1", program, code, err)
	}

	t.Logf("%s %q says:\n%s", program, args, p.Output())

	for _, text := range want {
		if !strings.Contains(p.Output(), text) {
			t.Errorf("%s does not say %q", program, text)
		}
	}
}

// hostSays waits until the host has said something.
func hostSays(t *testing.T, s *stack.Stack, want string) {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()

	line, err := s.Processes["host"].Await(ctx, want)
	if err != nil {
		t.Error(err)
	}

	t.Log("host says:", line)
}

func TestHost_WithoutAuthority(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	refuses(t, dir, "host", []string{"-dir", dir, "-addr", "127.0.0.1:0"}, "no authority in "+dir, "enrol NAME")
}

func TestHost_AddressTaken(t *testing.T) {
	t.Parallel()

	s := newStack(t)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	addr := l.Addr().String()
	refuses(t, s.Dir, "host", []string{"-dir", s.Dir, "-policy", s.PolicyFile(), "-addr", addr}, addr+" is taken by another process", "-addr")
}

func TestHost_PolicyFileWrong(t *testing.T) {
	t.Parallel()

	for name, tt := range map[string]struct {
		plugin string
		policy map[string]any
		want   string
	}{
		"misspelt":      {"logger", map[string]any{"provide": []string{"logger"}}, `unknown field "provide"`},
		"no such type":  {"logger", map[string]any{"provides": []string{"log/ger"}}, `Policy.Plugins["logger"].Provides[0]`},
		"not enrolled":  {"stranger", map[string]any{}, `plugin "stranger" has no secret`},
		"no such shape": {"logger", map[string]any{"provides": "logger"}, "cannot unmarshal string"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := newStack(t)
			editPolicy(t, s, tt.plugin, tt.policy)
			refuses(t, s.Dir, "host", []string{"-dir", s.Dir, "-policy", s.PolicyFile(), "-addr", "127.0.0.1:0"}, tt.want)
		})
	}
}

// Of two policies in a file, as a bad merge leaves them, the second is not passed over.
func TestHost_TwoPoliciesInTheFile(t *testing.T) {
	t.Parallel()

	s := newStack(t)

	text, err := os.ReadFile(s.PolicyFile())
	if err == nil {
		err = os.WriteFile(s.PolicyFile(), append(text, "{}"...), 0o600)
	}

	if err != nil {
		t.Fatal(err)
	}

	refuses(t, s.Dir, "host", []string{"-dir", s.Dir, "-policy", s.PolicyFile(), "-addr", "127.0.0.1:0"}, "something follows the policy")
}

func TestHost_WithoutPolicy(t *testing.T) {
	t.Parallel()

	s := newStack(t)

	p, err := s.Start(t.Context(), "host", "listening on ", "-addr", "127.0.0.1:0", "-dir", s.Dir)
	if err != nil {
		t.Fatal(err)
	}

	line, err := p.Await(t.Context(), "listening on ")
	if err != nil {
		t.Fatal(err)
	}

	url := strings.TrimPrefix(line, "listening on ")

	hostSays(t, s, "no policy: no plugin is accepted until ServeConfig.Policy allows it")
	refuses(t, s.Dir, "logger", []string{"-host", url, "-dir", s.PluginDir("logger")},
		`the host does not accept self id "logger"`, "may not be in the host's policy", "the host's log says which")
	hostSays(t, s, "policy does not know this plugin")
}

func TestPlugin_WithoutCredentials(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	for _, program := range []string{"logger", "storage", "api", "shortener"} {
		refuses(t, dir, program, []string{"-dir", dir}, "no credentials in "+dir, "host enrol "+program)
	}
}

func TestPlugin_SecretOpenToOthers(t *testing.T) {
	t.Parallel()

	s := newStack(t)
	for _, name := range []string{"secret", "tls.key"} {
		path := filepath.Join(s.PluginDir("logger"), name)
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}

		refuses(t, s.Dir, "logger", []string{"-dir", s.PluginDir("logger")}, "chmod 0600", path)

		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPlugin_Refused(t *testing.T) {
	t.Parallel()

	for name, tt := range map[string]struct {
		prepare              func(t *testing.T, s *stack.Stack) // before the host starts
		spoil                func(t *testing.T, s *stack.Stack) // after
		plugin               string
		pluginSays, hostSays string
	}{
		"unknown to policy": {
			prepare: func(t *testing.T, s *stack.Stack) { t.Helper(); editPolicy(t, s, "logger", nil) },
			plugin:  "logger", pluginSays: `the host does not accept self id "logger"`, hostSays: "policy does not know this plugin",
		},
		"wrong secret": {
			spoil: func(t *testing.T, s *stack.Stack) {
				t.Helper()

				if err := os.WriteFile(filepath.Join(s.PluginDir("logger"), "secret"), []byte("another secret altogether\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			},
			plugin: "logger", pluginSays: "its secret or certificate is wrong", hostSays: "its secret differs from the host's",
		},
		"may not provide": {
			prepare: func(t *testing.T, s *stack.Stack) {
				t.Helper()
				editPolicy(t, s, "logger", map[string]any{"allowOwnAddress": true})
			},
			plugin: "logger", pluginSays: `registration refused: service "logger": the host's log says which right or endpoint is missing`,
			hostSays: `not allowed by policy: add \"logger\" to Policy.Plugins[\"logger\"].Provides`,
		},
		"may not be granted": {
			prepare: func(t *testing.T, s *stack.Stack) {
				t.Helper()
				editPolicy(t, s, "storage", map[string]any{"provides": []string{"storage"}, "allowOwnAddress": true})
			},
			plugin: "storage", pluginSays: `capability "logger"`, hostSays: "not allowed by policy",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := newStack(t)
			if tt.prepare != nil {
				tt.prepare(t, s)
			}

			startAll(t, s)

			if tt.spoil != nil {
				tt.spoil(t, s)
			}

			refuses(t, s.Dir, tt.plugin, []string{"-host", s.URL, "-dir", s.PluginDir(tt.plugin)}, tt.pluginSays)
			hostSays(t, s, tt.hostSays)
		})
	}
}

func TestPlugin_HostNotThereYet(t *testing.T) {
	t.Parallel()

	s := newStack(t)

	addr := hosttest.FreeAddr(t)

	logger, err := s.Start(t.Context(), "logger", "the host is not there yet; trying again", "-host", "https://"+addr, "-dir", s.PluginDir("logger"))
	if err != nil {
		t.Fatal(err)
	}

	s.Addr = addr
	startAll(t, s)

	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()

	for _, want := range []string{"connected to the host", "service registered"} {
		if _, err := logger.Await(ctx, want); err != nil {
			t.Error(err)
		}
	}

	t.Log(logger.Output())
}

func TestStorage_FileInUse(t *testing.T) {
	t.Parallel()

	s := newStack(t)
	startAll(t, s, "storage")
	refuses(t, s.Dir, "storage", []string{"-host", s.URL, "-dir", s.PluginDir("storage")}, "storage.db is in use by another process", "-file")
}

func TestShortener_FromTheShell(t *testing.T) {
	t.Parallel()

	s := newStack(t)
	flags := []string{"-dir", s.PluginDir("shortener"), "-host"}
	refuses(t, s.Dir, "shortener", append(flags, "https://127.0.0.1:1", "shorten", "https://example.com/"), "connection refused")
	startAll(t, s)

	flags = append(flags, s.URL)
	refuses(t, s.Dir, "shortener", append(flags, "shorten", "https://example.com/"), "no provider of the service is available")

	for _, name := range []string{"storage", "api"} { // no logger: api is degraded, and works
		if err := s.StartPlugin(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}

	refuses(t, s.Dir, "shortener", append(flags, "shorten", "example.com"), "must be absolute, and http or https")
	refuses(t, s.Dir, "shortener", append(flags, "resolve", "nothing2"), "no such code")
	refuses(t, s.Dir, "shortener", append(flags, "lengthen"), "write `shortener")

	const url = "https://пример.example/\u6771\u4eac?q=a+b%20c#ende"

	code, err := s.Shortener(t.Context(), "shorten", url)
	if err != nil {
		t.Fatal(err)
	}

	if got, err := s.Shortener(t.Context(), "resolve", code); err != nil || got != url {
		t.Errorf("resolve %s = %q, %v", code, got, err)
	}

	file := filepath.Join(s.Dir, "urls.txt")
	if err := os.WriteFile(file, []byte(strings.Join(sample(), "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	table, err := s.Shortener(t.Context(), "batch", file)
	if err != nil || !strings.Contains(table, "total") {
		t.Errorf("batch: %v\n%s", err, table)
	}

	hostSays(t, s, `msg="a plugin logs" plugin=storage`) // its own log stands in for the logger
}

func TestEnrol_FilesArePrivate(t *testing.T) {
	t.Parallel()

	s := newStack(t)

	private := 0
	err := filepath.WalkDir(s.Dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}

		info, err := entry.Info()
		if err != nil {
			return err
		}

		name := filepath.Base(path)
		secret := name == "secret" || strings.HasSuffix(name, ".key") || entry.IsDir() && path != s.Dir

		if secret {
			private++

			if info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
		}

		return nil
	})
	if err != nil || private < 2*len(stack.Plugins()) {
		t.Errorf("looked at %d files: %v", private, err)
	}
}

// Package goplugin_test runs plugins that hashicorp/go-plugin made, as they are, under a host
// of this library.
package goplugin_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

const (
	say        = "/bench.v1.Echo/Say"
	stream     = "/bench.v1.Echo/Stream"
	launchWait = time.Minute // a busy machine is no failure
)

type text = wrapperspb.StringValue

// programs are the same plugin, built against several versions of go-plugin.
var programs = map[string]func() (program, error){
	"1.8": sync.OnceValues(func() (program, error) { return build("go.mod") }),
	"1.7": sync.OnceValues(func() (program, error) { return build("goplugin17.mod") }),
	"1.6": sync.OnceValues(func() (program, error) { return build("goplugin16.mod") }),
}

type program struct{ path, checksum string }

// scratch is removed at the end.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "goplugin"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

func build(modfile string) (program, error) {
	out := filepath.Join(scratch, modfile)
	cmd := exec.Command("go", "build", "-modfile="+modfile, "-o", out, "./goplugin/plugin")
	cmd.Dir = ".."
	if said, err := cmd.CombinedOutput(); err != nil {
		return program{}, fmt.Errorf("build with %s: %w: %s", modfile, err, said)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		return program{}, fmt.Errorf("program: %w", err)
	}
	sum := sha256.Sum256(data)
	return program{path: out, checksum: hex.EncodeToString(sum[:])}, nil
}

func spec(t *testing.T, version string) connectplugin.PluginSpec {
	t.Helper()
	p, err := programs[version]()
	if err != nil {
		t.Fatal(err)
	}
	return connectplugin.PluginSpec{
		BinaryPath: p.path, Checksum: p.checksum, Provides: []string{"echo"}, ReadyTimeout: launchWait,
		GoPlugin: &connectplugin.GoPluginSpec{
			CookieKey: "BENCH_PLUGIN", CookieValue: "bench", Version: "1.2.3", Services: map[string]string{"echo": "bench.v1.Echo"},
		},
	}
}

func start(t *testing.T, edit func(*connectplugin.ServeConfig)) *hosttest.Host {
	t.Helper()
	return hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"echo": {Provides: []string{"echo"}}, "user": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires = []string{"echo"} }),
		}}
		if edit != nil {
			edit(c)
		}
	})
}

// launch starts the plugin and returns what calls it.
func launch(t *testing.T, h *hosttest.Host, sp connectplugin.PluginSpec) func(string) (string, error) {
	t.Helper()
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	url, client, err := h.Launcher().GetServiceClient("echo", "echo")
	if err != nil {
		t.Fatal(err)
	}
	return saying(t, client, url)
}

func saying(t *testing.T, client connect.HTTPClient, url string) func(string) (string, error) {
	t.Helper()
	c := connect.NewClient[text, text](client, url+say, connect.WithGRPC())
	return func(what string) (string, error) {
		resp, err := c.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String(what)))
		if err != nil {
			return "", err
		}
		return resp.Msg.GetValue(), nil
	}
}

// user is a plugin that calls others through the router.
func user(t *testing.T, h *hosttest.Host) (client connect.HTTPClient, url string) {
	t.Helper()
	c := h.Enrol(t, "user", hosttest.Requiring("echo"))
	conn, err := c.Service(t.Context(), "echo", ">=1.2")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn.HTTPClient(), conn.BaseURL()
}

func TestGoPluginIsCalledAsItIs(t *testing.T) {
	t.Parallel()
	for version := range programs {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			h := start(t, nil)
			own := launch(t, h, spec(t, version))
			client, url := user(t, h)
			for who, call := range map[string]func(string) (string, error){"the host": own, "a plugin": saying(t, client, url)} {
				if got, err := call("hello"); got != "hello" || err != nil {
					t.Errorf("%s: %q, %v", who, got, err)
				}
			}
			s := connect.NewClient[text, text](client, url+stream, connect.WithGRPC()).CallBidiStream(t.Context())
			for _, what := range []string{"one", "two"} {
				err := s.Send(wrapperspb.String(what))
				if err != nil {
					t.Fatal(err)
				}
				if m, err := s.Receive(); err != nil || m.GetValue() != what {
					t.Fatalf("stream: %v, %v", m, err)
				}
			}
			if err := errors.Join(s.CloseRequest(), s.CloseResponse()); err != nil {
				t.Errorf("end of the stream: %v", err)
			}
		})
	}
}

// What go-plugin itself serves stays with the host, and so does every other path.
func TestGoPluginOpensNothingButItsService(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	own := launch(t, h, spec(t, "1.8"))
	before, err := own("pid")
	if err != nil {
		t.Fatal(err)
	}
	client, url := user(t, h)
	hostURL, hostClient, err := h.Launcher().GetServiceClient("echo", "echo")
	if err != nil {
		t.Fatal(err)
	}
	for who, at := range map[string]struct {
		client connect.HTTPClient
		url    string
	}{"a plugin": {client, url}, "the host": {hostClient, hostURL}} {
		for _, path := range []string{
			"/plugin.GRPCController/Shutdown", "/plugin.GRPCStdio/StreamStdio", "/plugin.GRPCBroker/StartStream", "/grpc.health.v1.Health/Check",
			"/bench.v1.Echo/../plugin.GRPCController/Shutdown", "/bench.v1.Echo/%2e%2e/plugin.GRPCController/Shutdown",
			"//plugin.GRPCController/Shutdown", "/bench.v1.EchoX/Say", "/bench.v1.Echo/../../plugin.GRPCController/Shutdown",
		} {
			c := connect.NewClient[text, text](at.client, at.url+path, connect.WithGRPC())
			ctx, cancel := context.WithTimeout(t.Context(), launchWait)
			if _, err := c.CallUnary(ctx, connect.NewRequest(&text{})); err == nil || ctx.Err() != nil {
				t.Errorf("%s at %s: %v", who, path, err)
			}
			cancel()
		}
	}
	if after, err := own("pid"); err != nil || after != before {
		t.Errorf("the plugin was process %s, and is %s, %v", before, after, err)
	}
}

func TestGoPluginGetsOnlyWhatItNeeds(t *testing.T) {
	t.Setenv("GOPLUGIN_TEST_SECRET", "of the host alone")
	h := start(t, nil)
	sp := spec(t, "1.8")
	sp.Env = []string{"ADDED=yes"}
	env, err := launch(t, h, sp)("env")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	dir := ""
	for line := range strings.SplitSeq(env, "\n") {
		if name, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "-") {
			names = append(names, name)
			if name == "PLUGIN_UNIX_SOCKET_DIR" {
				dir = value
			}
		}
	}
	slices.Sort(names)
	names = slices.DeleteFunc(names, func(n string) bool { return strings.Contains(n, "/") || strings.Contains(n, "+") }) // lines of the certificate
	if want := []string{"ADDED", "BENCH_PLUGIN", "PLUGIN_CLIENT_CERT", "PLUGIN_PROTOCOL_VERSIONS", "PLUGIN_UNIX_SOCKET_DIR"}; !containsAll(names, want) || strings.Contains(env, "GOPLUGIN_TEST_SECRET") {
		t.Errorf("it inherits %q", names)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory of the socket: %v, %v", info, err)
	}
	if err := h.Launcher().Stop(t.Context(), "echo"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
}

func containsAll(names, want []string) bool {
	return !slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(names, w) })
}

// The plugin refuses what is above its own limit, and goes on.
func TestGoPluginTakesNoMoreThanItsLimit(t *testing.T) {
	t.Parallel()
	const limit = 4 << 20
	h := start(t, nil)
	own := launch(t, h, spec(t, "1.8"))
	client, url := user(t, h)
	for who, call := range map[string]func(string) (string, error){"the host": own, "a plugin": saying(t, client, url)} {
		if _, err := call(strings.Repeat("x", limit+1)); connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("%s: more than its limit: %v", who, err)
		}
		if got, err := call(strings.Repeat("x", limit-100)); len(got) != limit-100 || err != nil {
			t.Errorf("%s: within its limit: %d bytes, %v", who, len(got), err)
		}
	}
}

// Shutdown alone would cut off the calls in flight: they finish first, and no new ones come.
func TestGoPluginStopsAfterItsCalls(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	sp := spec(t, "1.8")
	sp.StopGrace = launchWait
	exits := make(chan connectplugin.PluginExit, 1)
	sp.OnExit = func(e connectplugin.PluginExit) { exits <- e }
	call := launch(t, h, sp)
	gate := filepath.Join(t.TempDir(), "gate")
	type result struct {
		got string
		err error
	}
	inFlight, stopped := make(chan result, 1), make(chan error, 1)
	go func() {
		got, err := call("until " + gate)
		inFlight <- result{got, err}
	}()
	hosttest.Eventually(t, "a call is in flight", func() bool { return h.Plugins()[0].InFlight == 1 })
	go func() { stopped <- h.Launcher().Stop(t.Context(), "echo") }()
	hosttest.Eventually(t, "no new call comes through", func() bool { _, err := call("hello"); return err != nil })
	if len(stopped) != 0 || len(inFlight) != 0 {
		t.Error("it did not wait for the call")
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := hosttest.Arrival(t, inFlight); r.err != nil || r.got != "until "+gate {
		t.Errorf("the call in flight: %q, %v", r.got, r.err)
	}
	if err := hosttest.Arrival(t, stopped); err != nil {
		t.Error(err)
	}
	if e := hosttest.Arrival(t, exits); !e.Requested || e.ExitCode != 0 {
		t.Errorf("exit %+v", e)
	}
}

// A plugin that prints stands still if nobody reads it.
func TestGoPluginMayPrint(t *testing.T) {
	t.Parallel()
	for version := range programs {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			var log hosttest.Buffer
			h := start(t, func(c *connectplugin.ServeConfig) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			call := launch(t, h, spec(t, version))
			for _, what := range []string{"print heard of it", "flood ", "flood ", "hello"} {
				if got, err := call(what); got != what || err != nil {
					t.Fatalf("%s: %q, %v", what, got, err)
				}
			}
			hosttest.Eventually(t, "it is in the log", func() bool { return strings.Contains(log.String(), "heard of it") })
		})
	}
}

// A plugin that calls its host back over go-plugin's broker, or wants to be called back, is told so
// in go-plugin's own time, and goes on; whoever looks after the host reads of it.
func TestGoPluginHasNoBroker(t *testing.T) {
	t.Parallel()
	for version := range programs {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			var log hosttest.Buffer
			h := start(t, func(c *connectplugin.ServeConfig) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			own := launch(t, h, spec(t, version))
			client, url := user(t, h)
			for who, call := range map[string]func(string) (string, error){"the host": own, "a plugin": saying(t, client, url)} {
				accepted := make(chan string, 1) // without a broker at all it would wait for ever
				go func() {
					got, err := call("broker accept")
					accepted <- fmt.Sprintf("%s, %v", got, err)
				}()
				if got := hosttest.Arrival(t, accepted); got != "accepted, <nil>" {
					t.Errorf("%s: a plugin that waits to be called back: %s", who, got)
				}
			}
			if _, err := own("broker dial"); err == nil || !strings.Contains(err.Error(), "timeout waiting for connection info") {
				t.Errorf("a plugin that calls back: %v", err)
			}
			if got, err := own("hello"); got != "hello" || err != nil {
				t.Errorf("afterwards: %q, %v", got, err)
			}
			const warning = "which is not offered here"
			hosttest.Eventually(t, "the log says so", func() bool { return strings.Contains(log.String(), warning) })
			if err := h.Launcher().Stop(t.Context(), "echo"); err != nil {
				t.Error(err)
			}
			if n := strings.Count(log.String(), warning); n != 1 {
				t.Errorf("it says so %d times", n)
			}
		})
	}
}

func TestGoPluginIsWatchedOver(t *testing.T) {
	t.Parallel()
	var log hosttest.Buffer
	h := start(t, func(c *connectplugin.ServeConfig) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	sp := spec(t, "1.8")
	exits := make(chan connectplugin.PluginExit, 8)
	sp.Restart.MinBackoff = time.Millisecond
	sp.OnExit = func(e connectplugin.PluginExit) { exits <- e }
	call := launch(t, h, sp)
	if _, err := call("print last words"); err != nil {
		t.Fatal(err)
	}
	// What it prints passes through itself: a plugin of go-plugin takes with it what is still on its way.
	hosttest.Eventually(t, "its words arrive", func() bool { return strings.Contains(log.String(), "last words") })
	if _, err := call("crash"); err == nil {
		t.Error("the call that crashed it succeeded")
	}
	if exit := hosttest.Arrival(t, exits); exit.ExitCode != 3 || exit.Requested || exit.RuntimeID == "" || !slices.Contains(exit.Output, "last words") {
		t.Errorf("exit %+v", exit)
	}
	hosttest.Eventually(t, "it serves again", func() bool { _, err := call("hello"); return err == nil })
	// An identity that ends takes its process with it, and a new one follows.
	old := h.Plugins()[0]
	if !h.Revoke(old.RuntimeID) {
		t.Fatal("not revoked")
	}
	if exit := hosttest.Arrival(t, exits); exit.Pid != old.Launch.Pid || exit.Requested {
		t.Errorf("exit %+v, the process was %d", exit, old.Launch.Pid)
	}
	hosttest.Eventually(t, "it serves again", func() bool { _, err := call("hello"); return err == nil })
	if now := h.Plugins()[0]; now.RuntimeID == old.RuntimeID || now.Services[0] != "echo" {
		t.Errorf("it is %+v", now)
	}
}

func TestGoPluginIsReplacedUnderLoad(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	own := launch(t, h, spec(t, "1.8"))
	client, url := user(t, h)
	ways := []func(string) (string, error){own, saying(t, client, url)}
	var calling sync.WaitGroup
	var calls atomic.Int64
	stop := make(chan struct{})
	for _, call := range slices.Repeat(ways, 2) {
		calling.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := call("hello"); err != nil {
					t.Errorf("call: %v", err)
					return
				}
				calls.Add(1)
			}
		})
	}
	for range 3 {
		before, _ := own("pid")
		done := calls.Load()
		if err := h.Launcher().Replace(t.Context(), "echo"); err != nil {
			t.Fatal(err)
		}
		if after, err := own("pid"); err != nil || after == before {
			t.Errorf("process %s, then %s, %v", before, after, err)
		}
		hosttest.Eventually(t, "calls go on", func() bool { return calls.Load() > done || t.Failed() })
	}
	close(stop)
	calling.Wait()
	if got := h.Plugins(); len(got) != 2 {
		t.Errorf("plugins %+v", got)
	}
}

func TestGoPluginIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit func(*connectplugin.PluginSpec)
		want string
	}{
		"another program": {func(s *connectplugin.PluginSpec) { s.Checksum = strings.Repeat("0", 64) }, "binary refused"},
		"another cookie":  {func(s *connectplugin.PluginSpec) { s.GoPlugin.CookieValue = "other" }, "This binary is a plugin"},
		"other versions":  {func(s *connectplugin.PluginSpec) { s.GoPlugin.Versions = []int{7} }, "offers [7]"},
		"no go-plugin": {func(s *connectplugin.PluginSpec) {
			s.BinaryPath, s.Checksum, s.Args = "/bin/echo", "", []string{"hello", "world"}
		}, "hello world"},
		"no right": {func(s *connectplugin.PluginSpec) {
			s.Provides, s.GoPlugin.Services = []string{"other"}, map[string]string{"other": "bench.v1.Echo"}
		}, "policy does not allow it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t, nil)
			sp := spec(t, "1.8")
			c.edit(&sp)
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
			if _, err := h.Launcher().GetService("echo", ""); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
			if left := h.Plugins(); len(left) != 0 {
				t.Errorf("left: %+v", left)
			}
		})
	}
}

// The host asks the plugin how it is: one that stands still is unhealthy until it goes on.
func TestGoPluginIsAskedForItsHealth(t *testing.T) {
	t.Parallel()
	h := start(t, func(c *connectplugin.ServeConfig) {
		c.HealthProbe = connectplugin.HealthProbeConfig{Interval: 20 * time.Millisecond, Timeout: 200 * time.Millisecond, Lease: time.Hour}
	})
	sp := spec(t, "1.6")
	sp.GoPlugin.Versions = []int{1, 2, 3}
	call := launch(t, h, sp)
	pid := h.Plugins()[0].Launch.Pid
	becomes := func(want string) {
		t.Helper()
		hosttest.Eventually(t, want, func() bool { return strings.HasSuffix(h.Plugins()[0].Health.String(), want) })
	}
	becomes("_HEALTHY")
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	becomes("_UNHEALTHY")
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	becomes("_HEALTHY")
	if got, err := call("pid"); err != nil || got != fmt.Sprint(pid) {
		t.Errorf("%q, %v", got, err)
	}
}

package platform_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// program is this test binary, and its checksum.
var program = sync.OnceValues(func() (path, checksum string) {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(data)
	return path, hex.EncodeToString(sum[:])
})

// start starts a host whose policy lets the named plugins provide and require everything.
func start(t testing.TB, names ...string) *hosttest.Host {
	t.Helper()
	return hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{}}
		for _, name := range names {
			c.Policy.Plugins[name] = connectplugin.PluginPolicy{Provides: []string{"*"}, Requires: []string{"*"}}
		}
		c.Limits.DialTimeout = wait // a plugin that a busy machine starts may take longer over TLS than the 5 s of a host
	})
}

// spec launches this test binary as a plugin.
func spec(words ...string) connectplugin.PluginSpec {
	path, checksum := program()
	return connectplugin.PluginSpec{
		BinaryPath: path, Checksum: checksum, Provides: []string{"echo"}, Args: append([]string{"plugin"}, words...),
		ReadyTimeout: wait,
	}
}

// caller returns a function that calls Say of a launched plugin.
func caller(t testing.TB, h *hosttest.Host, name string) func(string) (string, error) {
	t.Helper()
	url, client, err := h.Launcher().GetServiceClient(name, "echo")
	if err != nil {
		t.Fatalf("GetServiceClient(%s): %v", name, err)
	}
	c := connect.NewClient[text, text](client, url+echoSay)
	return func(what string) (string, error) {
		resp, err := c.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String(what)))
		if err != nil {
			return "", err
		}
		return resp.Msg.GetValue(), nil
	}
}

func TestLaunchProcess(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec()})
	call := caller(t, h, "echo")
	if got, err := call("hello"); got != "hello" || err != nil {
		t.Fatalf("call: %q, %v", got, err)
	}
	plugins := h.Plugins()
	if len(plugins) != 1 || plugins[0].Launch == nil || plugins[0].Launch.State != connectplugin.LaunchRunning || plugins[0].Launch.Pid == 0 {
		t.Fatalf("plugins: %+v", plugins)
	}
	if err := h.Launcher().Stop(t.Context(), "echo"); err != nil {
		t.Fatal(err)
	}
	if got := h.Plugins(); len(got) != 0 {
		t.Fatalf("left: %+v", got)
	}
}

// Who is asked to end is seen with its process and its calls until it has ended, whether it is stopped
// or makes room for another one, and is one plugin all the while.
func TestPluginsShowWhoIsAboutToEnd(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(context.Context, *connectplugin.PluginLauncher) error{
		"stop":    func(ctx context.Context, l *connectplugin.PluginLauncher) error { return l.Stop(ctx, "echo") },
		"replace": func(ctx context.Context, l *connectplugin.PluginLauncher) error { return l.Replace(ctx, "echo") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, gate := start(t, "echo"), filepath.Join(t.TempDir(), "gate")
			sp := spec()
			sp.StopGrace = wait
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
			call := caller(t, h, "echo")
			before := h.Plugins()[0]
			called, ended := make(chan error, 1), make(chan error, 1)
			go func() {
				_, err := call("until " + gate)
				called <- err
			}()
			hosttest.Eventually(t, "a call is in flight", func() bool { return h.Plugins()[0].InFlight == 1 })
			go func() { ended <- end(t.Context(), h.Launcher()) }()
			var all []connectplugin.PluginStatus
			at := func(s connectplugin.PluginStatus) bool { return s.RuntimeID == before.RuntimeID }
			hosttest.Eventually(t, "it is asked to end", func() bool {
				all = h.Plugins()
				i := slices.IndexFunc(all, at)
				return i >= 0 && all[i].Launch != nil && all[i].Launch.State == connectplugin.LaunchStopping
			})
			old := all[slices.IndexFunc(all, at)]
			if old.Launch.Name != "echo" || old.Launch.Pid != before.Launch.Pid || old.InFlight == 0 {
				t.Errorf("it is %+v, %+v", old, old.Launch)
			}
			if want := map[string]int{"stop": 1, "replace": 2}[name]; len(all) != want {
				t.Errorf("plugins %+v", all)
			}
			if err := os.WriteFile(gate, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(hosttest.Arrival(t, called), hosttest.Arrival(t, ended)); err != nil {
				t.Error(err)
			}
			if slices.ContainsFunc(h.Plugins(), at) {
				t.Errorf("left: %+v", h.Plugins())
			}
		})
	}
}

package platform_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
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

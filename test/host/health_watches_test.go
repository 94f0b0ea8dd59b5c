package host_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// begunWatch asks for a watch and does not send all of its message.
func begunWatch(t *testing.T, host *hosttest.Host, c *connectplugin.Client) {
	t.Helper()
	body, rest := io.Pipe()
	t.Cleanup(func() { _ = rest.Close() })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, host.URL+connectpluginv1connect.ServiceRegistryWatchServiceProcedure, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = hosttest.IdentityHeader(c.RuntimeID(), c.RuntimeToken())
	req.Header.Set("Content-Type", "application/connect+proto")
	stranger := host.Stranger(t)
	go func() {
		if resp, err := stranger.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	if _, err := rest.Write([]byte{0, 0, 0, 0, 9, 1}); err != nil {
		t.Fatal(err)
	}
}

// Watches of the host's health, and those whose message is not there yet, have bounds of their own, and the operator sees how full
// they are and who fills them, of one instance and of all together.
func TestAdmin_LimitsOfHealthWatches(t *testing.T) {
	t.Parallel()
	host := administered(t, func(c *connectplugin.ServeConfig) { c.Limits.MaxWatches, c.Limits.MaxWatchesPerPlugin = 400, 5 })
	operator := host.Enrol(t, "operator", nil)
	most := host.Enrol(t, "api", hosttest.Requiring("logger"))
	for _, c := range []*connectplugin.Client{most, host.Enrol(t, "api", hosttest.Requiring("logger"))} {
		stream, err := connectpluginv1connect.NewHealthServiceClient(c.HTTPClient(), host.URL).
			Watch(t.Context(), connect.NewRequest(&connectpluginv1.HealthCheckRequest{}))
		if err != nil || !stream.Receive() {
			t.Fatalf("a watch of the host's health: %v, %v", err, stream.Err())
		}
	}
	begunWatch(t, host, most)
	want := map[string]string{
		"MaxWatches, of health": "3 of 400, ", "MaxWatches, of health, of one plugin": "3 of 100, api",
		"MaxWatchesPerPlugin, of health": "2 of 5, " + most.RuntimeID(),
		"MaxWatches":                     "0 of 400, ", "MaxWatchesPerPlugin": "0 of 5, ", "MaxWatches, of one plugin": "0 of 100, ",
	}
	got := map[string]string{}
	hosttest.Eventually(t, "three watches are counted", func() bool {
		for _, l := range snapshot(t, reader(host, operator.HTTPClient())).GetLimits() {
			got[l.GetName()] = fmt.Sprintf("%d of %d, %s", l.GetUsed(), l.GetMax(), l.GetOf())
		}
		return got["MaxWatches, of health"] == want["MaxWatches, of health"]
	})
	for name, row := range want {
		if got[name] != row {
			t.Errorf("%s: %q, want %q", name, got[name], row)
		}
	}
}

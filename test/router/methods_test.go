package router_test

import (
	"net/http"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

func TestRouter_MethodsOfNoRPC(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	logger := &hosttest.RecordingLogger{}
	plugin := host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{hosttest.LoggerService(logger)}
	})
	api := host.Enrol(t, "api", hosttest.Requiring("logger"))
	target := host.URL + "/services/logger/" + plugin.Client.RuntimeID() + "/capability.logger.v1.Logger/Log"
	for method, want := range map[string]int{
		http.MethodPost: http.StatusOK,
		http.MethodPut:  http.StatusMethodNotAllowed, http.MethodDelete: http.StatusMethodNotAllowed,
		http.MethodPatch: http.StatusMethodNotAllowed, http.MethodHead: http.StatusMethodNotAllowed,
		http.MethodOptions: http.StatusMethodNotAllowed, "PURGE": http.StatusMethodNotAllowed,
	} {
		for _, contentType := range []string{"application/json", "application/grpc", "application/grpc-web+proto"} {
			if method == http.MethodPost && contentType != "application/json" {
				continue
			}
			req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", contentType)
			resp, err := api.HTTPClient().Do(req)
			if err != nil {
				t.Fatalf("%s: %v", method, err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s %s: status %d, want %d", method, contentType, resp.StatusCode, want)
			}
			if allow := resp.Header.Get("Allow"); want != http.StatusOK && allow != "GET, POST" {
				t.Errorf("%s %s: Allow = %q", method, contentType, allow)
			}
		}
	}
	if lines, _, _ := logger.Got(); len(lines) != 1 {
		t.Errorf("the provider was called %d times, want 1", len(lines))
	}
}

package router_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// A service whose path is the beginning of another's name gets none of its calls: who may call the one has no right to the other.
func TestRouter_APathIsNoBeginningOfAName(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(echo.Policy()))
	says := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })
	}
	plugin := host.StartPlugin(t, "other", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{
			{Type: "different", Version: "1.0.0", Path: "/svc", Handler: says("different")},
			{Type: echo.Type, Version: "1.0.0", Path: "/svc2/", Handler: says(echo.Type)},
		}
	})
	both := host.Enrol(t, "both", hosttest.Requiring(echo.Type, "different"))
	for _, c := range []struct{ serviceType, path string }{
		{echo.Type, "/svc2/x"}, {"different", "/svc/x"}, {"different", "/svc"}, {"different", "/x"},
	} {
		url := host.URL + "/services/" + c.serviceType + "/" + plugin.Client.RuntimeID() + c.path
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(nil))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := both.HTTPClient().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || string(text) != c.serviceType {
			t.Errorf("%s of %s: %q answers (%d, %v)", c.path, c.serviceType, text, resp.StatusCode, err)
		}
	}
}

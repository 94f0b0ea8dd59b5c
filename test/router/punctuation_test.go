package router_test

import (
	"net/http"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/rawhttp"
)

// punctuated is a path with everything that an endpoint path may hold beside letters and digits.
const punctuated = "/p-._~@1:2,3+4=5/$&'()*!/"

// A service whose path ValidateEndpointPath accepts gets its calls, at a provider and in the host's own process; one
// whose path was escaped on the way gets none, as ever.
func TestServiceAtAPunctuatedPathIsCalled(t *testing.T) {
	t.Parallel()
	if err := connectplugin.ValidateEndpointPath(punctuated); err != nil {
		t.Fatal(err)
	}
	service := echo.Service{}.Handler()
	seen := &echo.Recorder{Next: http.StripPrefix(strings.TrimSuffix(punctuated, "/"), service)}
	rig := &echo.Rig{Host: hosttest.Start(t, hosttest.WithPolicy(echo.Policy()))}
	rig.Provider = rig.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{{Type: echo.Type, Version: "1.0.0", Path: punctuated, Handler: seen}}
	})
	rig.Caller = rig.Enrol(t, "caller", hosttest.Requiring(echo.Type))
	memory := newMemoryRig(t, seen, nil)
	memory.registerAt(t, punctuated)
	for name, to := range map[string]struct {
		rig *echo.Rig
		at  echo.Endpoint
	}{"provider": {rig, rig.ToProvider()}, "memory": {memory.Rig, memory.toMemory()}} {
		for _, below := range []string{"", strings.TrimSuffix(punctuated, "/")} { // registered path left out and written out
			for protocol, opts := range hosttest.Protocols {
				out := echo.CallUnary(t.Context(), echo.At(to.at.Base+below, to.at.Client), opts, nil)
				got := seen.Take()
				if out.Err != nil || len(got) != 1 || got[0].RequestURI != strings.TrimSuffix(punctuated, "/")+echo.Unary {
					t.Errorf("%s, %s, below %q: %v, %d requests", name, protocol, below, out.Err, len(got))
				}
			}
		}
		w := rawhttp.Dial(t, to.rig.Host)
		_, base, _ := strings.Cut(to.at.Base, "/services/")
		escaped := "/services/" + base + strings.Replace(punctuated, "!/", "%21", 1) + echo.Unary
		for _, protocol := range rawhttp.Types {
			if got := w.CallIn(protocol, w.Fields(to.rig.Caller, escaped), echo.Body(t, "evil")); got.Served() {
				t.Errorf("%s, %s: %q was served", name, protocol, escaped)
			}
			wantNone(t, seen)
		}
	}
}

package router_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// memoryRig is a running host with a provider in its own process, and a caller that
// comes over the network.
type memoryRig struct {
	*echo.Rig

	handshake  *connectplugin.HandshakeServer
	router     *connectplugin.ServiceRouter
	providerID string
}

// newMemoryRig starts a rig over TLS. edit may be nil.
func newMemoryRig(t *testing.T, service http.Handler, edit func(*connectplugin.ServeConfig)) *memoryRig {
	t.Helper()
	r := &memoryRig{}
	r.Rig = &echo.Rig{Host: hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = echo.Policy()
		if edit != nil {
			edit(c)
		}
		r.handshake = connectplugin.NewHandshakeServer(c)
		r.router = connectplugin.NewServiceRouter(r.handshake, nil, nil)
		c.ServiceRouter = r.router
	})}
	r.providerID = r.enrolInProcess(t, "provider")
	r.registerAt(t, echo.Base)
	if err := r.router.RegisterPluginHandler(r.providerID, service); err != nil {
		t.Fatal(err)
	}
	r.Caller = r.Enrol(t, "caller", hosttest.Requiring(echo.Type))
	return r
}

// enrolInProcess obtains an identity as a plugin in the host's process does.
func (r *memoryRig) enrolInProcess(t *testing.T, selfID string) string {
	t.Helper()
	resp, err := r.handshake.Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest(selfID)))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Msg.GetRuntimeId()
}

// toMemory is the way from the caller to the provider in the host's process.
func (r *memoryRig) toMemory() echo.Endpoint { return r.Route(r.providerID) }

// checkMemoryRequest checks what the provider in the host's process sees of a call.
func (r *memoryRig) checkMemoryRequest(t *testing.T, got *http.Request) {
	t.Helper()
	checkEchoFields(t, "request", got.Header)
	if id := got.Header["X-Plugin-Caller-Id"]; !slices.Equal(id, []string{r.Caller.RuntimeID()}) {
		t.Errorf("X-Plugin-Caller-Id is %q", id)
	}
	for _, name := range []string{"Authorization", "X-Plugin-Runtime-Id"} {
		if len(got.Header[name]) > 0 {
			t.Errorf("the provider saw %s", name)
		}
	}
	if c, ok := connectplugin.CallerFromContext(got.Context()); !ok || c.RuntimeID != r.Caller.RuntimeID() || c.SelfID != "caller" {
		t.Errorf("the caller in the context is %+v", c)
	}
	if !strings.HasPrefix(got.RequestURI, echo.Base) || got.URL.Path != got.RequestURI || got.ProtoMajor != 2 {
		t.Errorf("path %q, target %q, HTTP/%d", got.URL.Path, got.RequestURI, got.ProtoMajor)
	}
}

func wantNone(t *testing.T, seen *echo.Recorder) {
	t.Helper()
	for _, r := range seen.Take() {
		t.Errorf("reached the provider: %s %q", r.Method, r.RequestURI)
	}
}

// renew begins with the first policy, a live caller and a live provider.
func (r *memoryRig) renew(t *testing.T, handler http.Handler) {
	t.Helper()
	if err := r.SetPolicy(echo.Policy()); err != nil {
		t.Fatal(err)
	}
	r.Revoke(r.providerID)
	r.providerID = r.enrolInProcess(t, "provider")
	r.registerAt(t, echo.Base)
	if err := r.router.RegisterPluginHandler(r.providerID, handler); err != nil {
		t.Fatal(err)
	}
	r.Revoke(r.Caller.RuntimeID())
	r.Caller = r.Enrol(t, "caller", hosttest.Requiring(echo.Type))
}

func (r *memoryRig) changePolicy(t *testing.T, edit func(*connectplugin.Policy)) {
	t.Helper()
	p := echo.Policy()
	edit(p)
	if err := r.SetPolicy(p); err != nil {
		t.Fatal(err)
	}
}

package platform_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
)

// controlled is a plugin that counts what it is asked.
type controlled struct {
	connectpluginv1connect.UnimplementedPluginIdentityHandler

	mu        sync.Mutex
	shutdowns int
	identity  string
}

func (*controlled) GetHealth(context.Context, *connect.Request[connectpluginv1.GetHealthRequest]) (*connect.Response[connectpluginv1.GetHealthResponse], error) {
	return connect.NewResponse(&connectpluginv1.GetHealthResponse{State: connectpluginv1.HealthState_HEALTH_STATE_DEGRADED}), nil
}

func (c *controlled) Shutdown(context.Context, *connect.Request[connectpluginv1.ShutdownRequest]) (*connect.Response[connectpluginv1.ShutdownResponse], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shutdowns++
	return connect.NewResponse(&connectpluginv1.ShutdownResponse{Acknowledged: true}), nil
}

func (c *controlled) SetRuntimeIdentity(_ context.Context, req *connect.Request[connectpluginv1.SetRuntimeIdentityRequest]) (*connect.Response[connectpluginv1.SetRuntimeIdentityResponse], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.identity += req.Msg.GetRuntimeId()
	return connect.NewResponse(&connectpluginv1.SetRuntimeIdentityResponse{Acknowledged: true}), nil
}

// A host asks its plugins in the protocol that they understand: those of servers of gRPC
// refuse Connect in one of two ways, once.
func TestPluginClients_SpeakWhatThePluginUnderstands(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(http.ResponseWriter){
		"Connect": nil,
		"gRPC-Go": func(w http.ResponseWriter) { w.WriteHeader(http.StatusUnsupportedMediaType) },
		"grpcio": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Grpc-Status", "2")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, refused := &controlled{}, 0
			mux := http.NewServeMux()
			mux.Handle(connectpluginv1connect.NewPluginControlHandler(c))
			mux.Handle(connectpluginv1connect.NewPluginIdentityHandler(c))
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if refuse != nil && !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
					c.mu.Lock()
					refused++
					c.mu.Unlock()
					refuse(w)
					return
				}
				mux.ServeHTTP(w, r)
			}))
			server.EnableHTTP2 = true
			server.StartTLS()
			defer server.Close()
			control := connectplugin.NewPluginControlClient(server.URL, server.Client())
			health, err := control.GetHealth(t.Context())
			if err != nil || health.GetState() != connectpluginv1.HealthState_HEALTH_STATE_DEGRADED {
				t.Errorf("GetHealth: %v, %v", health, err)
			}
			if ok, err := control.Shutdown(t.Context(), 1, "test"); !ok || err != nil || c.shutdowns != 1 {
				t.Errorf("Shutdown: %t, %v; asked %d times", ok, err, c.shutdowns)
			}
			if want := map[bool]int{true: 1}[refuse != nil]; refused != want {
				t.Errorf("refused %d times, want %d", refused, want)
			}
			identity := connectplugin.NewPluginIdentityClient(server.URL, server.Client())
			if err := identity.SetRuntimeIdentity(t.Context(), "me", "token", server.URL); err != nil || c.identity != "me" {
				t.Errorf("SetRuntimeIdentity: %v, %q", err, c.identity)
			}
			if _, err := identity.GetPluginInfo(t.Context()); connect.CodeOf(err) != connect.CodeUnimplemented {
				t.Errorf("GetPluginInfo: %v", err)
			}
		})
	}
}

// Whoever brings no HTTP client learns so.
func TestPluginClients_WithoutAnHTTPClient(t *testing.T) {
	t.Parallel()
	err := connectplugin.NewPluginIdentityClient("https://127.0.0.1:1", nil).SetRuntimeIdentity(t.Context(), "me", "token", "https://127.0.0.1:1")
	_, asked := connectplugin.NewPluginControlClient("https://127.0.0.1:1", nil).GetHealth(t.Context())
	for _, err := range []error{err, asked} {
		if err == nil || !strings.Contains(err.Error(), "no HTTP client was given") {
			t.Errorf("%v", err)
		}
	}
}

package router_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// startRaw starts a provider of the type logger that answers as handler does, and
// returns a caller and the URL of the provider's route.
func startRaw(t *testing.T, handler http.HandlerFunc) (*connectplugin.Client, string) {
	t.Helper()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	plugin := host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{{Type: "logger", Version: "1.0.0", Path: "/raw.v1.Raw/", Handler: handler}}
	})
	return host.Enrol(t, "api", hosttest.Requiring("logger")), host.URL + "/services/logger/" + plugin.Client.RuntimeID() + "/raw.v1.Raw/Call"
}

// send sends a request and returns the response's status.
func send(t *testing.T, c *connectplugin.Client, method, target string, body io.Reader) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, body)
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/proto")
	}
	resp, err := c.HTTPClient().Do(req)
	if err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// Clients map the status of a provider that answers with none of an RPC to a code:
// the suite's "nonexistent-http-status-code" answers with 800.
func TestRouter_StatusOfProviderPasses(t *testing.T) {
	t.Parallel()
	var answer atomic.Int64
	api, target := startRaw(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(answer.Load())) })
	for _, status := range []int{200, 204, 400, 418, 500, 599, 600, 800, 999} {
		answer.Store(int64(status))
		if got := send(t, api, http.MethodPost, target, strings.NewReader("x")); got != status {
			t.Errorf("status %d became %d", status, got)
		}
	}
	for _, status := range []int{300, 301, 307, 399} {
		answer.Store(int64(status))
		if got := send(t, api, http.MethodPost, target, strings.NewReader("x")); got == status {
			t.Errorf("redirect %d passed", status)
		}
	}
}

// A client that wraps its transport sends a GET whose end comes after its head: so
// does the suite's "Connect with GET". A body that is none of an RPC does not pass.
func TestRouter_GETOfUnstatedLength(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	api, target := startRaw(t, func(_ http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		if n, err := io.Copy(io.Discard, r.Body); n != 0 || err != nil || r.Method != http.MethodGet {
			t.Errorf("provider got %s with %d bytes, %v", r.Method, n, err)
		}
	})
	target += "?connect=v1&encoding=json&message=%7B%7D"
	unstated := func(s string) io.Reader { return io.MultiReader(strings.NewReader(s)) }
	if got := send(t, api, http.MethodGet, target, nil); got != http.StatusOK {
		t.Errorf("GET: status %d", got)
	}
	if got := send(t, api, http.MethodGet, target, unstated("")); got != http.StatusOK {
		t.Errorf("GET with an empty body of unstated length: status %d", got)
	}
	if got := send(t, api, http.MethodGet, target, unstated("x")); got < http.StatusBadRequest {
		t.Errorf("GET with a body: status %d", got)
	}
	if calls.Load() != 2 {
		t.Errorf("the provider was called %d times, want 2", calls.Load())
	}
}

// failingBody is a request's body whose sender breaks off.
type failingBody struct{ err error }

func (b failingBody) Read([]byte) (int, error) { return 0, b.err }

func (b failingBody) Close() error { return nil }

// The server learns that a caller broke off in two ways, by the request's context
// and by its body, in either order. It is never the provider's failure.
func TestForward_CallerBreaksOffWhileSending(t *testing.T) {
	t.Parallel()
	provider := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	provider.Config.Protocols = new(http.Protocols)
	provider.Config.Protocols.SetUnencryptedHTTP2(true)
	provider.Start()
	defer provider.Close()
	endpoint, err := proxy.ParseEndpoint(provider.URL, true)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := proxy.New(proxy.Config{Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	brokeOff := errors.New("stream error: CANCEL")
	for name, length := range map[string]int64{"unstated length": -1, "stated length": 100} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/raw.v1.Raw/Call", failingBody{brokeOff})
		r.ContentLength = length
		r.Header.Set("Content-Type", "application/grpc")
		result := pool.Forward(httptest.NewRecorder(), r, proxy.Call{Path: r.URL.Path})
		if result.Class != proxy.ClassCanceled || !errors.Is(result.Err, brokeOff) {
			t.Errorf("%s: class %v, %v; want canceled", name, result.Class, result.Err)
		}
	}
}

package client_test

import (
	"net/http"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// heldBack is a writer that holds the head back until something is written or flushed, as those of gin and of echo's middleware do.
type heldBack struct {
	http.ResponseWriter

	status int
	wrote  bool
}

func (w *heldBack) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *heldBack) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *heldBack) Write(p []byte) (int, error) {
	w.head()
	return w.ResponseWriter.Write(p)
}

func (w *heldBack) Flush() {
	w.head()
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *heldBack) head() {
	if !w.wrote && w.status != 0 {
		w.ResponseWriter.WriteHeader(w.status)
	}
	w.wrote = true
}

// On a server of the user's own whose framework writes heads later than it is told to, calls of all kinds are as on another one.
func TestHost_BehindAWriterThatHoldsHeadsBack(t *testing.T) {
	t.Parallel()
	host := echo.StartKindsHost(t, func(c *connectplugin.ServeConfig) { c.Hosts = []string{"127.0.0.1"} })
	at := mountBelow(t, host.Authority, map[string]http.Handler{"/plugins": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		later := &heldBack{ResponseWriter: w}
		host.Handler().ServeHTTP(later, r)
		later.head()
	})})
	cfg := host.ClientConfig(t, "caller")
	cfg.HostURL, cfg.Metadata.Requires = at+"/plugins", hosttest.Requires("echo")
	c, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	for place, base := range map[string]string{"host plugin": cfg.HostURL, "route": cfg.HostURL + "/services/echo/-"} {
		echo.EachCall(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
			out := echo.Kinds[kind](t.Context(), echo.At(base, c.HTTPClient()), opts, nil)
			if out.Err != nil || len(out.Messages) == 0 {
				t.Errorf("%s: %v, %v", place, out.Messages, out.Err)
			}
		})
	}
}

package recovery_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// fickle is a host in memory, which takes a plugin, or does not know it.
type fickle struct {
	connectpluginv1connect.UnimplementedHandshakeServiceHandler

	mu      sync.Mutex
	refuses bool
	asked   []time.Time // with handshakes that it refused
}

// Handshake implements connectpluginv1connect.HandshakeServiceHandler.
func (f *fickle) Handshake(
	context.Context, *connect.Request[connectpluginv1.HandshakeRequest],
) (*connect.Response[connectpluginv1.HandshakeResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuses {
		f.asked = append(f.asked, time.Now())
		return nil, connect.NewError(connect.CodeUnauthenticated, errors.New("handshake refused"))
	}
	return connect.NewResponse(hosttest.Welcome(func(m *connectpluginv1.HandshakeResponse) { m.AppProtocolVersion = 1 })), nil
}

// Do implements connect.HTTPClient.
func (f *fickle) Do(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	path, handshakes := connectpluginv1connect.NewHandshakeServiceHandler(f)
	mux := http.NewServeMux()
	mux.Handle(path, handshakes)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.refuses {
			w.Header().Set("Www-Authenticate", "Bearer")
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	mux.ServeHTTP(w, r)
	return w.Result(), nil
}

// turn has the host refuse the plugin from now on, or take it.
func (f *fickle) turn(refuses bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuses, f.asked = refuses, nil
}

// A caller whom policy dropped, and who goes on calling, asks its host less and less often, once a minute at last, and
// is back within a minute when policy has it again.
func TestAudit_USE23_ACallerWhomPolicyDroppedAsksLessOften(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		host := &fickle{}
		c, err := connectplugin.NewClient(connectplugin.ClientConfig{
			HostURL: "http://host.example", AllowInsecure: true, SelfID: "caller", HTTPClient: host, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		calls := func() bool {
			time.Sleep(100 * time.Millisecond)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.Config().Endpoint+"/services/echo/-/x", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := c.HTTPClient().Do(r)
			if err != nil {
				return false
			}
			return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
		}
		for range 2 { // the second time it begins anew
			if !calls() {
				t.Fatal("it is not served")
			}
			host.turn(true)
			for begun := time.Now(); time.Since(begun) < 10*time.Minute; {
				if calls() {
					t.Fatal("it is served")
				}
			}
			host.mu.Lock()
			asked := host.asked
			host.mu.Unlock()
			n := len(asked)
			if n < 12 || n > 30 {
				t.Errorf("asked %d times in ten minutes", n)
			}
			if gap := asked[n-1].Sub(asked[n-2]); gap < 30*time.Second || gap > time.Minute+time.Second {
				t.Errorf("at last it asks after %v", gap)
			}
			host.turn(false)
			back := time.Now()
			for !calls() {
				if time.Since(back) > time.Minute+time.Second {
					t.Fatal("it is not back")
				}
			}
		}
	})
}

package registry_test

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// counted is a listener that counts its connections.
type counted struct {
	net.Listener

	came, open atomic.Int64
}

func (l *counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.came.Add(1)
		l.open.Add(1)
		c = &countedConn{Conn: c, of: l}
	}
	return c, err
}

type countedConn struct {
	net.Conn

	of     *counted
	closed atomic.Bool
}

func (c *countedConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.of.open.Add(-1)
	}
	return c.Conn.Close()
}

// Where so many plugins report that each is to do so less often than there are rounds, the host keeps no connection to one that
// nobody calls between its questions, which are rare then. Where few do, and to one that is called, it does.
func TestHealthProbe_NoConnectionForNothing(t *testing.T) {
	t.Parallel()
	const interval, questions = 50 * time.Millisecond, 3
	for name, tt := range map[string]struct {
		reports int // that all may send in a second
		called  bool
		stays   bool
	}{
		"many report":          {10, false, false},
		"many, and one called": {10, true, true},
		"few report":           {1000, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy = hosttest.Rights(map[string][2][]string{"p": {{"a"}, nil}, "c": {nil, {"a"}}})
				c.HealthProbe = connectplugin.HealthProbeConfig{Interval: interval, Timeout: time.Minute, ReportsPerSecond: tt.reports, Lease: time.Hour}
			})
			cfg, err := host.Authority.PluginTLS("p")
			if err != nil {
				t.Fatal(err)
			}
			p, mux, listener := &patient{}, http.NewServeMux(), &counted{Listener: hosttest.Listen(t)}
			p.says(connectpluginv1.HealthState_HEALTH_STATE_HEALTHY)
			mux.Handle(connectpluginv1connect.NewPluginControlHandler(p))
			mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
			hosttest.ServeOn(t, listener, cfg, mux)
			client := host.Enrol(t, "p", hosttest.Providing("a"))
			err = hosttest.RegisterWith(t, client, &connectpluginv1.RegisterServiceRequest{
				ServiceType: "a", Version: "1.0.0", Metadata: map[string]string{"base_url": "https://" + listener.Addr().String()},
			})
			if err != nil {
				t.Fatal(err)
			}
			if tt.called {
				c := connectpluginv1connect.NewHealthServiceClient(host.Enrol(t, "c", hosttest.Requiring("a")).HTTPClient(), host.URL+"/services/a/"+client.RuntimeID())
				if _, err := c.Check(t.Context(), connect.NewRequest(&connectpluginv1.HealthCheckRequest{})); err == nil || listener.came.Load() == 0 {
					t.Fatalf("a call: %v", err)
				}
			}
			goOnReporting(t, client)
			hosttest.Eventually(t, "questions", func() bool { return p.asked.Load() >= questions })
			if tt.stays {
				if n := listener.came.Load(); n != 1 {
					t.Errorf("%d connections for %d questions", n, p.asked.Load())
				}
				return
			}
			hosttest.Eventually(t, "the connection ends", func() bool { return listener.open.Load() == 0 })
			before := listener.came.Load()
			hosttest.Eventually(t, "the host asks anew, and lets go again", func() bool { return listener.came.Load() > before && listener.open.Load() == 0 })
		})
	}
}

// goOnReporting has a plugin report that it is well, until the test ends.
func goOnReporting(t *testing.T, c *connectplugin.Client) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := c.ReportHealth(ctx, connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil && ctx.Err() == nil {
				t.Errorf("report: %v", err)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

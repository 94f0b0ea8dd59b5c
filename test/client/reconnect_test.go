package client_test

import (
	"sync"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A client with many calls in flight that loses its connection does not come back
// with a TLS handshake for each of them.
func TestClient_ComesBackWithFewConnections(t *testing.T) {
	t.Parallel()
	const callers, most = 100, 16
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	p := hosttest.NewProxy(t, host)
	c := host.Enrol(t, "api", func(cfg *connectplugin.ClientConfig) { cfg.HostURL = p.URL })
	for range 3 {
		p.Cut()
		before := p.Accepted.Load()
		start := make(chan struct{})
		var calls sync.WaitGroup
		for range callers {
			calls.Go(func() {
				<-start
				// A call may fail: the connection that it found was cut.
				_ = c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil)
			})
		}
		close(start)
		calls.Wait()
		if n := p.Accepted.Load() - before; n > most {
			t.Errorf("%d calls opened %d connections, want at most %d", callers, n, most)
		}
	}
	if err := c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

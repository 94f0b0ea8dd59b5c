package edge_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// Shutdown ends whatever the peers do: those who do not read, who stop in the middle of a body,
// who say no word, and streams that nobody ends.
func TestAudit_H46_ShutdownEndsWhateverPeersDo(t *testing.T) {
	t.Parallel()
	f := flood{begun: make(chan struct{}), gone: make(chan struct{})}
	r := newRig(t, neverEnds, func(c *connectplugin.ServeConfig) {
		c.Plugins, c.GracefulShutdownTimeout, c.Logger = connectplugin.PluginSet{"echo": echo.HostPlugin{Handler: f}}, time.Second, nil
	})
	c := r.Enrol(t, "caller", hosttest.Requiring(echo.Type))
	framer, _ := framesOf(t, r)
	if err := framer.WriteWindowUpdate(0, 1<<30); err != nil {
		t.Fatal(err)
	}
	ask(t, framer, r.Addr(), echo.Unary, c)
	hosttest.Arrival(t, f.begun)
	stuckBody := stick(t, r.Stranger(t), r.URL+handshakeProc, http.Header{"Content-Type": {"application/proto"}}, []byte{1})
	if _, err := healthWatch(t, r.Host, c); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		conn, err := net.Dial("tcp", r.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Shutdown(context.WithoutCancel(t.Context())) }()
	if err := hosttest.Arrival(t, ended); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("Shutdown: %v, want that calls were cut off", err)
	}
	hosttest.Arrival(t, f.gone)
	hosttest.Arrival(t, stuckBody.answer)
}

// neverEnds has nothing end for want of time, so that only the shutdown does.
func neverEnds(l *connectplugin.Limits) {
	for _, d := range []*time.Duration{
		&l.BodyTimeout, &l.ReadHeaderTimeout, &l.WriteTimeout, &l.IdleTimeout, &l.KeepAliveInterval, &l.KeepAliveTimeout,
		&l.CallTimeout, &l.StreamIdleTimeout,
	} {
		*d = time.Hour
	}
}

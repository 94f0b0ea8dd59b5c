package observe_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// panics is an observer that panics at each refusal.
type panics struct {
	connectplugin.NopObserver

	told atomic.Int64
}

func (p *panics) Refusal(connectplugin.RefusalEvent) {
	p.told.Add(1)
	panic("observer")
}

// An observer that panics at a connection that is refused, where no request is, does not end the host.
func TestObserver_PanicOnARefusalEndsNoHost(t *testing.T) {
	t.Parallel()
	o := &panics{}
	rig := echo.NewRig(t, echo.Service{}.Handler(), observed(o))
	c, err := net.Dial("tcp", strings.TrimPrefix(rig.URL, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\n\r\n") // plaintext
	_, _ = io.Copy(io.Discard, c)
	hosttest.Eventually(t, "the observer is told", func() bool { return o.told.Load() > 0 })
	echo.Want(t, "unary", echo.CallUnary(t.Context(), rig.ToProvider(), nil, nil))
}

// The same holds for an audit sink, where a connection is cut off.
func TestAuditSink_PanicOnACutOffEndsNoHost(t *testing.T) {
	t.Parallel()
	var told atomic.Int64
	rig := echo.NewRig(t, echo.Service{}.Handler(), func(c *connectplugin.ServeConfig) {
		c.Audit = func(e connectplugin.AuditEvent) {
			if e.Kind == connectplugin.AuditLimited {
				told.Add(1)
				panic("sink")
			}
		}
	})
	cfg := rig.StrangerTLS()
	cfg.NextProtos = []string{"h2"}
	c, err := tls.Dial("tcp", rig.Addr(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	framer := http2.NewFramer(c, c)
	_, err = io.WriteString(c, http2.ClientPreface)
	for err = errors.Join(err, framer.WriteSettings()); err == nil; {
		err = framer.WritePing(false, [8]byte{}) // until the host has had enough
	}
	hosttest.Eventually(t, "the sink is told", func() bool { return told.Load() > 0 })
	echo.Want(t, "unary", echo.CallUnary(t.Context(), rig.ToProvider(), nil, nil))
}

package edge_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// dialTLS connects as a stranger that speaks HTTP/2, nil where the host does not let it in soon.
func dialTLS(t *testing.T, r *rig) *tls.Conn {
	t.Helper()
	cfg := r.StrangerTLS()
	cfg.NextProtos = []string{"h2"}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	d := tls.Dialer{Config: cfg}
	conn, err := d.DialContext(ctx, "tcp", r.Addr())
	if err != nil {
		return nil
	}
	t.Cleanup(func() { _ = conn.Close() })
	c, _ := conn.(*tls.Conn)
	return c
}

// connectionBounds are those of connections.
func connectionBounds() map[string]bound {
	const never = 1e-6
	crowd := func(t *testing.T, r *rig) {
		t.Helper()
		meets(t, connect.CodeUnknown, func(i int) error {
			if i < 12 && dialTLS(t, r) != nil {
				return nil
			}
			return errors.New("not let in")
		})
	}
	return map[string]bound{
		"MaxConnections": {func(l *connectplugin.Limits) { l.MaxConnections = 4 }, func(t *testing.T, r *rig) {
			t.Helper()
			var oldest net.Conn
			for range 5 { // the last one gets the place of the first
				c, err := net.Dial("tcp", r.Addr())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = c.Close() })
				if oldest == nil {
					oldest = c
				}
			}
			_ = oldest.SetReadDeadline(time.Now().Add(hosttest.Wait))
			if n, err := oldest.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("who made room got %d bytes, %v, and not the end of its connection", n, err)
			}
			resp, err := r.Stranger(t).Get(r.URL + "/healthz") // makes the next one go
			if err != nil || resp.Body.Close() != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("a newcomer: %v, %v", resp, err)
			}
		}},
		"MaxConnectionsPerPeer": {func(l *connectplugin.Limits) { l.MaxConnectionsPerPeer = 4 }, crowd},
		"ConnectionsPerSecond":  {func(l *connectplugin.Limits) { l.ConnectionsPerSecond, l.ConnectionBurst = never, 4 }, crowd},
		"ConnectionBurst":       {func(l *connectplugin.Limits) { l.ConnectionBurst, l.ConnectionsPerSecond = 3, never }, crowd},
		"PingsPerSecond":        {func(l *connectplugin.Limits) { l.PingsPerSecond, l.PingBurst = never, 4 }, reachPings},
		"PingBurst":             {func(l *connectplugin.Limits) { l.PingBurst, l.PingsPerSecond = 3, never }, reachPings},
		"RefusalsPerSecond":     {func(l *connectplugin.Limits) { l.RefusalsPerSecond, l.RefusalBurst = never, 4 }, reachRefusals},
		"RefusalBurst":          {func(l *connectplugin.Limits) { l.RefusalBurst, l.RefusalsPerSecond = 3, never }, reachRefusals},
		"MaxStreamsPerConnection": {func(l *connectplugin.Limits) { l.MaxStreamsPerConnection = 7 }, func(t *testing.T, r *rig) {
			t.Helper()
			for f := frames(t, r); ; {
				frame, err := f.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				if s, ok := frame.(*http2.SettingsFrame); ok && !s.IsAck() {
					if n, _ := s.Value(http2.SettingMaxConcurrentStreams); n != 7 {
						t.Errorf("the host allows %d", n)
					}
					return
				}
			}
		}},
	}
}

// ended waits until the host ends a connection.
func ended(t *testing.T, r *rig) {
	t.Helper()
	for f := frames(t, r); ; {
		if _, err := f.ReadFrame(); err != nil {
			if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
				t.Error("the connection stays")
			}
			return
		}
	}
}

// sooner demands that something comes before the default of its field would bring it.
func sooner(t *testing.T, than time.Duration, do func()) {
	t.Helper()
	begun := time.Now()
	do()
	if took := time.Since(begun); took >= than {
		t.Errorf("it took %v, as with the default", took)
	}
}

// later demands that something comes no sooner than its field says, which is after the default.
func later(t *testing.T, than time.Duration, do func()) {
	t.Helper()
	begun := time.Now()
	do()
	if took := time.Since(begun); took < than {
		t.Errorf("it took %v, as with the default", took)
	}
}

// Defaults that are shorter than a test waits, and more than those that are short.
const (
	shortDefault = 10 * time.Second
	longDefault  = 30 * time.Second
	moreThanThat = 11 * time.Second
)

// timeBounds are those of time.
func timeBounds() map[string]bound {
	const soon = 2 * hosttest.Moment
	return map[string]bound{
		"ReadHeaderTimeout": {func(l *connectplugin.Limits) { l.ReadHeaderTimeout = moreThanThat }, func(t *testing.T, r *rig) {
			t.Helper()
			later(t, moreThanThat, func() {
				c, err := net.Dial("tcp", r.Addr())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = c.Close() }()
				_ = c.SetReadDeadline(time.Now().Add(hosttest.Wait))
				if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("who says no word: %v", err)
				}
			})
		}},
		"BodyTimeout": {func(l *connectplugin.Limits) { l.BodyTimeout = moreThanThat }, func(t *testing.T, r *rig) {
			t.Helper()
			later(t, moreThanThat, func() {
				s := stick(t, r.Stranger(t), r.URL+handshakeProc, http.Header{"Content-Type": {"application/proto"}}, []byte{1})
				if answer := hosttest.Arrival(t, s.answer); !says(answer, connect.CodeDeadlineExceeded) {
					t.Error(answer)
				}
			})
		}},
		"IdleTimeout": {func(l *connectplugin.Limits) { l.IdleTimeout = soon }, ended},
		"KeepAliveInterval": {func(l *connectplugin.Limits) { l.KeepAliveInterval = soon }, func(t *testing.T, r *rig) {
			t.Helper()
			sooner(t, longDefault, func() { pinged(t, r) })
		}},
		"KeepAliveTimeout": {func(l *connectplugin.Limits) { l.KeepAliveTimeout, l.KeepAliveInterval = soon, soon }, func(t *testing.T, r *rig) {
			t.Helper()
			sooner(t, shortDefault, func() { ended(t, r) })
		}},
		"CallTimeout": {func(l *connectplugin.Limits) { l.CallTimeout = 3 * time.Second }, func(t *testing.T, _ *rig) {
			t.Helper()
			reachCallTimeout(t, 1)
		}},
		"StreamIdleTimeout": {func(l *connectplugin.Limits) { l.StreamIdleTimeout = time.Second }, func(t *testing.T, r *rig) {
			t.Helper()
			place := r.call(t)["in process"]
			stream := echo.NewClient(echo.At(place.URL, r.caller.HTTPClient()), echo.Bidi).CallBidiStream(t.Context())
			maps.Copy(stream.RequestHeader(), place.Header)
			_ = stream.Send(&echo.Text{Value: "x"})
			_, err := stream.Receive()
			if err == nil {
				_, err = stream.Receive()
			}
			if connect.CodeOf(err) != connect.CodeDeadlineExceeded {
				t.Error(err)
			}
		}},
		"DialTimeout": {func(l *connectplugin.Limits) { l.DialTimeout = moreThanThat }, func(t *testing.T, r *rig) {
			t.Helper()
			later(t, moreThanThat, func() { reachDial(t, r) })
		}},
		"WriteTimeout": {func(l *connectplugin.Limits) { l.WriteTimeout = time.Second }, func(t *testing.T, _ *rig) {
			t.Helper()
			sooner(t, longDefault, func() { reachWrite(t) })
		}},
		"CertificateOvertime": {func(l *connectplugin.Limits) { l.CertificateOvertime = time.Second }, func(t *testing.T, _ *rig) {
			t.Helper()
			reachOvertime(t)
		}},
	}
}

// pinged waits until the host asks whether anybody is there.
func pinged(t *testing.T, r *rig) {
	t.Helper()
	for f := frames(t, r); ; {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Errorf("nobody asks: %v", err)
			return
		}
		if p, ok := frame.(*http2.PingFrame); ok && !p.IsAck() {
			return
		}
	}
}

// reachDial calls a provider that accepts and says nothing.
func reachDial(t *testing.T, r *rig) {
	t.Helper()
	silent := hosttest.Listen(t)
	t.Cleanup(func() { _ = silent.Close() })
	provider := r.Enrol(t, "sibling", hosttest.Providing("type-0"))
	err := hosttest.RegisterWith(t, provider, &connectpluginv1.RegisterServiceRequest{
		ServiceType: "type-0", Version: "1.0.0", EndpointPath: echo.Base, Metadata: map[string]string{"base_url": "https://" + silent.Addr().String()},
	})
	if err != nil && connect.CodeOf(err) == connect.CodeResourceExhausted {
		t.Fatal(err)
	}
	caller := r.Enrol(t, "registrar", hosttest.Requiring("type-0"))
	ctx, cancel := context.WithTimeout(t.Context(), hosttest.Wait)
	defer cancel()
	at := echo.At(r.URL+"/services/type-0/"+provider.RuntimeID(), caller.HTTPClient())
	if out := echo.CallUnary(ctx, at, nil, nil); out.Err == nil || ctx.Err() != nil {
		t.Errorf("a provider that says nothing: %v", out.Err)
	}
}

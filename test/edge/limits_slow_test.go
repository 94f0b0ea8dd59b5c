package edge_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// reachWrite asks for more than any connection holds, and takes nothing of it.
func reachWrite(t *testing.T) *rig {
	t.Helper()
	f := flood{begun: make(chan struct{}), gone: make(chan struct{})}
	r := newRig(t, func(l *connectplugin.Limits) { l.WriteTimeout = time.Second }, func(c *connectplugin.ServeConfig) {
		c.Plugins = connectplugin.PluginSet{"echo": echo.HostPlugin{Handler: f}}
	})
	c := r.Enrol(t, "caller", nil)
	framer, _ := framesOf(t, r)
	if err := framer.WriteWindowUpdate(0, 1<<30); err != nil {
		t.Fatal(err)
	}
	ask(t, framer, r.Addr(), echo.Unary, c)
	hosttest.Arrival(t, f.gone)
	return r
}

// headBlock is the head of a request, with more fields.
func headBlock(authority, path string, more ...[2]string) []byte {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	usual := [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", authority}, {":path", path}}
	for _, field := range append(usual, more...) {
		_ = enc.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	return block.Bytes()
}

// ask sends a request of a client on a connection of frames.
func ask(t *testing.T, framer *http2.Framer, authority, path string, c *connectplugin.Client) {
	t.Helper()
	block := headBlock(authority, path,
		[2]string{"content-type", "application/octet-stream"},
		[2]string{"x-plugin-runtime-id", c.RuntimeID()},
		[2]string{"authorization", "Bearer " + c.RuntimeToken()})
	err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true})
	if err != nil {
		t.Fatal(err)
	}
}

// reachOvertime watches with a certificate that ends with its launch.
func reachOvertime(t *testing.T) *rig {
	t.Helper()
	r := newRig(t, func(l *connectplugin.Limits) { l.CertificateOvertime = time.Millisecond }, nil)
	launch, err := r.Authority.LaunchTLS(connectplugin.LaunchTLSConfig{ID: "one"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(launch.Close)
	client := hosttest.HTTPClient(t, launch.PluginTLS())
	resp, err := connectpluginv1connect.NewHandshakeServiceClient(client, r.URL).
		Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("open")))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := connectpluginv1connect.NewHealthServiceClient(client, r.URL).Watch(t.Context(),
		hosttest.WithCredentials(&connectpluginv1.HealthCheckRequest{}, resp.Msg.GetRuntimeId(), resp.Msg.GetRuntimeToken()))
	if err != nil || !stream.Receive() {
		t.Fatal(err, stream.Err())
	}
	launch.Close()
	for stream.Receive() { // to the end
	}
	_ = stream.Close()
	return r
}

// reachCallTimeout makes calls that end by their time, of which their caller is told so.
func reachCallTimeout(t *testing.T, calls int) *rig {
	t.Helper()
	r := newRig(t, func(l *connectplugin.Limits) { l.CallTimeout = 3 * time.Second }, func(c *connectplugin.ServeConfig) {
		c.Interceptors = append(c.Interceptors, connect.UnaryInterceptorFunc(blocking))
	})
	c := r.Enrol(t, "registrar", nil)
	sooner(t, longDefault, func() {
		for range calls {
			if _, err := healthCheck(t, r, c); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
				t.Error(err)
			}
		}
	})
	return r
}

// known makes a connection of frames that of a plugin, by a call of it.
func known(t *testing.T, r *rig, c *connectplugin.Client) {
	t.Helper()
	f := frames(t, r)
	block := headBlock(r.Addr(), connectpluginv1connect.HealthServiceCheckProcedure, [2]string{"content-type", "application/proto"},
		[2]string{"x-plugin-runtime-id", c.RuntimeID()}, [2]string{"authorization", "Bearer " + c.RuntimeToken()})
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true, EndStream: true}); err != nil {
		t.Fatal(err)
	}
	await(t, f, http2.FrameHeaders)
}

// Every time that a peer or a call may take is in the audit when it is over, with the field, the address and who it was:
// the first one at once, and others as a number.
func TestAudit_ATK14_TimesThatAreOverAreToldWithWhoItWas(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		field, selfID, procedure string
		stands                   int
		reach                    func(t *testing.T) *rig
	}{
		"the beginning of HTTP/2": {"beginning of HTTP/2 (Limits.ReadHeaderTimeout)", "", "", 1, func(t *testing.T) *rig {
			t.Helper()
			r := newRig(t, func(l *connectplugin.Limits) { l.ReadHeaderTimeout = 4 * time.Second }, nil)
			c := dialTLS(t, r)
			if c == nil {
				t.Fatal("it is not let in")
			}
			if _, err := io.WriteString(c, http2.ClientPreface[:5]); err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, c)
			return r
		}},
		"an answer to a PING": {"Limits.KeepAliveTimeout", "registrar", "", 1, func(t *testing.T) *rig {
			t.Helper()
			r := newRig(t, func(l *connectplugin.Limits) { l.KeepAliveInterval, l.KeepAliveTimeout = time.Second, time.Second }, nil)
			c := r.Enrol(t, "registrar", nil)
			known(t, r, c)
			_ = c.Close() // else it has a connection of its own, too
			return r
		}},
		"what is written": {"Limits.WriteTimeout", "caller", "", 1, reachWrite},
		"calls": {
			"Limits.CallTimeout", "registrar", connectpluginv1connect.HealthServiceCheckProcedure, 3,
			func(t *testing.T) *rig {
				t.Helper()
				return reachCallTimeout(t, 3)
			},
		},
		"a certificate": {"Limits.CertificateOvertime", "open", "", 1, reachOvertime},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := tt.reach(t)
			hosttest.Eventually(t, "the audit says so", func() bool { _, n := limitedOf(r.Host, tt.field); return n > 0 })
			first, _ := limitedOf(r.Host, tt.field)
			if e := first[0]; len(first) != 1 || e.Peer != "127.0.0.1" || e.SelfID != tt.selfID || e.Procedure != tt.procedure || (e.RuntimeID != "") != (e.SelfID != "") {
				t.Errorf("told as %v", first)
			}
			r.Stop(t) // which says what was counted
			if all, n := limitedOf(r.Host, tt.field); n != tt.stands || len(all) > 2 {
				t.Errorf("%d are told as %v", tt.stands, all)
			}
		})
	}
}

// turnedAway counts what meets a bound.
type turnedAway struct {
	connectplugin.NopObserver

	n atomic.Int64
}

func (o *turnedAway) Refusal(e connectplugin.RefusalEvent) {
	if e.Kind == connectplugin.AuditLimited {
		o.n.Add(1)
	}
}

// A host that is full says who had to wait, at once, and from then on how many did and who was the last.
func TestAudit_ATK14_AFullHostSaysWhoHasToWait(t *testing.T) {
	t.Parallel()
	var waiting turnedAway
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Limits.MaxConnections, c.Observer = hosttest.LoggerPolicy(), 1, &waiting
	})
	dial := func(from string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.DialContext(t.Context(), "tcp", host.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	before := dial("127.0.0.1") // which has the place
	for _, from := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"} {
		told, next := waiting.n.Load(), dial(from)
		hosttest.Eventually(t, "it has to wait", func() bool { return waiting.n.Load() > told })
		_ = before.Close()
		cfg := host.StrangerTLS()
		cfg.NextProtos, cfg.ServerName = []string{"h2"}, "127.0.0.1"
		if err := tls.Client(next, cfg).HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		before = next
	}
	host.Stop(t)
	events, stands := limitedOf(host, "Limits.MaxConnections")
	if len(events) != 2 || stands != 3 || events[0].Peer != "127.0.0.2" || events[1].Peer != "127.0.0.4" {
		t.Errorf("three had to wait, the last one of 127.0.0.4: %v", events)
	}
}

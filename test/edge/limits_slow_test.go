package edge_test

import (
	"bytes"
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
func reachWrite(t *testing.T, _ *rig) {
	t.Helper()
	f := flood{gone: make(chan struct{})}
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
func reachOvertime(t *testing.T) {
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
}

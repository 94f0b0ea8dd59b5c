package echo

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// answer is the least that the writer of a response is in a server.
type answer struct {
	header http.Header
	status int
}

func (w *answer) Header() http.Header              { return w.header }
func (w *answer) WriteHeader(status int)           { w.status = status }
func (w *answer) Write(p []byte) (int, error)      { return len(p), nil }
func (w *answer) FlushError() error                { return nil }
func (w *answer) SetReadDeadline(time.Time) error  { return nil }
func (w *answer) SetWriteDeadline(time.Time) error { return nil }

// NewMemoryCall returns what makes one unary call through a host without a socket on either
// side, to a provider in the host's process.
func NewMemoryCall(tb testing.TB, o connectplugin.Observer) func() {
	tb.Helper()
	var handshake *connectplugin.HandshakeServer
	var router *connectplugin.ServiceRouter
	host := hosttest.Start(tb, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Logger, c.Observer = Policy(), nil, o
		c.Limits.RequestsPerSecond, c.Limits.RequestBurst = 1e9, 1e9
		handshake = connectplugin.NewHandshakeServer(c)
		router = connectplugin.NewServiceRouter(handshake, nil, nil)
		c.ServiceRouter = router
	})
	enrol := func(selfID string) *connectpluginv1.HandshakeResponse {
		resp, err := handshake.Handshake(context.Background(), connect.NewRequest(hosttest.OldRequest(selfID)))
		if err != nil {
			tb.Fatal(err)
		}
		return resp.Msg
	}
	provider, caller := enrol("provider").GetRuntimeId(), enrol("caller")
	register := connect.NewRequest(&connectpluginv1.RegisterServiceRequest{ServiceType: Type, Version: "1.0.0", EndpointPath: Base})
	register.Header().Set("X-Plugin-Runtime-ID", provider)
	if _, err := host.Registry().RegisterService(context.Background(), register); err != nil {
		tb.Fatal(err)
	}
	service := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var buffer [256]byte
		n, _ := io.ReadFull(r.Body, buffer[:])
		w.Header()["Content-Type"] = unaryType
		_, _ = w.Write(buffer[:n])
	})
	if err := router.RegisterPluginHandler(provider, service); err != nil {
		tb.Fatal(err)
	}
	target := "/services/echo/" + provider + Unary
	body, handler := bytes.Repeat([]byte("x"), 256), host.Handler()
	header := hosttest.IdentityHeader(caller.GetRuntimeId(), caller.GetRuntimeToken())
	header["Content-Type"] = unaryType
	header.Set("Connect-Protocol-Version", "1")
	header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	secure := &tls.ConnectionState{Version: tls.VersionTLS13}
	return func() {
		r := &http.Request{
			Method: http.MethodPost, URL: &url.URL{Path: target}, RequestURI: target, Host: host.Addr(), RemoteAddr: "127.0.0.1:40000",
			Proto: "HTTP/2.0", ProtoMajor: 2, TLS: secure, Header: header.Clone(),
			Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
		}
		w := &answer{header: http.Header{}}
		if handler.ServeHTTP(w, r); w.status != http.StatusOK {
			tb.Fatalf("status %d", w.status)
		}
	}
}

var unaryType = []string{"application/proto"}

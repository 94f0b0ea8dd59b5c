package router_test

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
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// memoryAnswer is the least that the writer of a response is in a server: with
// deadlines and flushing.
type memoryAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *memoryAnswer) Header() http.Header { return w.header }

func (w *memoryAnswer) WriteHeader(status int) { w.status = status }

func (w *memoryAnswer) Write(p []byte) (int, error) { return w.body.Write(p) }

func (w *memoryAnswer) FlushError() error { return nil }

func (w *memoryAnswer) SetReadDeadline(time.Time) error { return nil }

func (w *memoryAnswer) SetWriteDeadline(time.Time) error { return nil }

// BenchmarkRouterMemoryUnary is a routed unary call of 256 bytes without a socket on
// either side: the host identifies the caller, asks policy and limits, and dispatches
// to a provider in its own process, with audit on. Both "raw", whose provider sends
// back the bytes that it gets, and "connect", whose provider is a handler of Connect,
// which decodes and encodes.
func BenchmarkRouterMemoryUnary(b *testing.B) {
	raw := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		_, _ = body.ReadFrom(r.Body)
		w.Header().Set("Content-Type", "application/proto")
		_, _ = w.Write(body.Bytes())
	})
	for name, service := range map[string]http.Handler{"raw": raw, "connect": echo.Service{}.Handler()} {
		b.Run(name, func(b *testing.B) { benchmarkRouterMemory(b, service) })
	}
}

func benchmarkRouterMemory(b *testing.B, service http.Handler) {
	b.Helper()
	var handshake *connectplugin.HandshakeServer
	var router *connectplugin.ServiceRouter
	host := hosttest.Start(b, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Logger = echo.Policy(), nil
		c.Limits.RequestsPerSecond, c.Limits.RequestBurst = 1e9, 1e9 // counted, and never reached
		handshake = connectplugin.NewHandshakeServer(c)
		router = connectplugin.NewServiceRouter(handshake, nil, nil)
		c.ServiceRouter = router
	})
	enrol := func(selfID string) *connectpluginv1.HandshakeResponse {
		resp, err := handshake.Handshake(context.Background(), connect.NewRequest(hosttest.OldRequest(selfID)))
		if err != nil {
			b.Fatal(err)
		}
		return resp.Msg
	}
	provider, caller := enrol("provider").GetRuntimeId(), enrol("caller")
	register := connect.NewRequest(&connectpluginv1.RegisterServiceRequest{ServiceType: echo.Type, Version: "1.0.0", EndpointPath: echo.Base})
	register.Header().Set("X-Plugin-Runtime-ID", provider)
	if _, err := host.Registry().RegisterService(context.Background(), register); err != nil {
		b.Fatal(err)
	}
	if err := router.RegisterPluginHandler(provider, service); err != nil {
		b.Fatal(err)
	}
	body := append([]byte{0x0a, 0xfd, 0x01}, bytes.Repeat([]byte("x"), 253)...) // a StringValue
	target := "/services/echo/" + provider + echo.Unary
	handler, header := host.Handler(), hosttest.IdentityHeader(caller.GetRuntimeId(), caller.GetRuntimeToken())
	header.Set("Content-Type", "application/proto")
	header.Set("Connect-Protocol-Version", "1")
	header.Set("User-Agent", "connect-go/1.19 (go1.26)")
	secure, ctx := &tls.ConnectionState{Version: tls.VersionTLS13}, b.Context()
	b.ReportAllocs()
	for b.Loop() {
		r := (&http.Request{
			Method: http.MethodPost, URL: &url.URL{Path: target}, RequestURI: target, Host: host.Addr(), RemoteAddr: "127.0.0.1:40000",
			Proto: "HTTP/2.0", ProtoMajor: 2, TLS: secure, Header: header.Clone(),
			Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
		}).WithContext(ctx)
		w := &memoryAnswer{header: http.Header{}}
		handler.ServeHTTP(w, r)
		if w.status != http.StatusOK || !bytes.Equal(w.body.Bytes(), body) {
			b.Fatalf("status %d, %d bytes", w.status, w.body.Len())
		}
	}
}

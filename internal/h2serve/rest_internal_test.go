package h2serve

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// agreed is a connection as if TLS had been agreed on.
type agreed struct{ net.Conn }

func (agreed) TLS() *tls.ConnectionState { return &tls.ConnectionState{NegotiatedProtocol: protocol} }
func (a agreed) Abort()                  { _ = a.Close() }

// requests sends so many requests from a stream on.
func requests(t *testing.T, to io.Writer, from uint32, n int) {
	t.Helper()
	var out, block bytes.Buffer
	enc, framer := hpack.NewEncoder(&block), http2.NewFramer(&out, nil)
	for i := range n {
		block.Reset()
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "test"}, {":path", "/"}} {
			_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true}) // of no table
		}
		_ = framer.WriteHeaders(http2.HeadersFrameParam{
			StreamID: from + uint32(2*i), BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true,
		})
	}
	if _, err := to.Write(out.Bytes()); err != nil {
		t.Error(err)
	}
}

// A connection on which nothing happens keeps no goroutine but the one that reads, and no buffer;
// what comes later is served.
func TestConn_Rests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const at, period = 8, time.Second
		release, served := make(chan struct{}), make(chan struct{}, 2*at)
		s := New(Config{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_ = http.NewResponseController(w).Flush()
				if w.(*response).waiting != nil { //nolint:forcetypeassert // it is
					t.Error("a response that is flushed holds a buffer")
				}
				<-release
				_, _ = w.Write(make([]byte, 1000))
				served <- struct{}{}
			}),
			Context: context.Background(), HandshakeTimeout: time.Hour, IdleTimeout: time.Hour, PingAfter: time.Hour,
			PingTimeout: looks * period, WriteTimeout: time.Hour, MaxStreams: 100, MaxHeaderBytes: 1 << 14,
			StreamWindow: 1 << 16, ConnWindow: 1 << 16,
		})
		here, there := net.Pipe()
		s.begin(agreed{there})
		var c *conn
		for c = range s.conns {
			break
		}
		go func() { _, _ = io.Copy(io.Discard, here) }()
		_, _ = io.WriteString(here, http2.ClientPreface)
		requests(t, here, 1, at)
		synctest.Wait()
		close(release)
		synctest.Wait()
		if n := c.resting.Load(); n < at/2 || n != s.resting.Load() {
			t.Errorf("%d rest, and %d of all", n, s.resting.Load())
		}
		time.Sleep(3 * period)
		synctest.Wait()
		if c.mu.Lock(); c.out != nil || c.spare != nil || c.resting.Load() != 0 || s.resting.Load() != 0 {
			t.Errorf("%d rest; buffers: %d, %d", c.resting.Load(), cap(c.out), cap(c.spare))
		}
		c.mu.Unlock()
		requests(t, here, 2*at+1, 1)
		synctest.Wait()
		if len(served) != at+1 {
			t.Errorf("%d requests were served", len(served))
		}
		_ = s.Close()
		_ = here.Close()
		s.tasks.Wait()
	})
}

package goplugin_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/goplugin"
)

// rawPlugin has a plugin answer the first call to it frame by frame. It sends until it cannot, or has sent enough, which
// it reports.
func rawPlugin(t *testing.T, send func(f *http2.Framer, conn net.Conn) error, most int) (c *goplugin.Control, sent <-chan int) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "goplugin") //nolint:usetesting // a socket needs a short name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	host, own := newIdentity(t), newIdentity(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(dir, "plugin"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	clients := x509.NewCertPool()
	clients.AddCert(certificateOf(t, host))
	cfg := &tls.Config{
		Certificates: own.TLS(&goplugin.Hello{Certificate: certificateOf(t, host)}).Certificates, NextProtos: []string{"h2"},
		ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}
	done := make(chan int, 1)
	go func() {
		n := 0
		defer func() { done <- n }()
		raw, err := l.Accept()
		if err != nil {
			return
		}
		conn := tls.Server(raw, cfg)
		defer func() { _ = raw.Close() }()
		if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(conn, conn)
		for asked := f.WriteSettings() != nil; !asked; {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			asked = frame.Header().Type == http2.FrameHeaders
		}
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		for n < most && send(f, conn) == nil {
			n++
		}
	}()
	hello := &goplugin.Hello{Socket: l.Addr().String(), Certificate: certificateOf(t, own)}
	c = goplugin.NewControl(hello, host.TLS(hello))
	t.Cleanup(c.Close)
	return c, done
}

// A plugin that sends more on its control connection than anything explains is cut off.
func TestAudit_H48_FloodsOnTheControlConnection(t *testing.T) {
	t.Parallel()
	const most = 60_000
	for name, send := range map[string]func(f *http2.Framer, conn net.Conn) error{
		"pings":    func(f *http2.Framer, _ net.Conn) error { return f.WritePing(false, [8]byte{}) },
		"settings": func(f *http2.Framer, _ net.Conn) error { return f.WriteSettings() },
		"records of a byte": func(_ *http2.Framer, conn net.Conn) error {
			var frame bytes.Buffer
			if err := http2.NewFramer(&frame, nil).WriteRawFrame(0xbb, 0, 0, make([]byte, 64)); err != nil {
				return err
			}
			for _, b := range frame.Bytes() {
				if _, err := conn.Write([]byte{b}); err != nil {
					return err
				}
			}
			return nil
		},
		"windows": func(f *http2.Framer, _ net.Conn) error { return f.WriteWindowUpdate(1, 1) },
		"interim heads": func(f *http2.Framer, _ net.Conn) error {
			var interim bytes.Buffer
			_ = hpack.NewEncoder(&interim).WriteField(hpack.HeaderField{Name: ":status", Value: "103"})
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: interim.Bytes(), EndHeaders: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, sent := rawPlugin(t, send, most)
			ctx, cancel := context.WithCancel(t.Context())
			answered := make(chan error, 1)
			go func() { answered <- c.Health(ctx) }()
			n := <-sent
			cancel()
			if err := <-answered; err == nil {
				t.Error("it is taken for healthy")
			}
			if n == most {
				t.Errorf("after %d it is not cut off", n)
			}
		})
	}
}

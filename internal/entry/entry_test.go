package entry_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/entry"
	"github.com/masegraye/connect-plugin-go/internal/turns"
)

// The TLS handshakes of all plugins of a process take the turns of the process while they compute.
func TestAudit_USE42_HandshakesOfThePluginsOfAProcessTakeTurns(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	s.Close()
	below, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	process, free := turns.NewProcess(1), make(chan bool, 100)
	e := entry.Open(&watched{Listener: below, wrote: func() { free <- isFree(process.Of(0)) }}, entry.Config{
		TLS:              &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13},
		HandshakeTimeout: time.Minute, MaxConnections: 10, MaxPerAddress: 10, Turns: process,
		Key: func(net.Addr) string { return "one" },
	})
	defer e.End()
	client := &tls.Dialer{Config: &tls.Config{RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, NextProtos: []string{"h2"}}}
	c, err := client.DialContext(t.Context(), "tcp", below.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if <-free {
		t.Error("the plugin answered a ClientHello without a turn")
	}
	if _, err := e.Accept(); err != nil {
		t.Fatal(err)
	}
	if !isFree(process.Of(0)) || !isFree(process.Of(1)) {
		t.Error("a turn is taken after the handshake")
	}
}

// isFree reports whether there is a turn for whoever wants one now.
func isFree(of *turns.Turns) bool {
	ended, end := context.WithCancel(context.Background())
	end()
	free := of.Await(ended)
	if free {
		of.Give()
	}
	return free
}

// watched is a listener that tells of each write.
type watched struct {
	net.Listener

	wrote func()
}

func (l *watched) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &watchedConn{c, l.wrote}, nil
}

type watchedConn struct {
	net.Conn

	wrote func()
}

func (c *watchedConn) Write(p []byte) (int, error) {
	c.wrote()
	return c.Conn.Write(p)
}

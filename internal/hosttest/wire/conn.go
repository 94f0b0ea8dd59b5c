// Package wire speaks the handshake with a host message by message, over one
// connection or, in a bubble of synctest, in memory. It is for tests only.
package wire

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

// Conn is one TLS connection to a host, and what it can be bound to.
type Conn struct {
	Binding []byte
	Client  *http.Client
	url     string
}

// NewConn takes over a connection until the test ends.
func NewConn(t testing.TB, conn *tls.Conn, url string) *Conn {
	t.Helper()
	state := conn.ConnectionState()
	binding, err := transcript.ChannelBinding(&state)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}
	// It begins HTTP/2 at once: a host does not wait for long until a connection says something.
	only, err := transport.NewClientConn(t.Context(), "https", "host:443")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = only.Close() })
	return &Conn{Binding: binding, Client: &http.Client{Transport: only}, url: url}
}

// Dial opens one connection to a host, without a client certificate.
func Dial(t testing.TB, host *hosttest.Host) *Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", host.Addr(), host.StrangerTLS())
	if err != nil {
		t.Fatal(err)
	}
	return NewConn(t, conn, host.URL)
}

// Close ends the connection.
func (c *Conn) Close() {
	if only, ok := c.Client.Transport.(io.Closer); ok {
		_ = only.Close()
	}
}

// Prove proves a request, bound to the connection or not.
func (c *Conn) Prove(t testing.TB, m *connectpluginv1.HandshakeRequest, bound bool) *connectpluginv1.HandshakeRequest {
	t.Helper()
	if bound {
		return Prove(t, m, hosttest.Secret, c.Binding)
	}
	return Prove(t, m, hosttest.Secret, nil)
}

// Handshake sends a request as it is and returns the code, zero for success.
func (c *Conn) Handshake(t testing.TB, m *connectpluginv1.HandshakeRequest, opts ...connect.ClientOption) connect.Code {
	t.Helper()
	client := connectpluginv1connect.NewHandshakeServiceClient(c.Client, c.url, opts...)
	copied, _ := proto.Clone(m).(*connectpluginv1.HandshakeRequest)
	resp, err := client.Handshake(t.Context(), connect.NewRequest(copied))
	if err != nil {
		t.Logf("handshake of %q: %v", m.GetSelfId(), err)
		return connect.CodeOf(err)
	}
	if m.GetSelfId() != "" && resp.Msg.GetRuntimeToken() == "" {
		t.Fatal("the host accepted the handshake and gave no identity")
	}
	return 0
}

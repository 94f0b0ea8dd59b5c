package connectplugin_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

// clientProofNumber is the number of HandshakeRequest.client_proof.
const clientProofNumber = 18

// prove proves a request as docs/protocol.md says, by other means than the
// library's client.
func prove(t testing.TB, m *connectpluginv1.HandshakeRequest, secret, binding []byte) *connectpluginv1.HandshakeRequest {
	t.Helper()
	key, err := transcript.ClientKey(secret, m.GetClientNonce())
	if err != nil {
		t.Fatal(err)
	}
	signed := transcript.New("connectplugin handshake v1 request")
	signed.Message(m, clientProofNumber)
	signed.Optional(binding)
	m.ClientProof = key.Proof(signed)
	return m
}

// freshRequest is an unproven request with a nonce of its own, issued now.
func freshRequest(selfID string) *connectpluginv1.HandshakeRequest {
	m := oldRequest(selfID)
	m.ClientNonce = make([]byte, transcript.NonceSize)
	_, _ = rand.Read(m.GetClientNonce())
	m.IssuedAt = timestamppb.Now()
	return m
}

// wireConn is one TLS connection to a host, and what it can be bound to.
type wireConn struct {
	binding []byte
	client  *http.Client
	url     string
}

// newWireConn takes over a connection until the test ends.
func newWireConn(t testing.TB, conn *tls.Conn, url string) *wireConn {
	t.Helper()
	state := conn.ConnectionState()
	binding, err := transcript.ChannelBinding(&state)
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			err := errors.New("one connection only")
			once.Do(func() { err = nil })
			return conn, err
		},
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = conn.Close()
	})
	return &wireConn{binding: binding, client: &http.Client{Transport: transport}, url: url}
}

// dialWire opens one connection to a host, without a client certificate.
func dialWire(t testing.TB, host *hosttest.Host) *wireConn {
	t.Helper()
	conn, err := tls.Dial("tcp", host.Addr(), host.StrangerTLS())
	if err != nil {
		t.Fatal(err)
	}
	return newWireConn(t, conn, host.URL)
}

// handshake sends a request as it is and returns the code, zero for success.
func (c *wireConn) handshake(t testing.TB, m *connectpluginv1.HandshakeRequest, opts ...connect.ClientOption) connect.Code {
	t.Helper()
	client := connectpluginv1connect.NewHandshakeServiceClient(c.client, c.url, opts...)
	copied, _ := proto.Clone(m).(*connectpluginv1.HandshakeRequest)
	resp, err := client.Handshake(t.Context(), connect.NewRequest(copied))
	if err != nil {
		return connect.CodeOf(err)
	}
	if m.GetSelfId() != "" && resp.Msg.GetRuntimeToken() == "" {
		t.Fatal("the host accepted the handshake and gave no identity")
	}
	return 0
}

// pipeListener accepts connections in memory, so that a host runs in a bubble of
// synctest, whose time tests choose.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (*pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// bubbleHost is a host in a bubble, reached in memory over TLS.
type bubbleHost struct {
	*connectplugin.Host

	authority *connectplugin.Authority
	listener  *pipeListener
	mu        sync.Mutex
	events    []connectplugin.AuditEvent
}

// bubbleURL is where a host in a bubble is.
const bubbleURL = "https://localhost"

// inBubble runs a host and a test of it in a bubble. The certificates are made in
// there, the time is the bubble's.
func inBubble(t *testing.T, edit func(*connectplugin.ServeConfig), test func(t *testing.T, h *bubbleHost)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &bubbleHost{listener: newPipeListener(), authority: hosttest.NewAuthority(t)}
		cfg := &connectplugin.ServeConfig{
			Authority: h.authority, Logger: hosttest.Logger(t), Audit: h.audit,
			Limits: connectplugin.Limits{HandshakesPerSecond: 1e6, HandshakeBurst: 1e6},
		}
		edit(cfg)
		host, err := connectplugin.NewHost(cfg)
		if err != nil {
			t.Fatal(err)
		}
		h.Host = host
		served := make(chan error, 1)
		ctx, cancel := context.WithCancel(context.Background())
		go func() { served <- host.Serve(ctx, h.listener) }()
		t.Cleanup(func() {
			cancel()
			if err := <-served; err != nil {
				t.Errorf("host: %v", err)
			}
		})
		test(t, h)
	})
}

func (h *bubbleHost) audit(e connectplugin.AuditEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

// reasons lists why the host refused or limited, in order.
func (h *bubbleHost) reasons() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for _, e := range h.events {
		if e.Kind == connectplugin.AuditAuthFailed || e.Kind == connectplugin.AuditLimited {
			out = append(out, e.Reason)
		}
	}
	return slices.Clone(out)
}

// dial opens a connection to the host.
func (h *bubbleHost) dial(t testing.TB) *wireConn {
	t.Helper()
	conn, err := h.dialTLS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return newWireConn(t, conn, bubbleURL)
}

func (h *bubbleHost) dialTLS(ctx context.Context) (*tls.Conn, error) {
	here, there := net.Pipe()
	select {
	case h.listener.conns <- there:
	case <-h.listener.done:
		return nil, net.ErrClosed
	}
	cfg := h.authority.ClientTLS()
	cfg.ServerName = "localhost"
	conn := tls.Client(here, cfg)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return conn, nil
}

// httpClient dials the host as often as it must.
func (h *bubbleHost) httpClient(t testing.TB) *http.Client {
	t.Helper()
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext:    func(ctx context.Context, _, _ string) (net.Conn, error) { return h.dialTLS(ctx) },
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

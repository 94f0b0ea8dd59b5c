package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// BubbleURL is where a host in a bubble is.
const BubbleURL = "https://localhost"

// BubbleHost is a host in a bubble, reached in memory over TLS.
type BubbleHost struct {
	*connectplugin.Host

	authority *connectplugin.Authority
	listener  *pipeListener
	CutsOff   bool // a test has the host end while calls go on that do not
	mu        sync.Mutex
	Events    []connectplugin.AuditEvent
}

// Enrol obtains an identity over a new connection, or renews one.
func (h *BubbleHost) Enrol(t *testing.T, header http.Header) *connectpluginv1.HandshakeResponse {
	t.Helper()
	conn := h.Dial(t)
	req := connect.NewRequest(hosttest.OldRequest("api"))
	maps.Copy(req.Header(), header)
	resp, err := connectpluginv1connect.NewHandshakeServiceClient(conn.Client, conn.url).Handshake(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Msg
}

// Grant asks for the capability over a new connection.
func (h *BubbleHost) Grant(t *testing.T, owner *connectpluginv1.HandshakeResponse) (*connectpluginv1.CapabilityGrant, connect.Code) {
	t.Helper()
	conn := h.Dial(t)
	resp, err := connectpluginv1connect.NewCapabilityBrokerClient(conn.Client, conn.url).RequestCapability(t.Context(),
		hosttest.WithCredentials(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"}, owner.GetRuntimeId(), owner.GetRuntimeToken()))
	if err != nil {
		return nil, connect.CodeOf(err)
	}
	return resp.Msg.GetGrant(), 0
}

// Use calls the capability over a new connection and returns the code, zero for
// success.
func (h *BubbleHost) Use(t *testing.T, grant *connectpluginv1.CapabilityGrant) connect.Code {
	t.Helper()
	conn := h.Dial(t)
	req := connect.NewRequest(&loggerv1.LogRequest{})
	req.Header().Set("Authorization", "Bearer "+grant.GetBearerToken())
	_, err := loggerv1connect.NewLoggerClient(conn.Client, grant.GetEndpointUrl()).Log(t.Context(), req)
	return hosttest.CodeOrZero(err)
}

// Client connects a client in the bubble, which dials the host in memory.
func (h *BubbleHost) Client(t *testing.T, selfID string) *connectplugin.Client {
	t.Helper()
	transport := &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: h.authority.ClientTLS(),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return h.listener.dial(ctx) },
	}
	c, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: BubbleURL, SelfID: selfID, SelfVersion: "1.0.0", HTTPClient: &http.Client{Transport: transport},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		transport.CloseIdleConnections()
	})
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// Reasons lists why the host refused or limited, in order.
func (h *BubbleHost) Reasons() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for _, e := range h.Events {
		if e.Kind == connectplugin.AuditAuthFailed || e.Kind == connectplugin.AuditLimited {
			out = append(out, e.Reason)
		}
	}
	return slices.Clone(out)
}

// Dial opens a connection to the host.
func (h *BubbleHost) Dial(t testing.TB) *Conn {
	t.Helper()
	return NewConn(t, h.Raw(t), BubbleURL)
}

// Raw opens a connection to the host on which a test writes frames itself.
func (h *BubbleHost) Raw(t testing.TB) *tls.Conn {
	t.Helper()
	conn, err := h.dialTLS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.NetConn().Close() })
	return conn
}

// HTTPClient dials the host as often as it must.
func (h *BubbleHost) HTTPClient(t testing.TB) *http.Client {
	t.Helper()
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext:    func(ctx context.Context, _, _ string) (net.Conn, error) { return h.dialTLS(ctx) },
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (h *BubbleHost) audit(e connectplugin.AuditEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Events = append(h.Events, e)
}

func (h *BubbleHost) dialTLS(ctx context.Context) (*tls.Conn, error) {
	here, err := h.listener.dial(ctx)
	if err != nil {
		return nil, err
	}
	cfg := h.authority.ClientTLS()
	cfg.ServerName = "localhost"
	conn := tls.Client(here, cfg)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = here.Close()
		return nil, err
	}
	return conn, nil
}

// InBubble runs a host and a test of it in a bubble. The certificates are made in
// there, the time is the bubble's.
func InBubble(t *testing.T, edit func(*connectplugin.ServeConfig), test func(t *testing.T, h *BubbleHost)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &BubbleHost{listener: newPipeListener(), authority: hosttest.NewAuthority(t)}
		cfg := &connectplugin.ServeConfig{
			Authority: h.authority, Logger: hosttest.Logger(t), Audit: h.audit,
			Limits: connectplugin.Limits{HandshakesPerSecond: 1e6, HandshakeBurst: 1e6, WatchEventsPerSecond: 1e6, WatchEventBurst: 1e6},
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
			if err := <-served; err != nil && (!h.CutsOff || !errors.Is(err, context.DeadlineExceeded)) {
				t.Errorf("host: %v", err)
			}
		})
		test(t, h)
	})
}

package edge_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// calm is a listener to which nobody connects.
type calm struct {
	once  sync.Once
	ended chan struct{}
}

func (l *calm) Accept() (net.Conn, error) {
	<-l.ended
	return nil, net.ErrClosed
}

func (l *calm) Close() error {
	l.once.Do(func() { close(l.ended) })
	return nil
}

func (*calm) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// comingFrom gives requests to a host as a connection from an address does, in plaintext.
type comingFrom struct {
	host *connectplugin.Host
	addr string
}

func (c comingFrom) Do(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	r = r.Clone(r.Context())
	r.RequestURI, r.Host, r.RemoteAddr = r.URL.RequestURI(), r.URL.Host, net.JoinHostPort(c.addr, "7")
	c.host.Handler().ServeHTTP(w, r)
	return w.Result(), nil
}

func (c comingFrom) handshake(ctx context.Context, selfID string) (*connect.Response[connectpluginv1.HandshakeResponse], error) {
	client := connectpluginv1connect.NewHandshakeServiceClient(c, "http://127.0.0.1:1")
	return client.Handshake(ctx, connect.NewRequest(hosttest.OldRequest(selfID)))
}

// Strangers at ever so many addresses, each within the budget of its own, have as many events recorded one by one as all of
// them may together, and a second later one that says what else there was. What is refused to somebody the host knows is
// recorded all the same.
func TestAllStrangersShareABudgetOfTheAudit(t *testing.T) {
	t.Parallel()
	const addresses, each, room = 150, 20, 1000
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var events []connectplugin.AuditEvent
		host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
			AllowInsecure: true, Logger: hosttest.Logger(t), HealthProbe: connectplugin.HealthProbeConfig{Disabled: true},
			Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"one": {AllowUnproven: true}}},
			Audit: func(e connectplugin.AuditEvent) {
				mu.Lock()
				defer mu.Unlock()
				events = append(events, e)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- host.Serve(ctx, &calm{ended: make(chan struct{})}) }()
		synctest.Wait()
		known := comingFrom{host, "192.0.2.1"}
		one, err := known.handshake(t.Context(), "one")
		if err != nil {
			t.Fatal(err)
		}
		for i := range addresses * each {
			if _, err := (comingFrom{host, fmt.Sprintf("2001:db8:0:%x::1", i%addresses)}).handshake(t.Context(), "nobody"); err == nil {
				t.Fatal("a stranger was let in")
			}
		}
		kv := &connectpluginv1.RegisterServiceRequest{ServiceType: "kv", Version: "1.0.0", EndpointPath: "/kv/"}
		register := hosttest.WithCredentials(kv, one.Msg.GetRuntimeId(), one.Msg.GetRuntimeToken())
		registry := connectpluginv1connect.NewServiceRegistryClient(known, "http://127.0.0.1:1")
		if _, err := registry.RegisterService(t.Context(), register); err == nil {
			t.Fatal("what policy forbids was registered")
		}
		time.Sleep(2 * time.Second) // of the bubble
		cancel()
		if err := <-served; err != nil && !errors.Is(err, connectplugin.ErrHostClosed) {
			t.Error(err)
		}
		var single, denied, rest int
		for _, e := range events {
			switch {
			case strings.HasPrefix(e.Peer, "2001:"):
				single++
			case e.RuntimeID == one.Msg.GetRuntimeId() && e.Kind == connectplugin.AuditDenied:
				denied++
			case e.Count > 0:
				rest += e.Count
				if want := fmt.Sprintf("auth_failed %d; of %d addresses", addresses*each-room, addresses); e.Kind != connectplugin.AuditLimited || !strings.HasSuffix(e.Reason, want) {
					t.Errorf("%s, %q, want ... %q", e.Kind, e.Reason, want)
				}
			}
		}
		if single != room || rest != addresses*each-room || denied != 1 {
			t.Errorf("%d events of strangers, %d more are told of, %d of the plugin; want %d, %d, 1", single, rest, denied, room, addresses*each-room)
		}
	})
}

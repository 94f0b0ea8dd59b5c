package recovery_test

import (
	"context"
	"crypto/tls"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// hang registers a provider that takes connections and questions, and answers none. It enrols
// over a connection that it shares with others like it.
func hang(t *testing.T, host *hosttest.Restartable, conn *wire.Conn, cfg *tls.Config) {
	t.Helper()
	at := hosttest.ServeTLS(t, cfg, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	m := wire.FreshRequest("provider")
	m.Provides = []*connectpluginv1.ServiceDeclaration{{Type: echoType, Version: "1.0.0"}}
	enrolled, err := connectpluginv1connect.NewHandshakeServiceClient(conn.Client, host.URL).Handshake(t.Context(), connect.NewRequest(
		conn.Prove(t, m, true)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = connectpluginv1connect.NewServiceRegistryClient(conn.Client, host.URL).RegisterService(t.Context(), hosttest.WithCredentials(
		&connectpluginv1.RegisterServiceRequest{
			ServiceType: echoType, Version: "1.0.0", EndpointPath: "/", Metadata: map[string]string{"base_url": at},
		}, enrolled.Msg.GetRuntimeId(), enrolled.Msg.GetRuntimeToken()))
	if err != nil {
		t.Fatal(err)
	}
}

// However many plugins hang, each for longer than a test lasts, the others are asked in every
// round, and the end of one is noticed.
func TestAudit_USE44_TheHungDelayNobody(t *testing.T) {
	t.Parallel()
	const hung = 70
	host := start(t, instances(2*hung, connectplugin.HealthProbeConfig{
		Interval: 100 * time.Millisecond, Timeout: 2 * hosttest.Wait, FailureThreshold: 1, Lease: time.Hour,
	}))
	cfg, err := host.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	conn := wire.Dial(t, host.Host)
	for range hung {
		hang(t, host, conn, cfg)
	}
	c := host.Enrol(t, "provider", hosttest.Declaring([]string{echoType}, nil))
	var asked atomic.Int32
	var ill atomic.Bool
	mux := http.NewServeMux()
	mux.Handle(connectpluginv1connect.NewPluginControlHandler(asking{control{id: c.RuntimeID}, &asked, &ill}))
	at, stop := hosttest.ServeTLSUntil(t, cfg, mux)
	err = hosttest.RegisterWith(t, c, &connectpluginv1.RegisterServiceRequest{
		ServiceType: echoType, Version: "1.0.0", EndpointPath: "/", Metadata: map[string]string{"base_url": at},
	})
	if err != nil {
		t.Fatal(err)
	}
	health := func() connectpluginv1.HealthState {
		for _, p := range host.Plugins() {
			if p.RuntimeID == c.RuntimeID() {
				return p.Health
			}
		}
		return connectpluginv1.HealthState_HEALTH_STATE_UNSPECIFIED
	}
	hosttest.Eventually(t, "the one that lives is asked again and again", func() bool { return asked.Load() >= 4 && health() == healthy })
	ill.Store(true)
	hosttest.Eventually(t, "what it says is known", func() bool { return health() == connectpluginv1.HealthState_HEALTH_STATE_DEGRADED })
	stop()
	hosttest.Eventually(t, "its end is noticed", func() bool { return health() == connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY })
}

// asking counts the questions, and is degraded when it is told to be.
type asking struct {
	control

	asked *atomic.Int32
	ill   *atomic.Bool
}

// GetHealth answers as control does.
func (a asking) GetHealth(ctx context.Context, req *connect.Request[connectpluginv1.GetHealthRequest]) (*connect.Response[connectpluginv1.GetHealthResponse], error) {
	a.asked.Add(1)
	resp, err := a.control.GetHealth(ctx, req)
	if err == nil && a.ill.Load() {
		resp.Msg.State = connectpluginv1.HealthState_HEALTH_STATE_DEGRADED
	}
	return resp, err
}

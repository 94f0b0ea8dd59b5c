package registry_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// asked notes in which protocols a plugin is asked, and refuses what it does not understand.
type asked struct {
	next  http.Handler
	knows func(inGRPC bool) bool

	mu    sync.Mutex
	kinds []string
}

func (a *asked) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	inGRPC := strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
	a.mu.Lock()
	a.kinds = append(a.kinds, map[bool]string{true: "gRPC", false: "Connect"}[inGRPC])
	a.mu.Unlock()
	if !a.knows(inGRPC) {
		w.WriteHeader(http.StatusUnsupportedMediaType)
		return
	}
	a.next.ServeHTTP(w, r)
}

func (a *asked) first(n int) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.kinds[:min(n, len(a.kinds))])
}

// A plugin that made its handshake in gRPC is asked for its health in that, so that a server of gRPC alone sees nothing else;
// one of which that is a wrong guess is asked in what it understands.
func TestHealthProbe_AsksInTheProtocolOfTheHandshake(t *testing.T) {
	t.Parallel()
	all := func(bool) bool { return true }
	alone := func(inGRPC bool) bool { return inGRPC }
	never := func(inGRPC bool) bool { return !inGRPC }
	for name, tt := range map[string]struct {
		opts  []connect.ClientOption
		knows func(inGRPC bool) bool
		want  []string
	}{
		"gRPC, of a server of gRPC alone":       {[]connect.ClientOption{connect.WithGRPC()}, alone, []string{"gRPC", "gRPC", "gRPC"}},
		"gRPC, of a server of all":              {[]connect.ClientOption{connect.WithGRPC()}, all, []string{"gRPC", "gRPC", "gRPC"}},
		"gRPC, of a server of Connect alone":    {[]connect.ClientOption{connect.WithGRPC()}, never, []string{"gRPC", "Connect", "Connect"}},
		"Connect, of a server of gRPC alone":    {nil, alone, []string{"Connect", "gRPC", "gRPC"}},
		"Connect, of a server of Connect alone": {nil, never, []string{"Connect", "Connect", "Connect"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"p": {Provides: []string{"a"}, AllowOwnAddress: true}}}
				c.HealthProbe = connectplugin.HealthProbeConfig{Interval: 20 * time.Millisecond, Lease: time.Hour}
			})
			cfg, err := host.Authority.PluginTLS("p")
			if err != nil {
				t.Fatal(err)
			}
			p := &patient{}
			p.says(connectpluginv1.HealthState_HEALTH_STATE_DEGRADED)
			_, handler := connectpluginv1connect.NewPluginControlHandler(p)
			a := &asked{next: handler, knows: tt.knows}
			base := hosttest.ServeTLS(t, cfg, a)
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}}
			t.Cleanup(client.CloseIdleConnections)
			id, err := connectpluginv1connect.NewHandshakeServiceClient(client, host.URL, tt.opts...).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("p")))
			if err != nil {
				t.Fatal(err)
			}
			_, err = connectpluginv1connect.NewServiceRegistryClient(client, host.URL, tt.opts...).RegisterService(t.Context(), hosttest.WithCredentials(
				&connectpluginv1.RegisterServiceRequest{ServiceType: "a", Version: "1.0.0", Metadata: map[string]string{"base_url": base}},
				id.Msg.GetRuntimeId(), id.Msg.GetRuntimeToken()))
			if err != nil {
				t.Fatal(err)
			}
			hosttest.Eventually(t, "the plugin was asked, and its answer counts", func() bool {
				return len(a.first(len(tt.want))) == len(tt.want) && slices.ContainsFunc(host.Plugins(), func(s connectplugin.PluginStatus) bool {
					return s.Health == connectpluginv1.HealthState_HEALTH_STATE_DEGRADED
				})
			})
			if got := a.first(len(tt.want)); !slices.Equal(got, tt.want) {
				t.Errorf("asked in %v, want %v", got, tt.want)
			}
		})
	}
}

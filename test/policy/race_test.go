package policy_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
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

// direct is a client that calls the host's handler without a network, as a server
// of the user's own does: fast enough to meet a change of policy in any instant.
type direct struct{ host *hosttest.Host }

func (d direct) Do(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	r = r.Clone(r.Context())
	r.RequestURI, r.Host, r.RemoteAddr = r.URL.RequestURI(), r.URL.Host, "127.0.0.1:4711"
	r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true}
	d.host.Handler().ServeHTTP(w, r)
	return w.Result(), nil
}

// policyRace is plugins that do everything without a pause while policy changes.
type policyRace struct {
	host    *hosttest.Host
	workers sync.WaitGroup

	mu sync.RWMutex // held for reading by whoever waits for an answer
}

// run runs an act without a pause until ctx ends.
func (r *policyRace) run(ctx context.Context, act func(context.Context)) {
	r.workers.Go(func() {
		for ctx.Err() == nil {
			r.mu.RLock()
			act(ctx)
			r.mu.RUnlock()
		}
	})
}

// enrol obtains an identity, empty where that is refused.
func (r *policyRace) enrol(ctx context.Context, selfID string) (id, token string) {
	resp, err := connectpluginv1connect.NewHandshakeServiceClient(direct{r.host}, r.host.URL).Handshake(ctx, connect.NewRequest(hosttest.OldRequest(selfID)))
	if err != nil {
		return "", ""
	}
	return resp.Msg.GetRuntimeId(), resp.Msg.GetRuntimeToken()
}

func (r *policyRace) register(ctx context.Context, id, token string) {
	_, _ = connectpluginv1connect.NewServiceRegistryClient(direct{r.host}, r.host.URL).RegisterService(ctx,
		hosttest.WithCredentials(&connectpluginv1.RegisterServiceRequest{ServiceType: "raced", Version: "1.0.0", Metadata: racedMetadata}, id, token))
}

// racedMetadata takes a while to copy.
var racedMetadata = func() map[string]string {
	m := map[string]string{"base_url": "https://127.0.0.1:1"}
	for i := range 99 {
		m[strconv.Itoa(i)] = "x"
	}
	return m
}()

func (r *policyRace) grant(ctx context.Context, id, token string) {
	_, _ = connectpluginv1connect.NewCapabilityBrokerClient(direct{r.host}, r.host.URL).RequestCapability(ctx,
		hosttest.WithCredentials(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"}, id, token))
}

// watch watches until the host ends that.
func (r *policyRace) watch(ctx context.Context, id, token string) {
	_, _ = connectpluginv1connect.NewServiceRegistryClient(direct{r.host}, r.host.URL).WatchService(ctx,
		hosttest.WithCredentials(&connectpluginv1.WatchServiceRequest{ServiceType: "raced"}, id, token))
}

// stream calls a provider and stays until the host ends that.
func (r *policyRace) stream(ctx context.Context, provider, id, token string) {
	_, _ = connectpluginv1connect.NewHealthServiceClient(direct{r.host}, r.host.URL+"/services/raced/"+provider+"/raced").Watch(ctx,
		hosttest.WithCredentials(&connectpluginv1.HealthCheckRequest{}, id, token))
}

// change replaces the policy twice and looks at what is left once every request
// that met the second change was answered.
func (r *policyRace) change(t *testing.T, first, then *connectplugin.Policy, check func() string) {
	t.Helper()
	hosttest.SetPolicy(t, r.host, first)
	time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
	hosttest.SetPolicy(t, r.host, then)
	answered := make(chan struct{})
	go func() {
		r.mu.Lock()
		close(answered)
	}()
	select {
	case <-answered:
	case <-time.After(hosttest.Wait):
		t.Fatal("a call that policy does not allow any more goes on")
	}
	defer r.mu.Unlock()
	if left := check(); left != "" {
		t.Fatalf("left of what policy does not allow any more: %s", left)
	}
}

// raceHost is a host whose plugins "p" and "q" prove nothing.
func raceHost(t *testing.T) *policyRace {
	t.Helper()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Unproven("p", "q")
		c.Logger, c.Audit = nil, nil
		const much = 1 << 30
		c.Limits = connectplugin.Limits{
			HandshakesPerSecond: much, HandshakeBurst: much, RequestsPerSecond: much, RequestBurst: much,
			ChangesPerSecond: much, ChangeBurst: much, MaxIdentities: much, MaxIdentitiesPerPeer: much,
			MaxIdentitiesPerSelfID: much, MaxGrantsPerIdentity: much,
		}
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.LoggerCapability(&hosttest.RecordingLogger{}))
	})
	return &policyRace{host: host}
}

// Plugins register, ask for grants, watch and enrol while policy is replaced.
// Whatever met whatever, nothing is left of what the last policy does not allow.
func TestAudit_REG1_PolicyRacesWithEverything(t *testing.T) {
	t.Parallel()
	const rounds = 150
	allow := hosttest.Unproven("p", "q")
	allow.AllowMultiple = []string{"*"}
	for name, c := range raceCases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := raceHost(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer r.workers.Wait()
			defer cancel()
			c.start(ctx, t, r)
			for range rounds {
				r.change(t, allow, c.then, func() string { return c.check(r) })
			}
		})
	}
}

// raceCase is what goes on while policy is replaced, and what must not be left of it.
type raceCase struct {
	then  *connectplugin.Policy
	start func(ctx context.Context, t *testing.T, r *policyRace)
	check func(r *policyRace) string
}

func raceCases() map[string]raceCase {
	owned := hosttest.Unproven("p", "q")
	owned.AllowMultiple = nil
	narrow := &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"p": {AllowUnproven: true}, "q": {AllowUnproven: true}}}
	withoutRequires := hosttest.Unproven("p", "q")
	rules := withoutRequires.Plugins["q"]
	rules.Requires = nil
	withoutRequires.Plugins["q"] = rules
	return map[string]raceCase{
		"registrations and endpoints": {narrow, func(ctx context.Context, _ *testing.T, r *policyRace) {
			for range 3 {
				id, token := r.enrol(ctx, "p")
				r.run(ctx, func(ctx context.Context) { r.register(ctx, id, token) })
			}
		}, func(r *policyRace) string {
			return names(r.host.Registry().GetAllProviders("raced")) + leftOver(r.host.Usage().Endpoints, "endpoints")
		}},
		"owners": {owned, func(ctx context.Context, _ *testing.T, r *policyRace) {
			for _, selfID := range []string{"p", "q", "p", "q"} {
				id, token := r.enrol(ctx, selfID)
				r.run(ctx, func(ctx context.Context) {
					r.register(ctx, id, token)
					if rand.IntN(4) == 0 {
						r.host.Registry().UnregisterPluginServices(id)
					}
				})
			}
		}, func(r *policyRace) string {
			providers := r.host.Registry().GetAllProviders("raced")
			for _, p := range providers {
				if p.RuntimeID[0] != providers[0].RuntimeID[0] {
					return names(providers)
				}
			}
			return ""
		}},
		"grants": {narrow, func(ctx context.Context, _ *testing.T, r *policyRace) {
			for range 3 {
				id, token := r.enrol(ctx, "p")
				r.run(ctx, func(ctx context.Context) { r.grant(ctx, id, token) })
			}
		}, func(r *policyRace) string { return leftOver(r.host.Usage().Grants, "grants") }},
		"watches": {narrow, func(ctx context.Context, _ *testing.T, r *policyRace) {
			for range 3 {
				id, token := r.enrol(ctx, "p")
				// An open watch is answered when the host ends it.
				r.run(ctx, func(ctx context.Context) { r.watch(ctx, id, token) })
			}
		}, func(r *policyRace) string { return leftOver(r.host.Usage().Watches, "watches") }},
		"routed streams": {withoutRequires, func(ctx context.Context, t *testing.T, r *policyRace) {
			t.Helper()
			s := &hosttest.Streamer{}
			p := r.host.StartPlugin(t, "p", func(cfg *connectplugin.PluginServerConfig) {
				cfg.Services, cfg.Client.Secret = []connectplugin.PluginService{s.Service("raced")}, nil
			})
			for range 3 {
				id, token := r.enrol(ctx, "q")
				r.run(ctx, func(ctx context.Context) { r.stream(ctx, p.Client.RuntimeID(), id, token) })
			}
		}, func(*policyRace) string { return "" }},
		"identities": {&connectplugin.Policy{}, func(ctx context.Context, _ *testing.T, r *policyRace) {
			for range 3 {
				r.run(ctx, func(ctx context.Context) { r.enrol(ctx, "p") })
			}
		}, func(r *policyRace) string { return leftOver(r.host.Usage().Identities, "identities") }},
	}
}

func names(providers []*connectplugin.ServiceProvider) string {
	var all []string
	for _, p := range providers {
		all = append(all, p.RuntimeID+" "+p.RegistrationID)
	}
	return strings.Join(all, ", ")
}

func leftOver(n int, what string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d %s", n, what)
}

package attack_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// crowd is plugins that do everything at once, over TLS, while their operator does, too.
type crowd struct {
	host   *namesHost
	health *connectplugin.HealthServer
	served atomic.Int64 // calls and answers

	mu  sync.Mutex
	ids []string // the latest identities
}

// member is one plugin of a crowd, under whichever identity it has now.
type member struct {
	*crowd

	client     *http.Client
	options    []connect.ClientOption
	id, token  string
	authorized connect.HTTPClient
}

// act does one thing, which may be refused or ended at any time.
func (m *member) act(ctx context.Context) {
	base := m.host.URL
	acts := []func() error{
		func() error { return m.enrol(ctx, m.id) },
		func() error { return m.enrol(ctx, "") },
		func() error {
			_, err := connectpluginv1connect.NewServiceRegistryClient(m.authorized, base, m.options...).RegisterService(ctx, connect.NewRequest(
				&connectpluginv1.RegisterServiceRequest{ServiceType: "echo", Version: "1.0.0", EndpointPath: echoPath, Metadata: map[string]string{"base_url": "https://127.0.0.1:1"}}))
			return err
		},
		func() error {
			return first(connectpluginv1connect.NewServiceRegistryClient(m.authorized, base, m.options...).WatchService(ctx,
				connect.NewRequest(&connectpluginv1.WatchServiceRequest{ServiceType: "echo"})))
		},
		func() error {
			return first(connectpluginv1connect.NewHealthServiceClient(m.authorized, base, m.options...).Watch(ctx,
				connect.NewRequest(&connectpluginv1.HealthCheckRequest{Service: "echo"})))
		},
		func() error {
			resp, err := connectpluginv1connect.NewCapabilityBrokerClient(m.authorized, base, m.options...).RequestCapability(ctx,
				connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "echo"}))
			if err != nil {
				return err
			}
			granted := withHeader{m.client, hosttest.BearerHeader(resp.Msg.GetGrant().GetBearerToken())}
			return m.say(ctx, granted, resp.Msg.GetGrant().GetEndpointUrl())
		},
		func() error { return m.say(ctx, m.authorized, base) },
		func() error { return m.say(ctx, m.client, base) },
		func() error { return m.say(ctx, m.authorized, base+"/services/echo/"+m.someone()) },
		func() error { return m.watch(ctx, m.authorized, base) },
		func() error { return m.watch(ctx, m.authorized, base+"/services/echo/"+m.someone()) },
	}
	if err := acts[rand.IntN(len(acts))](); err == nil {
		m.served.Add(1)
	}
}

// first waits for the first answer of a stream.
func first[T any](stream *connect.ServerStreamForClient[T], err error) error {
	if err != nil {
		return err
	}
	stream.Receive()
	err = stream.Err()
	_ = stream.Close()
	return err
}

func (m *member) say(ctx context.Context, client connect.HTTPClient, base string) error {
	_, err := connect.NewClient[text, text](client, base+sayProc, m.options...).CallUnary(ctx, connect.NewRequest(wrapperspb.String("x")))
	return err
}

func (m *member) watch(ctx context.Context, client connect.HTTPClient, base string) error {
	return first(connect.NewClient[text, text](client, base+watchProc, m.options...).CallServerStream(ctx, connect.NewRequest(wrapperspb.String("x"))))
}

// enrol renews the identity, or obtains another.
func (m *member) enrol(ctx context.Context, id string) error {
	req := connect.NewRequest(hosttest.OldRequest("storage"))
	if id != "" {
		req = hosttest.WithCredentials(req.Msg, id, m.token)
	}
	resp, err := connectpluginv1connect.NewHandshakeServiceClient(m.client, m.host.URL, m.options...).Handshake(ctx, req)
	if err != nil {
		return err
	}
	m.id, m.token = resp.Msg.GetRuntimeId(), resp.Msg.GetRuntimeToken()
	m.authorized = withHeader{m.client, hosttest.IdentityHeader(m.id, m.token)}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ids = append(m.ids, m.id)[max(0, len(m.ids)-7):]
	return nil
}

// someone returns one of the latest identities.
func (c *crowd) someone() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ids) == 0 {
		return "nobody"
	}
	return c.ids[rand.IntN(len(c.ids))]
}

// operate does one thing that an operator does.
func (c *crowd) operate(policies []*connectplugin.Policy) error {
	switch rand.IntN(8) {
	case 0:
		c.host.Revoke(c.someone())
	case 1:
		c.host.RevokeSelf(oneID)
		c.host.Readmit(oneID)
	case 2:
		c.host.Registry().SetAllowedServices(c.someone(), []string{"echo"})
	case 3:
		c.health.SetServingStatus("echo", connectpluginv1.ServingStatus(1+rand.IntN(2)))
	case 4:
		_ = c.host.Plugins()
	default:
		return c.host.SetPolicy(policies[rand.IntN(len(policies))])
	}
	return nil
}

// Policy changes, identities end and calls begin at once, over TLS, in every protocol: under
// the race detector nothing races, and of what the last policy does not allow nothing is
// left.
func TestAudit_ATK22_EverythingAtOnce(t *testing.T) {
	t.Parallel()
	const changes = 250
	e, c := &echo{}, &crowd{health: connectplugin.NewHealthServer()}
	open := connectplugin.OpenPolicy()
	open.Public = nil
	byName := policyFor(map[string]func(*connectplugin.PluginPolicy){oneID: nil, otherID: func(p *connectplugin.PluginPolicy) { p.SelfIDs = []string{"storage"} }})
	bySelfID := policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": withCertificates(oneID, otherID)})
	endpoints := policyFor(map[string]func(*connectplugin.PluginPolicy){oneID: func(p *connectplugin.PluginPolicy) { p.Endpoint = "https://127.0.0.1:1" }, otherID: nil})
	policies := []*connectplugin.Policy{nil, open, byName, byName, bySelfID, endpoints, deny(policyFor(map[string]func(*connectplugin.PluginPolicy){oneID: nil}))}
	c.host = startNamesHost(t, byName, func(cfg *connectplugin.ServeConfig) {
		offersEcho(e)(cfg)
		cfg.HealthService, cfg.Logger, cfg.Audit = c.health, nil, nil
		cfg.Limits.ChangesPerSecond, cfg.Limits.ChangeBurst = 1e6, 1e6
		cfg.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		cfg.CapabilityBroker.RegisterCapability(hosttest.NewCapability(e.handler(), "echo", "1.0.0"))
	})
	ctx, cancel := context.WithCancel(t.Context())
	var plugins sync.WaitGroup
	for _, identity := range []string{oneID, otherID} {
		for _, options := range protocols {
			client := hosttest.HTTPClient(t, c.host.ca.TLS(c.host.ca.Certify(t, hosttest.URI(identity))))
			m := &member{crowd: c, client: client, options: options, authorized: client}
			plugins.Go(func() {
				for ctx.Err() == nil {
					m.act(ctx)
				}
			})
		}
	}
	for i := range changes {
		if err := c.operate(policies); err != nil {
			t.Error(err)
		}
		served := c.served.Load()
		if i%10 == 0 && c.host.SetPolicy(byName) == nil { // and somebody gets somewhere in between
			hosttest.Eventually(t, "a call is served", func() bool { return c.served.Load() > served })
		}
	}
	hosttest.SetPolicy(t, c.host.Host, nil)
	if n := len(c.host.Plugins()); n != 0 {
		t.Errorf("%d plugins are left", n)
	}
	cancel()
	plugins.Wait()
	hosttest.Eventually(t, "nothing is left", func() bool {
		u := c.host.Usage()
		return u.Identities+u.Grants+u.Registrations+u.Watches+u.Calls+u.Endpoints == 0
	})
	hosttest.SetPolicy(t, c.host.Host, byName)
	c.host.enrol(t, "storage", hosttest.URI(oneID))
}

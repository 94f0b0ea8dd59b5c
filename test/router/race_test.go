package router_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// contender is a plugin that is served at two places, as its own self id.
type contender struct {
	selfID    string
	endpoints [2]string
	client    atomic.Pointer[connectplugin.Client]
}

// Whatever happens to the router's tables at the same time, a call reaches the
// provider that it names or none, and nothing that the host handed out reaches
// into the tables.
func TestAudit_H33_H42_TablesUnderConcurrency(t *testing.T) {
	t.Parallel()
	authority := hosttest.NewAuthority(t)
	policy := echo.Policy()
	contenders := make([]*contender, 4)
	for i := range contenders {
		contenders[i] = newContender(t, authority, fmt.Sprintf("contender-%d", i))
		policy.Plugins[contenders[i].selfID] = hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = []string{echo.Type} })
	}
	var router *connectplugin.ServiceRouter
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Authority, c.Policy = authority, policy
		router = connectplugin.NewServiceRouter(connectplugin.NewHandshakeServer(c), nil, nil)
		c.ServiceRouter = router
	})
	host.Authority = authority
	caller := host.Enrol(t, "caller", hosttest.Requiring(echo.Type))
	ctx := t.Context()
	var all sync.WaitGroup
	var served atomic.Int64
	begun := time.Now()
	repeat := func(f func(i int)) {
		all.Go(func() {
			// For a while, and until some calls came through.
			for i := 0; ctx.Err() == nil && (time.Since(begun) < time.Second || served.Load() < 10 && time.Since(begun) < hosttest.Wait); i++ {
				f(i)
			}
		})
	}
	for _, c := range contenders {
		c.client.Store(echo.EnrolProvider(t, host, c.selfID))
		repeat(func(i int) { c.churn(ctx, t, host, router, i) })
		for _, opts := range hosttest.Protocols {
			repeat(func(int) {
				id := c.client.Load().RuntimeID()
				to := echo.At(host.URL+"/services/echo/"+id, caller.HTTPClient())
				resp, err := echo.NewClient(to, echo.Unary, opts...).CallUnary(ctx, connect.NewRequest(wrapperspb.String("who")))
				if err != nil {
					checkRefusal(ctx, t, err)
					return
				}
				served.Add(1)
				if got := resp.Msg.GetValue(); got != c.selfID {
					t.Errorf("a call to %s was answered by %s", c.selfID, got)
				}
			})
		}
	}
	repeat(func(int) { spoil(host.Registry()) })
	all.Wait()
	if served.Load() < 10 {
		t.Errorf("only %d calls were served", served.Load())
	}
}

// newContender serves at two places and answers with its self id.
func newContender(t *testing.T, authority *connectplugin.Authority, selfID string) *contender {
	t.Helper()
	c := &contender{selfID: selfID}
	cfg, err := authority.PluginTLS(selfID)
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.endpoints {
		server := echo.NewTrap(t, "127.0.0.1", cfg)
		server.Next = echo.Service{Unary: func(context.Context, *connect.Request[echo.Text]) (*connect.Response[echo.Text], error) {
			return connect.NewResponse(wrapperspb.String(selfID)), nil
		}}.Handler()
		c.endpoints[i] = "https://" + server.Addr
	}
	return c
}

// churn changes everything that the host knows of a plugin.
func (c *contender) churn(ctx context.Context, t *testing.T, host *hosttest.Host, router *connectplugin.ServiceRouter, i int) {
	client := c.client.Load()
	registered, err := client.RegistryClient().RegisterService(ctx, connect.NewRequest(&connectpluginv1.RegisterServiceRequest{
		ServiceType: echo.Type, Version: "1.0.0", EndpointPath: echo.Base, Metadata: map[string]string{"base_url": c.endpoints[i%2]},
	}))
	if err != nil {
		checkRefusal(ctx, t, err)
		return
	}
	router.RegisterPluginEndpoint(client.RuntimeID(), c.endpoints[(i+1)%2])
	_ = client.ReportHealth(ctx, connectpluginv1.HealthState_HEALTH_STATE_DEGRADED, "", nil)
	letPass(t, 5*time.Millisecond)
	switch i % 4 {
	case 0:
		_, _ = client.RegistryClient().UnregisterService(ctx, connect.NewRequest(
			&connectpluginv1.UnregisterServiceRequest{RegistrationId: registered.Msg.GetRegistrationId()}))
	case 1:
		host.Registry().UnregisterPluginServices(client.RuntimeID())
	case 2:
		host.Revoke(client.RuntimeID())
		if err := client.Connect(ctx); err != nil {
			checkRefusal(ctx, t, err)
		}
	}
}

// checkRefusal accepts that somebody is not there for the moment, and that a message
// broke off in the middle when its endpoint did: there is no form for that but a reset.
func checkRefusal(ctx context.Context, t *testing.T, err error) {
	code := connect.CodeOf(err)
	known := []connect.Code{connect.CodeNotFound, connect.CodeUnavailable, connect.CodeUnauthenticated}
	if _, reset := errors.AsType[*h2.ResetError](err); reset {
		return
	}
	if ctx.Err() == nil && !slices.Contains(known, code) {
		t.Errorf("%v", err)
	}
}

// spoil changes all that the registry hands out.
func spoil(registry *connectplugin.ServiceRegistry) {
	for _, p := range registry.GetAllProviders(echo.Type) {
		for _, q := range append(registry.GetServicesBy(p.RuntimeID), p) {
			for k := range q.Metadata {
				q.Metadata[k] = "https://127.0.0.1:1"
			}
			q.RuntimeID, q.EndpointPath, q.ServiceType, q.Version = "nobody", "/nowhere/", "different", "9.9.9"
		}
	}
}

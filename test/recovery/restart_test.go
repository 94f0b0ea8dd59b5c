package recovery_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A plugin notices at once that its host died, and is back when that is, whatever its
// interval of reports.
func TestAudit_USE22_APluginComesBackBeforeItsNextReport(t *testing.T) {
	t.Parallel()
	host := start(t, nil)
	provider := provide(t, host)
	conn := service(t, caller(t, host))
	for range 3 {
		host.Kill(t)
		host.Restart(t)
		hosttest.Eventually(t, "the provider is registered", func() bool {
			return host.Registered(echoType, provider.Client.RuntimeID())
		})
		hosttest.Eventually(t, "the service is available", func() bool { return conn.State() == available })
		if err := once(t.Context(), conn); err != nil {
			t.Errorf("%v", err)
		}
	}
}

// A connection that is cut is opened again; the identity stays.
func TestAudit_USE22_ACutConnectionCostsNoIdentity(t *testing.T) {
	t.Parallel()
	host := start(t, nil)
	provider := provide(t, host)
	c := caller(t, host)
	conn := service(t, c)
	ids := [2]string{provider.Client.RuntimeID(), c.RuntimeID()}
	for range 5 {
		host.Cut()
		hosttest.Eventually(t, "calls go through", func() bool { return once(t.Context(), conn) == nil })
	}
	if now := [2]string{provider.Client.RuntimeID(), c.RuntimeID()}; now != ids {
		t.Errorf("identities %q became %q", ids, now)
	}
}

// From the death of the host until its provider is back, a caller gets unavailable and
// nothing else, and the state of the service is not said to be available while the host
// is dead.
func TestAudit_USE23_NothingButUnavailable(t *testing.T) {
	t.Parallel()
	host := start(t, nil)
	provide(t, host)
	c := caller(t, host)
	conn := service(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	var calling sync.WaitGroup
	for _, call := range []func(context.Context, reachable, ...connect.ClientOption) error{once, back} {
		for protocol, opt := range protocols() {
			calling.Go(func() {
				for ctx.Err() == nil {
					err := call(ctx, conn, opt)
					if err != nil && ctx.Err() == nil && connect.CodeOf(err) != connect.CodeUnavailable {
						t.Errorf("%s: %v", protocol, err)
					}
				}
			})
		}
	}
	for range 5 {
		host.Kill(t)
		hosttest.Eventually(t, "the state is unavailable", func() bool { return conn.State() == unavailable })
		if err := c.ReportHealth(t.Context(), healthy, "", nil); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("a report to the dead host: %v", err)
		}
		host.Restart(t)
		hosttest.Eventually(t, "the service is available", func() bool { return conn.State() == available })
		if err := once(t.Context(), conn); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
	cancel()
	calling.Wait()
}

// A stream that the host's death cuts ends with unavailable, however its connections end.
func TestAudit_USE23_ACutStreamIsUnavailable(t *testing.T) {
	t.Parallel()
	for protocol, opt := range protocols() {
		for _, how := range hosttest.Deaths {
			t.Run(protocol+", "+string(how), func(t *testing.T) {
				t.Parallel()
				cutStreams(t, how, opt)
			})
		}
	}
}

func cutStreams(t *testing.T, how hosttest.Death, opt connect.ClientOption) {
	t.Helper()
	host := start(t, nil)
	provide(t, host)
	conn := service(t, caller(t, host))
	down, err := echo(conn, sayOn, opt).CallServerStream(t.Context(), connect.NewRequest(wrapperspb.String("x")))
	if err != nil || !down.Receive() {
		t.Fatalf("server stream: %v, %v", err, down.Err())
	}
	both := echo(conn, sayBack, opt).CallBidiStream(t.Context())
	if err := both.Send(wrapperspb.String("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := both.Receive(); err != nil {
		t.Fatal(err)
	}
	host.KillBy(t, how)
	if down.Receive() || connect.CodeOf(down.Err()) != connect.CodeUnavailable {
		t.Errorf("server stream: %v", down.Err())
	}
	if _, err := both.Receive(); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("bidi stream: %v", err)
	}
	_ = both.CloseRequest()
	if err := errors.Join(down.Close(), both.CloseResponse()); err != nil {
		t.Logf("close: %v", err)
	}
}

// A plugin that the policy of a host after a restart lets provide nothing asks for its type alone, and
// withdraws nothing there, when it ends, of what it had at the host before.
func TestAudit_USE23_WhoMayNotComeBackAsksForNothingElse(t *testing.T) {
	t.Parallel()
	p := policy()
	host := start(t, func(c *connectplugin.ServeConfig) { c.Policy = p })
	c, stop, _ := serve(t, host, "provider", false)
	hosttest.Eventually(t, "it knows that it is registered", func() bool {
		state := host.Lifecycle().GetHealthState(c.RuntimeID())
		return state != nil && state.State == healthy
	})
	host.Kill(t)
	p = providerMay(func(p *connectplugin.PluginPolicy) { p.Provides = []string{"other"} })
	host.Restart(t)
	hosttest.Eventually(t, "its registration is refused", func() bool { return count(host, connectplugin.AuditDenied, "") > 0 })
	stop()
	for _, e := range host.Audit.Events() {
		if e.Kind == connectplugin.AuditDenied && e.Procedure != connectpluginv1connect.ServiceRegistryRegisterServiceProcedure {
			t.Errorf("denied: %+v", e)
		}
	}
}

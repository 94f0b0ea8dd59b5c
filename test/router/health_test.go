package router_test

import (
	"context"
	"errors"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// A provider that cannot be reached five times in a row is set aside, and those
// who discover and who watch are sent to another. An error that a provider answers
// with is an answer and sets nobody aside.
func TestHealth_RoutedCallsSetAProviderAside(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(echo.Policy()))
	dead := echo.EnrolProvider(t, host, "provider")
	if err := echo.Register(t, dead, map[string]string{"base_url": "https://" + hosttest.FreeAddr(t)}); err != nil {
		t.Fatal(err)
	}
	rig := &echo.Rig{Host: host, Caller: host.Enrol(t, "caller", hosttest.Requiring(echo.Type))}
	alive := rig.Provide(t, "provider", echo.Service{Unary: func(context.Context, *connect.Request[echo.Text]) (*connect.Response[echo.Text], error) {
		return nil, connect.NewError(connect.CodeInternal, errors.New("a bug of the provider's own"))
	}}.Handler(), nil).Client
	w := hosttest.Watch(t, rig.Caller, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: echo.Type})
	if e := w.Next(t); e.GetEndpoint().GetProviderId() != dead.RuntimeID() {
		t.Fatalf("first %v", e)
	}
	fails := func(c *connectplugin.Client, n int, want connect.Code) {
		t.Helper()
		for range n {
			if out := echo.CallUnary(t.Context(), rig.Route(c.RuntimeID()), nil, nil); connect.CodeOf(out.Err) != want {
				t.Fatalf("call of %s: %v, want %v", c.RuntimeID(), out.Err, want)
			}
		}
	}
	uses := func(why string, want *connectplugin.Client) {
		t.Helper()
		if got, err := hosttest.Discover(t, rig.Caller, echo.Type, ""); err != nil || got.GetEndpoint().GetProviderId() != want.RuntimeID() {
			t.Errorf("%s: %v, %v; want %s", why, got, err, want.RuntimeID())
		}
	}
	fails(dead, 4, connect.CodeUnavailable)
	uses("after four failures", dead)
	w.Quiet(t, "after four failures")
	fails(dead, 1, connect.CodeUnavailable)
	if e := w.Next(t); e.GetEndpoint().GetProviderId() != alive.RuntimeID() || e.GetState() != hosttest.Available {
		t.Errorf("after five failures: %v", e)
	}
	uses("after five failures", alive)
	fails(alive, 10, connect.CodeInternal)
	uses("after ten errors that it answered with", alive)
	w.Quiet(t, "after ten errors that it answered with")
}

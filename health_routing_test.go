package connectplugin_test

import (
	"context"
	"errors"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A provider that cannot be reached five times in a row is set aside, and those
// who discover and who watch are sent to another. An error that a provider answers
// with is an answer and sets nobody aside.
func TestHealth_RoutedCallsSetAProviderAside(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, withPolicy(echoPolicy()))
	dead := enrolProvider(t, host, "provider")
	if err := registerEcho(t, dead, map[string]string{"base_url": "https://" + deadAddress(t)}); err != nil {
		t.Fatal(err)
	}
	rig := &echoRig{Host: host, caller: host.Enrol(t, "caller", requires(echoType))}
	alive := rig.provide(t, "provider", echoService{unary: func(context.Context, *connect.Request[echoText]) (*connect.Response[echoText], error) {
		return nil, connect.NewError(connect.CodeInternal, errors.New("a bug of the provider's own"))
	}}.handler(), nil).Client
	w := watch(t, rig.caller, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: echoType})
	if e := w.next(t); e.GetEndpoint().GetProviderId() != dead.RuntimeID() {
		t.Fatalf("first %v", e)
	}
	fails := func(c *connectplugin.Client, n int, want connect.Code) {
		t.Helper()
		for range n {
			if out := callUnary(t.Context(), rig.route(c.RuntimeID()), nil, nil); connect.CodeOf(out.err) != want {
				t.Fatalf("call of %s: %v, want %v", c.RuntimeID(), out.err, want)
			}
		}
	}
	uses := func(why string, want *connectplugin.Client) {
		t.Helper()
		if got, err := discover(t, rig.caller, echoType, ""); err != nil || got.GetEndpoint().GetProviderId() != want.RuntimeID() {
			t.Errorf("%s: %v, %v; want %s", why, got, err, want.RuntimeID())
		}
	}
	fails(dead, 4, connect.CodeUnavailable)
	uses("after four failures", dead)
	w.quiet(t, "after four failures")
	fails(dead, 1, connect.CodeUnavailable)
	if e := w.next(t); e.GetEndpoint().GetProviderId() != alive.RuntimeID() || e.GetState() != available {
		t.Errorf("after five failures: %v", e)
	}
	uses("after five failures", alive)
	fails(alive, 10, connect.CodeInternal)
	uses("after ten errors that it answered with", alive)
	w.quiet(t, "after ten errors that it answered with")
}

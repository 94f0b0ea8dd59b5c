package router_test

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// crowd is a rig with several providers of echo, each of which counts.
type crowd struct {
	*echo.Rig

	counts []*echo.Recorder // of the rig's provider, then of the others
	others []*hosttest.Plugin
}

// newCrowd starts a rig with a provider for each version, in this order.
func newCrowd(t *testing.T, edit func(*connectplugin.ServeConfig), versions ...string) *crowd {
	t.Helper()
	c := &crowd{Rig: &echo.Rig{Host: hosttest.Start(t, func(cfg *connectplugin.ServeConfig) {
		cfg.Policy = echo.Policy()
		if edit != nil {
			edit(cfg)
		}
	})}}
	for i, version := range versions {
		count, selfID := &echo.Recorder{Next: echo.Service{}.Handler()}, "provider"
		if i%2 == 1 {
			selfID = "other"
		}
		p := c.Provide(t, selfID, count, func(cfg *connectplugin.PluginServerConfig) { cfg.Services[0].Version = version })
		c.counts, c.others = append(c.counts, count), append(c.others, p)
	}
	c.Provider = c.others[0]
	c.Caller = c.Enrol(t, "caller", hosttest.Requiring(echo.Type))
	return c
}

// service connects the caller to the type.
func (c *crowd) service(t *testing.T, constraint string) *connectplugin.ServiceConn {
	t.Helper()
	conn, err := c.Caller.Service(t.Context(), echo.Type, constraint)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

// got returns how many calls each provider got since.
func (c *crowd) got() []int {
	var out []int
	for _, count := range c.counts {
		n := 0
		for _, r := range count.Take() {
			if r.URL.Path != "/connectplugin.v1.PluginControl/GetHealth" {
				n++
			}
		}
		out = append(out, n)
	}
	return out
}

// Calls of a type go to all who provide it, in every protocol and kind; one provider is had
// by whoever asks for it.
func TestAudit_USE12_CallsAreSpreadOverTheProviders(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, nil, "1.0.0", "1.0.0", "1.0.0")
	conn := c.service(t, "")
	for _, opts := range hosttest.Protocols {
		for kind, call := range echo.Kinds {
			echo.Want(t, kind, call(t.Context(), conn, opts, nil))
		}
	}
	// A third each, or an eighth of that for one that was slow, as any may be at times.
	each := c.got()
	for calls := 0; slices.Min(each) < 3; calls++ {
		if calls == 1000 {
			t.Fatalf("%d further calls did not reach each: %v", calls, each)
		}
		echo.Want(t, "unary", echo.CallUnary(t.Context(), conn, nil, nil))
		for i, n := range c.got() {
			each[i] += n
		}
	}
	one, err := c.Caller.Provider(t.Context(), echo.Type, c.others[1].Client.RuntimeID())
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	for range 9 {
		echo.Want(t, "unary", echo.CallUnary(t.Context(), one, nil, nil))
	}
	if got := c.got(); got[0] != 0 || got[1] != 9 || got[2] != 0 {
		t.Errorf("calls to the second alone went to %v", got)
	}
	for _, id := range []string{"", "-", "a/b", "..", "x y"} {
		if conn, err := c.Caller.Provider(t.Context(), echo.Type, id); err == nil {
			conn.Close()
			t.Errorf("%q is taken for a runtime id", id)
		}
	}
}

// Where the operator set a strategy, that decides call by call; "the first" is one.
func TestAudit_USE12_AStrategyDecides(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, nil, "1.0.0", "1.0.0", "1.0.0")
	conn := c.service(t, "")
	for strategy, check := range map[connectplugin.SelectionStrategy]func([]int) bool{
		connectplugin.SelectionFirst:      func(n []int) bool { return n[0] == 30 },
		connectplugin.SelectionRoundRobin: func(n []int) bool { return n[0] == 10 && n[1] == 10 && n[2] == 10 },
		connectplugin.SelectionRandom:     func(n []int) bool { return n[0] < 30 && n[1] < 30 && n[2] < 30 },
		connectplugin.SelectionWeighted:   func(n []int) bool { return n[0] < 30 && n[1] < 30 && n[2] < 30 },
	} {
		c.Registry().SetSelectionStrategy(echo.Type, strategy)
		for range 30 {
			echo.Want(t, "unary", echo.CallUnary(t.Context(), conn, nil, nil))
		}
		if got := c.got(); !check(got) {
			t.Errorf("strategy %d: %v", strategy, got)
		}
	}
}

// A provider at whose path the host makes no calls keeps none from the others, whatever
// the strategy.
func TestAudit_USE12_WhoCannotBeCalledKeepsNoCallFromOthers(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, nil, "1.0.0", "1.0.0")
	strange := c.Enrol(t, "other", hosttest.Providing(echo.Type))
	if err := hosttest.RegisterWith(t, strange, &connectpluginv1.RegisterServiceRequest{
		ServiceType: echo.Type, Version: "1.0.0", EndpointPath: "/connectplugin.v1.PluginControl/",
		Metadata: map[string]string{"base_url": "https://127.0.0.1:1"},
	}); err != nil {
		t.Fatal(err)
	}
	conn := c.service(t, "")
	for _, strategy := range []connectplugin.SelectionStrategy{connectplugin.SelectionFirst, connectplugin.SelectionRoundRobin, connectplugin.SelectionRandom} {
		for range 30 {
			echo.Want(t, "unary", echo.CallUnary(t.Context(), conn, nil, nil))
		}
		c.Registry().SetSelectionStrategy(echo.Type, strategy)
	}
	if got := c.got(); got[0]+got[1] != 90 {
		t.Errorf("got %v", got)
	}
}

// Who has work already gets none of what others can take: four calls that name one provider
// and do not end, then eight that leave the choice to the host.
func TestAudit_USE12_TheIdleOneIsCalled(t *testing.T) {
	t.Parallel()
	rig := &echo.Rig{Host: hosttest.Start(t, hosttest.WithPolicy(echo.Policy()))}
	entered, release := make(chan string, 12), make(chan struct{})
	var busy string
	for _, selfID := range []string{"other", "provider"} {
		slow := echo.Service{Unary: func(ctx context.Context, req *connect.Request[echo.Text]) (*connect.Response[echo.Text], error) {
			entered <- selfID
			select {
			case <-release:
			case <-ctx.Done():
			}
			return connect.NewResponse(req.Msg), nil
		}}
		busy = rig.Provide(t, selfID, slow.Handler(), nil).Client.RuntimeID()
	}
	rig.Caller = rig.Enrol(t, "caller", hosttest.Requiring(echo.Type))
	named, err := rig.Caller.Provider(t.Context(), echo.Type, busy)
	if err != nil {
		t.Fatal(err)
	}
	defer named.Close()
	conn, err := rig.Caller.Service(t.Context(), echo.Type, "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	at := map[string]int{}
	var calls sync.WaitGroup
	for n := range 12 {
		to := conn
		if n < 4 {
			to = named
		}
		calls.Go(func() { echo.Want(t, "unary", echo.CallUnary(t.Context(), to, nil, nil)) })
		at[hosttest.Arrival(t, entered)]++
		if n == 7 && at["other"] != 4 {
			t.Errorf("the idle one got %d of the first four", at["other"])
		}
	}
	close(release)
	calls.Wait()
	if at["provider"] != 6 || at["other"] != 6 {
		t.Errorf("twelve calls that do not end: %v", at)
	}
}

// A constraint is the host's to hold: over each call and not only over the first choice.
func TestAudit_USE12_OnlyWhoSatisfiesTheConstraint(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, nil, "1.0.0", "2.0.0", "2.1.0")
	for constraint, want := range map[string][]bool{
		"": {true, true, true}, ">=2": {false, true, true}, ">=2, <2.1": {false, true, false}, "2.1.0": {false, false, true},
	} {
		conn := c.service(t, constraint)
		for range 18 {
			echo.Want(t, "unary", echo.CallUnary(t.Context(), conn, nil, http.Header{"X-Plugin-Constraint": {"<1"}}))
		}
		for i, n := range c.got() {
			if n > 0 != want[i] {
				t.Errorf("%q: provider %d got %d calls", constraint, i, n)
			}
		}
	}
}

// raw makes a call to the route that leaves the choice to the host.
func (c *crowd) raw(t *testing.T, header http.Header, serviceType string) connect.Code {
	t.Helper()
	to := echo.At(c.URL+"/services/"+serviceType+"/-", c.Caller.HTTPClient())
	return hosttest.CodeOrZero(echo.CallUnary(t.Context(), to, nil, header).Err)
}

// The route itself: what it demands, what it passes on, and what it gives away.
func TestAudit_USE12_TheRoute(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, nil, "1.0.0")
	for name, tt := range map[string]struct {
		header      http.Header
		serviceType string
		want        connect.Code
	}{
		"any":               {nil, echo.Type, 0},
		"a constraint":      {http.Header{"X-Plugin-Constraint": {"^1"}}, echo.Type, 0},
		"an empty one":      {http.Header{"X-Plugin-Constraint": {""}}, echo.Type, 0},
		"unmet":             {http.Header{"X-Plugin-Constraint": {">=2"}}, echo.Type, connect.CodeUnavailable},
		"malformed":         {http.Header{"X-Plugin-Constraint": {"1.2-1.4"}}, echo.Type, connect.CodeInvalidArgument},
		"two":               {http.Header{"X-Plugin-Constraint": {"^1", "^1"}}, echo.Type, connect.CodeInvalidArgument},
		"not allowed":       {nil, "different", connect.CodeNotFound},
		"that nobody knows": {nil, "nobody", connect.CodeNotFound},
	} {
		if got := c.raw(t, tt.header, tt.serviceType); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	for _, r := range c.counts[0].Take() {
		if r.Header.Get("X-Plugin-Constraint") != "" || r.Header.Get("X-Plugin-Caller-Id") != c.Caller.RuntimeID() {
			t.Errorf("the provider saw %v", r.Header)
		}
	}
	to := echo.At(c.URL+"/services/"+echo.Type+"/-", c.Caller.HTTPClient())
	control := connect.NewClient[connectpluginv1.GetHealthRequest, connectpluginv1.GetHealthResponse](to.HTTPClient(), to.BaseURL()+"/connectplugin.v1.PluginControl/GetHealth")
	if _, err := control.CallUnary(t.Context(), connect.NewRequest(&connectpluginv1.GetHealthRequest{})); connect.CodeOf(err) == 0 || err == nil {
		t.Error("a plugin calls another's control service")
	}
	stranger := echo.At(to.Base, c.Stranger(t))
	if out := echo.CallUnary(t.Context(), stranger, nil, nil); connect.CodeOf(out.Err) != connect.CodeUnauthenticated {
		t.Errorf("a stranger: %v", out.Err)
	}
	c.Provider.Stop(t)
	hosttest.Eventually(t, "unavailable once nobody is there", func() bool { return c.raw(t, nil, echo.Type) == connect.CodeUnavailable })
	if got := c.raw(t, nil, "nobody"); got != connect.CodeNotFound {
		t.Errorf("a type that is not allowed: %v", got)
	}
}

// What was not written to a provider goes to another one, idempotent or not, in every
// protocol and kind; the caller sees no failure.
func TestAudit_USE12_WhatWasNotWrittenMovesOn(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, nil, "1.0.0")
	dead := c.Enrol(t, "other", hosttest.Providing(echo.Type))
	if err := echo.Register(t, dead, map[string]string{"base_url": "https://" + hosttest.FreeAddr(t)}); err != nil {
		t.Fatal(err)
	}
	conn := c.service(t, "")
	for protocol, opts := range hosttest.Protocols {
		for kind, call := range echo.Kinds {
			for n := range 4 {
				if out := call(t.Context(), conn, opts, nil); out.Err != nil {
					t.Errorf("%s %s, call %d: %v", protocol, kind, n, out.Err)
				}
			}
		}
	}
	// By a strategy that insists on the dead one, too.
	c.Registry().SetSelectionStrategy(echo.Type, connectplugin.SelectionRoundRobin)
	for n := range 6 {
		if out := echo.CallUnary(t.Context(), conn, nil, nil); out.Err != nil {
			t.Errorf("round robin, call %d: %v", n, out.Err)
		}
	}
}

// Policy holds on this route as on the other: who may not provide any more gets nothing, and
// who may not call any more is refused, in the middle of it as well.
func TestAudit_USE12_PolicyHoldsOnTheRoute(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, nil, "1.0.0", "1.0.0")
	conn := c.service(t, "")
	bidi := echo.NewClient(conn, echo.Bidi).CallBidiStream(t.Context())
	if err := bidi.Send(wrapperspb.String("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := bidi.Receive(); err != nil {
		t.Fatal(err)
	}
	policy := echo.Policy()
	other := policy.Plugins["other"]
	other.Provides = nil
	policy.Plugins["other"] = other
	if err := c.SetPolicy(policy); err != nil {
		t.Fatal(err)
	}
	c.got()
	for range 6 {
		echo.Want(t, "unary", echo.CallUnary(t.Context(), conn, nil, nil))
	}
	if got := c.got(); got[0] != 6 || got[1] != 0 {
		t.Errorf("calls went to %v", got)
	}
	caller := policy.Plugins["caller"]
	caller.Requires = nil
	policy.Plugins["caller"] = caller
	if err := c.SetPolicy(policy); err != nil {
		t.Fatal(err)
	}
	if got := c.raw(t, nil, echo.Type); got != connect.CodeNotFound {
		t.Errorf("without the right: %v", got)
	}
	if _, err := bidi.Receive(); err == nil {
		t.Error("the stream goes on without the right")
	}
}

// A host announces the route under a key that is its own, beside what its operator says.
func TestAudit_USE12_TheRouteIsAnnounced(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.ServerMetadata = map[string]string{"region": "north"}
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"api": {AllowUnproven: true}}}
	})
	resp, err := hosttest.HandshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("api")))
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Msg.GetServerMetadata(); got["connectplugin.any_provider"] != "true" || got["region"] != "north" {
		t.Errorf("server metadata %v", got)
	}
	bad := &connectplugin.ServeConfig{Authority: host.Authority, ServerMetadata: map[string]string{"connectplugin.any_provider": "false"}}
	if bad.Validate() == nil {
		t.Error("an operator may take the host's own key")
	}
}

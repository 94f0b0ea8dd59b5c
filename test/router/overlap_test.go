package router_test

import (
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// A type of a plugin has its path alone: another one at, above or below it is refused, however
// it is written, standing by or not, also to a type that moves there; and so nobody reaches
// through a type that policy gives it what belongs to one that it may not call.
func TestAudit_ATK16_PathsOfOnePluginAreApart(t *testing.T) {
	t.Parallel()
	r := newEmptyRig(t)
	for path, want := range map[string]connect.Code{
		storePath: connect.CodeInvalidArgument, "/acme.v1.Store": connect.CodeInvalidArgument, "acme.v1.Store": connect.CodeInvalidArgument,
		storeGet: connect.CodeInvalidArgument, storeGet + "/": connect.CodeInvalidArgument, "/": connect.CodeInvalidArgument,
		"/acme.v1.Store//": connect.CodeInvalidArgument, "/x/../acme.v1.Store/": connect.CodeInvalidArgument, "/acme.v1%2eStore/": connect.CodeInvalidArgument,
		"/acme.v1.StoreOther/": 0, "/acme.v1.Stor/": 0, "/ACME.v1.Store/": 0,
	} {
		provider := r.instance(t)
		provider.register(t, "store", storePath)
		again := func(standby, path string) connect.Code {
			return hosttest.CodeOrZero(hosttest.RegisterWith(t, provider.Client, &connectpluginv1.RegisterServiceRequest{
				ServiceType: "open", Version: "1.0.0", EndpointPath: path, Metadata: map[string]string{"base_url": provider.at, "standby": standby},
			}))
		}
		for _, standby := range []string{"false", "true"} {
			if code := again(standby, path); code != want {
				t.Errorf("%s, standby %s: %v, want %v", path, standby, code, want)
			}
		}
		switch {
		case path == "/acme.v1.StoreOther/":
			r.want(t, provider, map[string]connect.Code{"/Get": 0})
		case want != 0:
			r.want(t, provider, map[string]connect.Code{"/Get": connect.CodeUnavailable, storeGet: connect.CodeUnavailable}) // nobody provides it
		}
		if code := again("false", "/acme.v1.Elsewhere/"); code != 0 {
			t.Errorf("elsewhere: %v", code)
		}
		if code := again("false", path); code != want {
			t.Errorf("moves to %s: %v, want %v", path, code, want)
		}
		r.Revoke(provider.RuntimeID())
	}
}

// What the empty path opens by the operator's word it opens no longer than that: calls in flight
// end, too, and those of another procedure go on.
func TestAudit_ATK16_WhatIsNamedNoMoreEnds(t *testing.T) {
	t.Parallel()
	policy := func(procedures ...string) *connectplugin.Policy {
		p := hosttest.Rights(map[string][2][]string{"provider": {{echo.Type}, nil}, "caller": {nil, {echo.Type}}})
		rules := p.Plugins["provider"]
		rules.Procedures = procedures
		p.Plugins["provider"] = rules
		return p
	}
	host := hosttest.Start(t, hosttest.WithPolicy(policy(echo.Bidi)))
	cfg, err := host.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	provider := instance{host.Enrol(t, "provider", hosttest.Providing(echo.Type)), hosttest.ServeTLS(t, cfg, echo.Service{}.Handler())}
	provider.register(t, echo.Type, "")
	caller := host.Enrol(t, "caller", hosttest.Requiring(echo.Type))
	to := echo.At(host.URL+"/services/"+echo.Type+"/"+provider.RuntimeID(), caller.HTTPClient())
	for protocol, opts := range hosttest.Protocols {
		stream := echo.NewClient(to, echo.Bidi, opts...).CallBidiStream(t.Context())
		echo.SendWant(t, stream, "x", "x")
		hosttest.SetPolicy(t, host, policy(echo.Bidi, echo.Unary))
		echo.SendWant(t, stream, "y", "y")
		hosttest.SetPolicy(t, host, policy(echo.Unary))
		if err := echo.StreamEnd(t, stream); connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("%s: the stream: %v", protocol, err)
		}
		_ = stream.CloseRequest()
		_ = stream.CloseResponse()
		if out := echo.CallUnary(t.Context(), to, opts, nil); out.Err != nil {
			t.Errorf("%s: what is named: %v", protocol, out.Err)
		}
		hosttest.SetPolicy(t, host, policy(echo.Bidi))
	}
}

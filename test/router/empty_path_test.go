package router_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

const (
	storePath = "/acme.v1.Store/"
	storeGet  = storePath + "Get"
	otherGet  = "/acme.v1.StoreOther/Get"
)

// emptyRig is a plugin that provides "store" and "open", and a caller that may require "open"
// alone.
type emptyRig struct {
	*hosttest.Host

	tls    func() string // starts one more instance's server and returns its URL
	caller *connectplugin.Client
	served func() int
}

func emptyPolicy(procedures ...string) *connectplugin.Policy {
	p := hosttest.Rights(map[string][2][]string{"provider": {{"store", "open"}, nil}, "caller": {nil, {"open"}}})
	rules := p.Plugins["provider"]
	rules.Procedures = procedures
	p.Plugins["provider"] = rules
	p.Idempotent = []string{"*"}
	return p
}

func newEmptyRig(t *testing.T, procedures ...string) *emptyRig {
	t.Helper()
	r := &emptyRig{Host: hosttest.Start(t, hosttest.WithPolicy(emptyPolicy(procedures...)))}
	mux := http.NewServeMux()
	for _, procedure := range []string{storeGet, otherGet, echo.Unary} {
		mux.Handle(procedure, unaryAndStream(procedure))
	}
	seen := &echo.Recorder{Next: mux}
	r.served = func() int { return len(seen.Take()) }
	cfg, err := r.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	r.tls = func() string { return hosttest.ServeTLS(t, cfg, seen) }
	r.caller = r.Enrol(t, "caller", hosttest.Requiring("open"))
	return r
}

// unaryAndStream serves a procedure to those who call it once, and to those who call it as a
// stream, which Connect alone tells apart.
func unaryAndStream(procedure string) http.Handler {
	unary := connect.NewUnaryHandler(procedure,
		func(_ context.Context, r *connect.Request[wrapperspb.StringValue]) (*connect.Response[wrapperspb.StringValue], error) {
			return connect.NewResponse(r.Msg), nil
		})
	stream := connect.NewServerStreamHandler(procedure,
		func(_ context.Context, r *connect.Request[wrapperspb.StringValue], s *connect.ServerStream[wrapperspb.StringValue]) error {
			return s.Send(r.Msg)
		})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/connect+") {
			stream.ServeHTTP(w, r)
			return
		}
		unary.ServeHTTP(w, r)
	})
}

// instance is one of the plugin's.
type instance struct {
	*connectplugin.Client

	at string
}

func (r *emptyRig) instance(t *testing.T) instance {
	t.Helper()
	return instance{r.Enrol(t, "provider", hosttest.Providing("store", "open")), r.tls()}
}

func (i instance) register(t *testing.T, serviceType, path string) {
	t.Helper()
	if err := hosttest.RegisterWith(t, i.Client, &connectpluginv1.RegisterServiceRequest{
		ServiceType: serviceType, Version: "1.0.0", EndpointPath: path, Metadata: map[string]string{"base_url": i.at},
	}); err != nil {
		t.Fatal(err)
	}
}

// want calls procedures through "open", in every protocol, once and as a stream.
func (r *emptyRig) want(t *testing.T, provider instance, codes map[string]connect.Code) {
	t.Helper()
	for procedure, want := range codes {
		for protocol, opts := range hosttest.Protocols {
			client := connect.NewClient[wrapperspb.StringValue, wrapperspb.StringValue](r.caller.HTTPClient(),
				r.URL+"/services/open/"+provider.RuntimeID()+procedure, opts...)
			_, err := client.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x")))
			stream, streamErr := client.CallServerStream(t.Context(), connect.NewRequest(wrapperspb.String("x")))
			if streamErr == nil {
				for stream.Receive() { // to the end
				}
				streamErr = stream.Err()
				_ = stream.Close()
			}
			if hosttest.CodeOrZero(err) != want || hosttest.CodeOrZero(streamErr) != want {
				t.Errorf("%s, %s: %v, and as a stream %v, want %v", procedure, protocol, err, streamErr, want)
			}
			if n := r.served(); n != 2 && want == 0 || n != 0 && want != 0 {
				t.Errorf("%s, %s: reached the plugin %d times", procedure, protocol, n)
			}
		}
	}
}

// A type without a path opens nothing that another type of the plugin opens, whichever came
// first, and whichever instance has it.
func TestAudit_ATK16_TheEmptyPathOpensNoOtherType(t *testing.T) {
	t.Parallel()
	closed := map[string]connect.Code{storeGet: connect.CodeNotFound, otherGet: 0, echo.Unary: 0}
	for name, path := range map[string]string{"with a slash": storePath, "without": "/acme.v1.Store", "a procedure": storeGet} {
		for order, emptyFirst := range map[string]bool{"empty first": true, "empty last": false} {
			t.Run(name+", "+order, func(t *testing.T) {
				t.Parallel()
				r := newEmptyRig(t)
				p := r.instance(t)
				if emptyFirst {
					p.register(t, "open", "")
					r.want(t, p, map[string]connect.Code{storeGet: 0})
					p.register(t, "store", path)
				} else {
					p.register(t, "store", path)
					p.register(t, "open", "")
				}
				r.want(t, p, closed)
			})
		}
	}
	t.Run("another instance", func(t *testing.T) {
		t.Parallel()
		r := newEmptyRig(t)
		p, other := r.instance(t), r.instance(t)
		p.register(t, "open", "")
		other.register(t, "store", storePath)
		r.want(t, p, closed)
		r.Revoke(other.RuntimeID())
		r.want(t, p, map[string]connect.Code{storeGet: 0})
	})
}

// A type that stands by has registered its path: who may not call it does not reach it
// through a type without a path, before it takes over or after.
func TestAudit_OWN3_TheEmptyPathOpensNoTypeThatStandsBy(t *testing.T) {
	t.Parallel()
	r := newEmptyRig(t)
	policy := emptyPolicy()
	policy.Plugins["first"] = hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = []string{"store"} })
	hosttest.SetPolicy(t, r.Host, policy)
	first := r.Enrol(t, "first", hosttest.Providing("store"))
	if err := hosttest.RegisterWith(t, first, &connectpluginv1.RegisterServiceRequest{
		ServiceType: "store", Version: "1.0.0", EndpointPath: storePath,
	}); err != nil {
		t.Fatal(err)
	}
	p := r.instance(t)
	waits := func(path string) {
		t.Helper()
		if err := hosttest.RegisterWith(t, p.Client, &connectpluginv1.RegisterServiceRequest{
			ServiceType: "store", Version: "1.0.0", EndpointPath: path, Metadata: map[string]string{"standby": "true"},
		}); err != nil {
			t.Fatal(err)
		}
	}
	p.register(t, "open", "")
	r.want(t, p, map[string]connect.Code{storeGet: 0, otherGet: 0})
	waits(storePath)
	r.want(t, p, map[string]connect.Code{storeGet: connect.CodeNotFound, otherGet: 0})
	waits(otherGet) // in the place of the one before
	r.want(t, p, map[string]connect.Code{storeGet: 0, otherGet: connect.CodeNotFound})
	r.Revoke(first.RuntimeID()) // and it takes over
	r.want(t, p, map[string]connect.Code{storeGet: 0, otherGet: connect.CodeNotFound})
	r.Registry().SetAllowedServices(p.RuntimeID(), []string{"open"})
	r.want(t, p, map[string]connect.Code{storeGet: 0, otherGet: 0})
}

// Where policy names procedures, a type without a path opens those and no others; one with a
// path opens that.
func TestAudit_ATK16_TheEmptyPathOpensWhatPolicyNames(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		procedures []string
		want       map[string]connect.Code
	}{
		"a procedure": {[]string{echo.Unary}, map[string]connect.Code{echo.Unary: 0, storeGet: connect.CodeNotFound, otherGet: connect.CodeNotFound}},
		"a service":   {[]string{storePath}, map[string]connect.Code{storeGet: 0, otherGet: connect.CodeNotFound, echo.Unary: connect.CodeNotFound}},
		"everything":  {[]string{"*"}, map[string]connect.Code{storeGet: 0, otherGet: 0, echo.Unary: 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newEmptyRig(t, c.procedures...)
			p := r.instance(t)
			p.register(t, "store", storePath)
			p.register(t, "open", "")
			r.want(t, p, c.want)
			hosttest.SetPolicy(t, r.Host, emptyPolicy(otherGet))
			r.want(t, p, map[string]connect.Code{storeGet: connect.CodeNotFound, otherGet: 0})
			p.register(t, "open", echo.Base)
			r.want(t, p, map[string]connect.Code{echo.Unary: 0})
		})
	}
}

// What is no procedure and no service is a mistake.
func TestAudit_ATK16_ProceduresAreChecked(t *testing.T) {
	t.Parallel()
	for procedure, ok := range map[string]bool{
		storeGet: true, storePath: true, "*": true, "": false, "/": false, "Get": false, "/acme.v1.Store": false, "/a/b/": false,
		"/a/b/c": false, "//a": false, "/a/../b": false, "/a/%62": false, "/a//": false,
	} {
		host := hosttest.Start(t, nil)
		if err := host.SetPolicy(emptyPolicy(procedure)); (err == nil) != ok {
			t.Errorf("%q: %v", procedure, err)
		}
	}
}

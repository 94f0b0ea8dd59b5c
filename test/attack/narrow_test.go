package attack_test

import (
	"context"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// lingering serves calls that are answered at once and streams that stay open.
func lingering() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(sayProc, (&echo{}).handler())
	_, stays, _ := staysOpen{&staying{}}.ConnectServer(nil)
	mux.Handle(watchProc, stays)
	return mux
}

// hostLingering serves them as one of the host's own plugins.
type hostLingering struct{ hostEcho }

func (hostLingering) ConnectServer(any) (string, http.Handler, error) {
	return echoPath, lingering(), nil
}

// grip is a host on which "api" uses what it may, and "bystander" what is not touched.
type grip struct {
	*hosttest.Host

	api, bystander, storage, untouched *connectplugin.Client

	at string // where the two providers answer
}

// again has storage try to register its type, as a plugin does that was written by hand.
func (g *grip) again(t *testing.T) error {
	t.Helper()
	return register(t, g.storage, "echo", g.at)
}

// generous lets everybody do everything, but for what edit takes from one of them.
func generous(selfID string, edit func(*connectplugin.PluginPolicy)) *connectplugin.Policy {
	p := policyFor(map[string]func(*connectplugin.PluginPolicy){"api": withSecret, "bystander": withSecret, "storage": withSecret, "untouched": withSecret})
	if edit != nil {
		rules := p.Plugins[selfID]
		edit(&rules)
		p.Plugins[selfID] = rules
	}
	return p
}

func newGrip(t *testing.T) *grip {
	t.Helper()
	g := &grip{Host: hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = generous("", nil)
		c.Plugins, c.Impls = connectplugin.PluginSet{"echo": hostLingering{}}, map[string]any{"echo": true}
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.NewCapability(lingering(), "tool", "1.0.0"))
	})}
	provide := func(selfID, serviceType string) (*connectplugin.Client, string) {
		tls, err := g.Authority.PluginTLS(selfID)
		if err != nil {
			t.Fatal(err)
		}
		c, at := g.Enrol(t, selfID, hosttest.Providing(serviceType)), hosttest.ServeTLS(t, tls, lingering())
		if err := register(t, c, serviceType, at); err != nil {
			t.Fatal(err)
		}
		return c, at
	}
	g.storage, g.at = provide("storage", "echo")
	g.untouched, _ = provide("untouched", "other")
	g.api = g.Enrol(t, "api", hosttest.Requiring("echo", "other"))
	g.bystander = g.Enrol(t, "bystander", hosttest.Requiring("echo", "other"))
	return g
}

// way is a way to use a right: one call, and a stream that stays open.
type way func(t *testing.T, c *connectplugin.Client, options []connect.ClientOption) (call func(context.Context) error, stream func(context.Context) (<-chan error, error))

// calling is the way of calls below a URL that may depend on the moment.
func calling(base func() string, through func(*connectplugin.Client) connect.HTTPClient) way {
	return func(_ *testing.T, c *connectplugin.Client, options []connect.ClientOption) (func(context.Context) error, func(context.Context) (<-chan error, error)) {
		client := through(c)
		return func(ctx context.Context) error {
				_, err := connect.NewClient[text, text](client, base()+sayProc, options...).CallUnary(ctx, connect.NewRequest(wrapperspb.String("x")))
				return err
			}, func(ctx context.Context) (<-chan error, error) {
				stream, err := connect.NewClient[text, text](client, base()+watchProc, options...).CallServerStream(ctx, connect.NewRequest(wrapperspb.String("x")))
				return untilItEnds(stream, err)
			}
	}
}

// watching is the way of those who watch a type, and discover it.
func watching(g *grip, serviceType string) way {
	return func(_ *testing.T, c *connectplugin.Client, options []connect.ClientOption) (func(context.Context) error, func(context.Context) (<-chan error, error)) {
		registry := connectpluginv1connect.NewServiceRegistryClient(c.HTTPClient(), g.URL, options...)
		return func(ctx context.Context) error {
				_, err := registry.DiscoverService(ctx, connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{ServiceType: serviceType}))
				return err
			}, func(ctx context.Context) (<-chan error, error) {
				stream, err := registry.WatchService(ctx, connect.NewRequest(&connectpluginv1.WatchServiceRequest{ServiceType: serviceType}))
				return untilItEnds(stream, err)
			}
	}
}

// untilItEnds waits until something was heard on a stream, and returns where its end arrives.
func untilItEnds[T any](stream *connect.ServerStreamForClient[T], err error) (<-chan error, error) {
	if err != nil {
		return nil, err
	}
	if !stream.Receive() {
		err := stream.Err()
		_ = stream.Close()
		return nil, err
	}
	ended := make(chan error, 1)
	go func() {
		for stream.Receive() { // to the end
		}
		err := stream.Err()
		_ = stream.Close()
		ended <- err
	}()
	return ended, nil
}

func own(c *connectplugin.Client) connect.HTTPClient { return c.HTTPClient() }

// opened opens a stream in every protocol, and makes a call.
func opened(t *testing.T, what string, c *connectplugin.Client, w way) map[string]<-chan error {
	t.Helper()
	all := map[string]<-chan error{}
	for protocol, options := range protocols {
		call, stream := w(t, c, options)
		ended, err := stream(t.Context())
		if err := call(t.Context()); err != nil {
			t.Errorf("%s, %s: a call: %v", what, protocol, err)
		}
		if err != nil {
			t.Fatalf("%s, %s: a stream: %v", what, protocol, err)
		}
		all[protocol] = ended
	}
	return all
}

// wantShut checks that neither calls nor streams get anywhere.
func wantShut(t *testing.T, when string, c *connectplugin.Client, w way) {
	t.Helper()
	for protocol, options := range protocols {
		call, stream := w(t, c, options)
		if err := call(t.Context()); err == nil {
			t.Errorf("%s, %s: a call was served", when, protocol)
		}
		if _, err := stream(t.Context()); err == nil {
			t.Errorf("%s, %s: a stream was served", when, protocol)
		}
	}
}

// narrowings are the rights that a policy can take away, and how each is used.
func narrowings() map[string]struct {
	from string
	edit func(*connectplugin.PluginPolicy)
	use  func(*testing.T, *grip) way
} {
	type narrowing = struct {
		from string
		edit func(*connectplugin.PluginPolicy)
		use  func(*testing.T, *grip) way
	}
	routed := func(_ *testing.T, g *grip) way {
		return calling(func() string { return g.URL + "/services/echo/" + g.storage.RuntimeID() }, own)
	}
	requires := func(p *connectplugin.PluginPolicy) { p.Requires = []string{"other"} }
	return map[string]narrowing{
		"a type": {"api", requires, routed},
		"a type, of whomever": {"api", requires, func(_ *testing.T, g *grip) way {
			return calling(func() string { return g.URL + "/services/echo/-" }, own)
		}},
		"a type to watch":   {"api", requires, func(_ *testing.T, g *grip) way { return watching(g, "echo") }},
		"a type to provide": {"storage", func(p *connectplugin.PluginPolicy) { p.Provides = []string{"other"} }, routed},
		"an endpoint":       {"storage", func(p *connectplugin.PluginPolicy) { p.AllowOwnAddress = false }, routed},
		"another endpoint":  {"storage", func(p *connectplugin.PluginPolicy) { p.Endpoint, p.AllowOwnAddress = "https://127.0.0.1:1", false }, routed},
		"a host plugin":     {"api", func(p *connectplugin.PluginPolicy) { p.HostPlugins = nil }, func(_ *testing.T, g *grip) way { return calling(func() string { return g.URL }, own) }},
		"a capability":      {"api", func(p *connectplugin.PluginPolicy) { p.Capabilities = nil }, granted},
	}
}

// granted is the way of a capability: by the grant that was got first, and by what the client
// gets later.
func granted(t *testing.T, g *grip) way {
	t.Helper()
	conn, err := g.api.Capability(t.Context(), "tool", "")
	if err != nil {
		t.Fatal(err)
	}
	return calling(conn.BaseURL, func(*connectplugin.Client) connect.HTTPClient { return conn.HTTPClient() })
}

// What a policy takes away ends at once with all that is open, and stays away: over renewals of
// whoever it concerns, whatever they declare, over the end of their identities, and over
// further policies, until one gives it back. Whoever is not concerned notices nothing.
func TestAudit_ATK17_WhatPolicyTakesAwayStaysAway(t *testing.T) {
	t.Parallel()
	for name, n := range narrowings() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGrip(t)
			use := n.use(t, g)
			other := calling(func() string { return g.URL + "/services/other/" + g.untouched.RuntimeID() }, own)
			streams, beside := opened(t, "before", g.api, use), opened(t, "who is not concerned", g.bystander, other)
			hosttest.SetPolicy(t, g.Host, generous(n.from, n.edit))
			for protocol, ended := range streams {
				if err := hosttest.Arrival(t, ended); err == nil {
					t.Errorf("%s: the stream ended well", protocol)
				}
			}
			wantShut(t, "taken away", g.api, use)
			subject := map[string]*connectplugin.Client{"api": g.api, "storage": g.storage}[n.from]
			for when, next := range map[string]func(){
				"renewed":               func() {},
				"its identity ended":    func() { g.Revoke(subject.RuntimeID()) },
				"the same policy again": func() { hosttest.SetPolicy(t, g.Host, generous(n.from, n.edit)) },
				"the policy of another changed": func() {
					p := generous(n.from, n.edit)
					rules := p.Plugins["bystander"]
					rules.HostPlugins = nil
					p.Plugins["bystander"] = rules
					hosttest.SetPolicy(t, g.Host, p)
				},
			} {
				next()
				if err := subject.Connect(t.Context()); err != nil {
					t.Fatalf("%s: %v", when, err)
				}
				_ = g.again(t) // whatever comes of it
				wantShut(t, when, g.api, use)
			}
			for protocol, ended := range beside {
				select {
				case err := <-ended:
					t.Errorf("%s: the stream of who is not concerned ended: %v", protocol, err)
				default:
				}
			}
			opened(t, "who is not concerned, afterwards", g.bystander, other)
			hosttest.SetPolicy(t, g.Host, generous("", nil))
			if err := g.again(t); err != nil {
				t.Errorf("given back, it registers: %v", err)
			}
			opened(t, "given back", g.api, n.use(t, g))
		})
	}
}

// What the operator leaves a live plugin of its types ends the calls in flight through the others,
// and no others.
func TestAudit_ATK17_CallsThroughWhatWasTakenAwayEnd(t *testing.T) {
	t.Parallel()
	g := newGrip(t)
	at := func(serviceType string, p *connectplugin.Client) way {
		id := p.RuntimeID()
		return calling(func() string { return g.URL + "/services/" + serviceType + "/" + id }, own)
	}
	taken, kept := at("echo", g.storage), at("other", g.untouched)
	ending, remaining := opened(t, "before", g.api, taken), opened(t, "another provider", g.api, kept)
	g.Registry().SetAllowedServices(g.storage.RuntimeID(), []string{"something else"})
	for protocol, ended := range ending {
		if err := hosttest.Arrival(t, ended); err == nil {
			t.Errorf("%s: the stream ended well", protocol)
		}
	}
	for range 2 {
		wantShut(t, "taken away", g.api, taken)
		if err := g.storage.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := g.again(t); connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("it registers again: %v", err)
		}
	}
	g.Registry().SetAllowedServices(g.untouched.RuntimeID(), []string{"other"})
	for protocol, ended := range remaining {
		select {
		case err := <-ended:
			t.Errorf("%s: what it may still provide ended: %v", protocol, err)
		default:
		}
	}
	opened(t, "afterwards", g.api, kept)
}

package attack_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// street is a host without an Authority and without pins: nothing but the address tells
// its plugins apart, and they are all on one.
type street struct {
	ca     *hosttest.CA
	host   *hosttest.Host
	router *connectplugin.ServiceRouter
	houses sync.Map // of *hosttest.Resident, by URL
}

func narrow(serviceType string) func(*connectplugin.PluginPolicy) {
	return func(p *connectplugin.PluginPolicy) {
		p.Secret, p.Provides, p.Requires = hosttest.Secret, []string{serviceType}, []string{serviceType}
	}
}

func (s *street) policy(vault string) *connectplugin.Policy {
	return policyFor(map[string]func(*connectplugin.PluginPolicy){
		"storage": narrow("echo"), "api": narrow("echo"), "evil": narrow("evilsvc"), "bystander": narrow("other"),
		"loose": unproven, "vault": func(p *connectplugin.PluginPolicy) {
			p.Secret, p.Endpoint, p.AllowOwnAddress = hosttest.Secret, vault, false
		},
	})
}

func newStreet(t *testing.T, vault string) *street {
	t.Helper()
	s := &street{ca: hosttest.NewCA(t), router: connectplugin.NewServiceRouter(nil, nil, nil)}
	s.host = s.ca.Start(t, s.ca.Certify(t, hosttest.URI(hostID), hosttest.DNS("localhost"), hosttest.Loopback), func(c *connectplugin.ServeConfig) {
		c.Policy, c.ServiceRouter = s.policy(vault), s.router
	})
	return s
}

// house serves an echo of its own and returns its URL.
func (s *street) house(t *testing.T, e *echo) string {
	t.Helper()
	return s.build(t, e.handler())
}

// build serves a handler in a house of its own and returns its URL.
func (s *street) build(t *testing.T, h http.Handler) string {
	t.Helper()
	r := &hosttest.Resident{Next: h}
	at := hosttest.ServeTLS(t, s.ca.TLS(s.ca.Certify(t, hosttest.DNS("loose.example", "localhost"), hosttest.Loopback)), r)
	s.houses.Store(at, r)
	return at
}

// move has a plugin live in a house from now on, and registers it there.
func (s *street) move(t *testing.T, c *connectplugin.Client, serviceType, at string) error {
	t.Helper()
	r, _ := s.houses.Load(strings.TrimSuffix(at, "/"))
	r.(*hosttest.Resident).Live(c)
	return register(t, c, serviceType, at)
}

// enrol enrols a plugin; edit may be nil.
func (s *street) enrol(t *testing.T, selfID, serviceType string, edit func(*connectplugin.ClientConfig)) *connectplugin.Client {
	t.Helper()
	cfg := connectplugin.ClientConfig{
		HostURL: s.host.URL, SelfID: selfID, TLS: s.ca.TLS(nil), Secret: hosttest.Secret,
		Metadata: connectplugin.PluginMetadata{Provides: hosttest.Provides(serviceType), Requires: hosttest.Requires(serviceType)},
	}
	if edit != nil {
		edit(&cfg)
	}
	c, err := enrol(t, cfg)
	if err != nil {
		t.Fatalf("%s: %v", selfID, err)
	}
	return c
}

func register(t *testing.T, c *connectplugin.Client, serviceType, baseURL string) error {
	t.Helper()
	req := &connectpluginv1.RegisterServiceRequest{ServiceType: serviceType, Version: "1.0.0", EndpointPath: echoPath}
	if baseURL != "" {
		req.Metadata = map[string]string{"base_url": baseURL}
	}
	return hosttest.RegisterWith(t, c, req)
}

// through calls a provider through the host as the caller, in every protocol.
func (s *street) through(t *testing.T, caller *connectplugin.Client, serviceType, provider string) map[string]error {
	t.Helper()
	client := bearer{hosttest.HTTPClient(t, s.ca.TLS(nil)), caller}
	return callEcho(t.Context(), client, s.host.URL+"/services/"+serviceType+"/"+provider)
}

// bearer calls with the identity of a plugin.
type bearer struct {
	next *http.Client
	as   *connectplugin.Client
}

func (b bearer) Do(r *http.Request) (*http.Response, error) {
	maps.Copy(r.Header, hosttest.IdentityHeader(b.as.RuntimeID(), b.as.RuntimeToken()))
	return b.next.Do(r)
}

// spellings are ways to write one URL of the loopback address.
func spellings(at string) map[string]string {
	port := at[strings.LastIndex(at, ":")+1:]
	return map[string]string{
		"as it is": at, "slash": at + "/", "case": "HTTPS://127.0.0.1:" + port, "name": "https://localhost:" + port, "name's case": "https://LocalHost:" + port,
		"mapped": "https://[::ffff:127.0.0.1]:" + port, "mapped, hexadecimal": "https://[::ffff:7f00:1]:" + port, "zero": "https://127.0.0.1:0" + port,
		"final dot": "https://localhost.:" + port,
	}
}

// wantTaken checks that every spelling of an endpoint is refused to a plugin, in constant
// words, and that the audit says whose it is.
func (s *street) wantTaken(t *testing.T, thief *connectplugin.Client, endpoint, owner string) {
	t.Helper()
	for name, spelling := range spellings(endpoint) {
		err := register(t, thief, "evilsvc", spelling)
		if connect.CodeOf(err) != connect.CodePermissionDenied || strings.Contains(err.Error(), owner) {
			t.Errorf("%s: %v, want permission_denied", name, err)
		}
	}
	wantRefused(t, "through a type of its own", s.through(t, thief, "evilsvc", thief.RuntimeID()), connect.CodeUnavailable)
	if !s.conflict(thief.RuntimeID(), owner) {
		t.Errorf("the audit does not say that the endpoint is %q's", owner)
	}
}

func (s *street) conflict(runtimeID, owner string) bool {
	return slices.ContainsFunc(s.host.Audit.Events(), func(e connectplugin.AuditEvent) bool {
		return e.Kind == connectplugin.AuditConflict && e.RuntimeID == runtimeID && strings.Contains(e.Reason, owner) && strings.Contains(e.Reason, "endpoint")
	})
}

// Nobody calls what policy denies it by saying that another plugin's address is its own.
func TestAudit_USE27_AnEndpointIsWhoseItWasFirst(t *testing.T) {
	t.Parallel()
	s := newStreet(t, "")
	victim, own := &echo{}, &echo{}
	at := s.house(t, victim)
	storage, evil := s.enrol(t, "storage", "echo", nil), s.enrol(t, "evil", "evilsvc", nil)
	if err := s.move(t, storage, "echo", at); err != nil {
		t.Fatal(err)
	}
	s.wantTaken(t, evil, at, "storage")
	if n := victim.calls.Load(); n != 0 {
		t.Errorf("%d calls reached the victim", n)
	}
	api := s.enrol(t, "api", "echo", nil)
	wantServed(t, "the victim's own", s.through(t, api, "echo", storage.RuntimeID()))
	if err := s.move(t, evil, "evilsvc", s.house(t, own)); err != nil {
		t.Errorf("at an endpoint of its own: %v", err)
	}
	wantServed(t, "its own", s.through(t, evil, "evilsvc", evil.RuntimeID()))
	// It does not move to the victim either.
	for name, spelling := range spellings(at) {
		if err := register(t, evil, "evilsvc", spelling); connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("a move, %s: %v", name, err)
		}
	}
	before := victim.calls.Load()
	wantServed(t, "its own, still", s.through(t, evil, "evilsvc", evil.RuntimeID()))
	if n := victim.calls.Load() - before; n != 0 {
		t.Errorf("%d calls reached the victim", n)
	}
}

// What a plugin had is free once its identity ended.
func TestAudit_USE27_AnEndpointEndsWithItsIdentity(t *testing.T) {
	t.Parallel()
	s := newStreet(t, "")
	at := s.house(t, &echo{})
	storage, other := s.enrol(t, "storage", "echo", nil), s.enrol(t, "bystander", "other", nil)
	if err := s.move(t, storage, "echo", at); err != nil {
		t.Fatal(err)
	}
	if err := register(t, other, "other", at); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("while it lives: %v", err)
	}
	if !s.host.Revoke(storage.RuntimeID()) {
		t.Fatal("nobody was revoked")
	}
	if err := s.move(t, other, "other", at); err != nil {
		t.Errorf("after its end: %v", err)
	}
	wantServed(t, "who has it now", s.through(t, other, "other", other.RuntimeID()))
}

// An endpoint that the operator names is that plugin's before it is there.
func TestAudit_USE27_PolicyNamesAnEndpointBeforeItsPluginIsThere(t *testing.T) {
	t.Parallel()
	victim := &echo{}
	ca := newStreet(t, "")
	at := ca.house(t, victim)
	port := at[strings.LastIndex(at, ":"):]
	for name, endpoint := range map[string]string{"address": at, "name": "https://localhost" + port, "another spelling": "https://[::ffff:127.0.0.1]" + port} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStreet(t, endpoint)
			evil := s.enrol(t, "evil", "evilsvc", nil)
			s.wantTaken(t, evil, at, "vault")
			vault := s.enrol(t, "vault", "echo", nil)
			if err := register(t, vault, "echo", ""); err != nil {
				t.Errorf("the plugin that policy names: %v", err)
			}
			if err := s.move(t, evil, "evilsvc", s.house(t, &echo{})); err != nil {
				t.Errorf("elsewhere: %v", err)
			}
		})
	}
	if n := victim.calls.Load(); n != 0 {
		t.Errorf("%d calls reached the victim", n)
	}
}

// What the operator says of an endpoint goes before what a plugin said of itself, from
// that moment on, and the calls that go through end.
func TestAudit_USE27_TheOperatorTakesAnEndpointBack(t *testing.T) {
	t.Parallel()
	for name, take := range map[string]func(*testing.T, *street, string, *connectplugin.Client){
		"by policy": func(t *testing.T, s *street, at string, _ *connectplugin.Client) {
			t.Helper()
			hosttest.SetPolicy(t, s.host, s.policy(at))
		},
		"by policy, by name": func(t *testing.T, s *street, at string, _ *connectplugin.Client) {
			t.Helper()
			hosttest.SetPolicy(t, s.host, s.policy("https://localhost"+at[strings.LastIndex(at, ":"):]))
		},
		"at once": func(_ *testing.T, s *street, at string, storage *connectplugin.Client) {
			s.router.RegisterPluginEndpoint(storage.RuntimeID(), at)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, held := newStreet(t, ""), newHolding()
			at := s.build(t, held)
			evil, storage := s.enrol(t, "evil", "evilsvc", nil), s.enrol(t, "storage", "echo", nil)
			if err := s.move(t, evil, "evilsvc", at); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			client := bearer{hosttest.HTTPClient(t, s.ca.TLS(nil)), evil}
			say := connect.NewClient[text, text](client, s.host.URL+"/services/evilsvc/"+evil.RuntimeID()+sayProc)
			go func() {
				_, err := say.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x")))
				ended <- err
			}()
			hosttest.Arrival(t, held.arrived)
			take(t, s, at, storage)
			if err := hosttest.Arrival(t, ended); err == nil {
				t.Error("the call in flight was served")
			}
			for call, err := range s.through(t, evil, "evilsvc", evil.RuntimeID()) {
				if err == nil {
					t.Errorf("%s goes through", call)
				}
			}
			for _, p := range s.host.Plugins() {
				if told := p.Reason; p.RuntimeID == evil.RuntimeID() && !strings.HasPrefix(told, "not routable: ") {
					t.Errorf("an operator is told of it: %q", told)
				}
			}
			s.wantStillTaken(t, evil, at)
		})
	}
}

func (s *street) wantStillTaken(t *testing.T, thief *connectplugin.Client, at string) {
	t.Helper()
	if err := register(t, thief, "evilsvc", at); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("it named the endpoint again: %v", err)
	}
	if err := s.move(t, thief, "evilsvc", s.house(t, &echo{})); err != nil {
		t.Errorf("elsewhere: %v", err)
	}
}

// holding holds every request until its caller goes.
type holding struct{ arrived chan struct{} }

func newHolding() *holding { return &holding{make(chan struct{}, 64)} }

func (h *holding) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	h.arrived <- struct{}{}
	<-r.Context().Done()
}

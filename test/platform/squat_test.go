package platform_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// company is a host whose certificates come from an authority that is not its own, and that has two plugins to adopt.
type company struct {
	*hosttest.Host

	ca      *hosttest.CA
	log     hosttest.Buffer
	reports time.Duration // between health reports of its plugins, zero for the default
}

// theCompanysHost is the identity of the host in its certificate.
const theCompanysHost = "the.host"

func startCompany(t *testing.T, edit func(*hosttest.CA, *connectplugin.ServeConfig, *connectplugin.PluginPolicy)) *company {
	t.Helper()
	c := &company{ca: hosttest.NewCA(t)}
	own := c.ca.Issue(t, hosttest.CommonName(theCompanysHost))
	c.Host = hosttest.Start(t, func(cfg *connectplugin.ServeConfig) {
		cfg.Authority = nil
		cfg.TLS = &tls.Config{Certificates: []tls.Certificate{*own}, ClientCAs: c.ca.Pool, ClientAuth: tls.VerifyClientCertIfGiven}
		cfg.HealthProbe.Interval = 50 * time.Millisecond
		cfg.Logger = slog.New(slog.NewTextHandler(&c.log, nil))
		echo := connectplugin.PluginPolicy{Provides: []string{"echo"}}
		edit(c.ca, cfg, &echo)
		cfg.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"echo": echo, "other": {Provides: []string{"other"}}, "caller": {Requires: []string{"echo"}, Certificates: []string{"caller"}},
			"another": hosttest.Allow(nil),
		}}
	})
	return c
}

// process is a plugin that waits to be adopted, as often as it was given an identity.
type process struct {
	url   string
	given atomic.Int32
	cert  atomic.Pointer[tls.Certificate]
	well  atomic.Pointer[string] // the one identity by which it is well; nil for by any
	self  atomic.Pointer[connectplugin.Client]
	stop  func()
}

func (p *process) addr() string { return strings.TrimPrefix(p.url, "https://") }

// run starts one with a certificate.
func (c *company) run(t *testing.T, selfID string, cert *tls.Certificate) *process {
	t.Helper()
	l := hosttest.Listen(t)
	p := &process{url: "https://" + l.Addr().String()}
	p.cert.Store(cert)
	shown := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.cert.Load(), nil }
	cfg := &connectplugin.PluginServerConfig{
		Client: connectplugin.ClientConfig{
			SelfID: selfID, SelfVersion: "1.0.0", Logger: hosttest.Logger(t),
			TLS: &tls.Config{Certificates: []tls.Certificate{*cert}, RootCAs: c.ca.Pool},
		},
		TLS:          &tls.Config{GetCertificate: shown, ClientCAs: c.ca.Pool},
		HostIdentity: theCompanysHost, Listener: l,
		Services:    []connectplugin.PluginService{{Type: selfID, Version: "1.0.0", Path: echoPath, Handler: echoHandler()}},
		OnConnected: func(_ context.Context, c *connectplugin.Client) error { p.given.Add(1); p.self.Store(c); return nil },
		Health: func() (connectpluginv1.HealthState, string) {
			if well := p.well.Load(); well != nil && p.self.Load().RuntimeID() != *well {
				return connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY, "sick"
			}
			return connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, ""
		},
		HealthInterval: c.reports,
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = connectplugin.ServePlugin(ctx, cfg)
	}()
	p.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(p.stop)
	return p
}

func (c *company) says(t *testing.T, what string) {
	t.Helper()
	hosttest.Eventually(t, "the log says "+what, func() bool { return strings.Contains(c.log.String(), what) })
}

// back is in the log where a plugin has its identity again.
const back = "it has its identity back"

// aReturn is what comes to the endpoint of an adopted plugin that is gone.
type aReturn struct {
	first  func(*x509.Certificate)                                  // the certificate of the plugin
	policy func(p *connectplugin.PluginPolicy, of *tls.Certificate) // may be nil
	second func(t *testing.T, ca *hosttest.CA, first *tls.Certificate) *tls.Certificate
	shared string // how another plugin has the first certificate, too; empty for none
	want   string
}

// How another plugin has a certificate: it was adopted with it, or came by itself, or came and has left.
const (
	adopted  = "adopted"
	enrolled = "enrolled"
	left     = "left"
)

func returnsToAnEndpoint() map[string]aReturn {
	type maker = func(*testing.T, *hosttest.CA, *tls.Certificate) *tls.Certificate
	called, nameless := hosttest.CommonName, func(*x509.Certificate) {}
	made := func(edit func(*x509.Certificate)) maker {
		return func(t *testing.T, ca *hosttest.CA, _ *tls.Certificate) *tls.Certificate { return ca.Issue(t, edit) }
	}
	same := func(_ *testing.T, _ *hosttest.CA, first *tls.Certificate) *tls.Certificate { return first }
	reissued := func(t *testing.T, ca *hosttest.CA, first *tls.Certificate) *tls.Certificate {
		return ca.Reissue(t, first)
	}
	named := func(names ...string) func(*connectplugin.PluginPolicy, *tls.Certificate) {
		return func(p *connectplugin.PluginPolicy, _ *tls.Certificate) { p.Certificates = names }
	}
	pinned := func(p *connectplugin.PluginPolicy, of *tls.Certificate) {
		p.PinnedKeys = []string{certs.PinOf(of.Leaf).String()}
	}
	const another, anotherKey = "was adopted as", "its certificate has another key"
	return map[string]aReturn{
		"another name":                          {called("store"), nil, made(called("other plugin")), "", another},
		"another name, where policy lists both": {called("store"), named("store", "store-2"), made(called("store-2")), "", another},
		"no name after one":                     {called("store"), nil, made(nameless), "", another},
		"the name of the machine, another key":  {called("machine"), nil, made(called("machine")), "", anotherKey},
		"no name, another key":                  {nameless, nil, made(nameless), "", anotherKey},
		"a pinned name, another key":            {called("store"), pinned, made(called("store")), "", "a key that is not pinned"},
		"the certificate of all on the machine": {called("machine"), nil, same, adopted, "nothing tells it from other plugins"},

		"a key that a live plugin proved with": {called("machine"), nil, same, enrolled, "nothing tells it from other plugins"},
		"a key that a plugin proved with":      {called("machine"), nil, same, left, back},

		"the same certificate":              {called("machine"), nil, same, "", back},
		"a new one for the key":             {called("machine"), nil, reissued, "", back},
		"no name, the same key":             {nameless, nil, reissued, "", back},
		"a new key under a name of its own": {called("store"), named("store"), made(called("store")), "", back},
		"a new key under its self id":       {called("echo"), nil, made(called("echo")), "", back},
	}
}

// shows has another plugin have a certificate.
func (c *company) shows(t *testing.T, cert *tls.Certificate, how string) {
	t.Helper()
	switch how {
	case adopted:
		other := adoption(c.run(t, "other", cert).url)
		other.SelfID, other.Metadata.Provides = "other", hosttest.Provides("other")
		if err := c.Platform().AddPlugin(t.Context(), other); err != nil {
			t.Fatal(err)
		}
	case enrolled, left:
		other := c.Enrol(t, "another", func(cfg *connectplugin.ClientConfig) {
			cfg.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}, RootCAs: c.ca.Pool}
		})
		if how == enrolled {
			return
		}
		if err := other.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// Whoever answers at the endpoint of an adopted plugin that is gone, with a certificate of the same authority for the same
// address, gets the identity where the certificate tells that it is the plugin, and not where it does not.
func TestAudit_H58_AnAdoptedPluginsIdentityIsNobodyElses(t *testing.T) {
	t.Parallel()
	for name, tt := range returnsToAnEndpoint() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var first *tls.Certificate
			c := startCompany(t, func(ca *hosttest.CA, _ *connectplugin.ServeConfig, p *connectplugin.PluginPolicy) {
				if first = ca.Issue(t, tt.first); tt.policy != nil {
					tt.policy(p, first)
				}
			})
			way, p := hosttest.NewProxy(t, c.Host), c.Platform()
			before := c.run(t, "echo", first)
			way.AimAt(before.addr())
			if err := p.AddPlugin(t.Context(), adoption(way.URL)); err != nil {
				t.Fatal(err)
			}
			c.shows(t, first, tt.shared)
			after := c.run(t, "echo", tt.second(t, c.ca, first))
			way.AimAt(after.addr())
			way.Cut()
			c.says(t, tt.want)
			if tt.want == back {
				hosttest.Eventually(t, "it knows its identity", func() bool { return after.given.Load() == 1 })
				return
			}
			if n := after.given.Load(); n != 0 || strings.Contains(c.log.String(), back) {
				t.Errorf("it was given the identity %d times: %s", n, c.log.String())
			}
			// What the operator says himself holds.
			if tt.policy == nil {
				if err := p.AddPlugin(t.Context(), adoption(way.URL)); err != nil {
					t.Errorf("adopted once more: %v", err)
				}
			}
		})
	}
}

// What policy says of a plugin's certificate holds for one that is adopted, and for what takes its place.
func TestAudit_GAPPINNING_AnAdoptedPluginHasACertificateOfItsPolicy(t *testing.T) {
	t.Parallel()
	c := startCompany(t, func(_ *hosttest.CA, _ *connectplugin.ServeConfig, p *connectplugin.PluginPolicy) {
		p.Certificates = []string{"store"}
	})
	p := c.Platform()
	stranger := c.run(t, "echo", c.ca.Issue(t, hosttest.CommonName("other plugin")))
	const want = "is not among the plugin's Certificates"
	if err := p.AddPlugin(t.Context(), adoption(stranger.url)); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("adopted with the certificate of another: %v", err)
	}
	if err := p.AddPlugin(t.Context(), adoption(c.run(t, "echo", c.ca.Issue(t, hosttest.CommonName("store"))).url)); err != nil {
		t.Fatal(err)
	}
	if err := p.ReplacePlugin(t.Context(), p.Instances()[0].RuntimeID, adoption(stranger.url)); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("replaced by another: %v", err)
	}
	if n := stranger.given.Load(); n != 0 {
		t.Errorf("another was given the identity %d times", n)
	}
	if err := p.ReplacePlugin(t.Context(), p.Instances()[0].RuntimeID, adoption(c.run(t, "echo", c.ca.Issue(t, hosttest.CommonName("store"))).url)); err != nil {
		t.Errorf("replaced by the plugin itself: %v", err)
	}
	// A policy that names another certificate holds for who is there.
	if err := c.SetPolicy(&connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
		"echo": {Provides: []string{"echo"}, Certificates: []string{"shop"}},
	}}); err != nil {
		t.Fatal(err)
	}
	hosttest.Eventually(t, "the plugin is looked at again", func() bool {
		return slices.ContainsFunc(c.Plugins(), func(i connectplugin.PluginStatus) bool {
			return i.Health == connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY
		})
	})
}

// Where the certificate of a plugin is its own, nobody takes its place with one that others may have.
func TestAudit_H58_WhoTakesAPlaceHasACertificateAsGood(t *testing.T) {
	t.Parallel()
	c := startCompany(t, func(*hosttest.CA, *connectplugin.ServeConfig, *connectplugin.PluginPolicy) {})
	p := c.Platform()
	called := func(name string) *process { return c.run(t, "echo", c.ca.Issue(t, hosttest.CommonName(name))) }
	if err := p.AddPlugin(t.Context(), adoption(called("echo").url)); err != nil {
		t.Fatal(err)
	}
	first := p.Instances()[0].RuntimeID
	stranger := called("machine")
	if err := p.ReplacePlugin(t.Context(), first, adoption(stranger.url)); err == nil || !strings.Contains(err.Error(), "in whose place it comes") {
		t.Errorf("by a certificate that anybody may have: %v", err)
	}
	if n := stranger.given.Load(); n != 0 {
		t.Errorf("it was given the identity %d times", n)
	}
	if err := p.ReplacePlugin(t.Context(), first, adoption(called("echo").url)); err != nil {
		t.Errorf("by one of its own: %v", err)
	}
	second := startCompany(t, func(*hosttest.CA, *connectplugin.ServeConfig, *connectplugin.PluginPolicy) {})
	c, p = second, second.Platform()
	if err := p.AddPlugin(t.Context(), adoption(called("machine-1").url)); err != nil {
		t.Fatal(err)
	}
	if err := p.ReplacePlugin(t.Context(), p.Instances()[0].RuntimeID, adoption(called("machine-2").url)); err != nil {
		t.Errorf("on another machine: %v", err)
	}
}

// A new token is for the plugin that has the old one: by its certificate or, where that does not tell, by its proof.
func TestAudit_H58_ARenewedTokenIsThePluginsOwn(t *testing.T) {
	t.Parallel()
	for name, honest := range map[string]bool{"another process": false, "the plugin, with a new key": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startCompany(t, func(_ *hosttest.CA, cfg *connectplugin.ServeConfig, _ *connectplugin.PluginPolicy) {
				cfg.HealthProbe.Interval, cfg.RuntimeTokenTTL = time.Hour, 6*time.Second
			})
			way, p := hosttest.NewProxy(t, c.Host), c.Platform()
			machine := func() *tls.Certificate { return c.ca.Issue(t, hosttest.CommonName("machine")) }
			plugin, another := c.run(t, "echo", machine()), c.run(t, "echo", machine())
			way.AimAt(plugin.addr())
			if err := p.AddPlugin(t.Context(), adoption(way.URL)); err != nil {
				t.Fatal(err)
			}
			if !honest {
				way.AimAt(another.addr())
				c.says(t, "the token of an adopted plugin is not renewed")
				c.says(t, "does not prove that it is the plugin")
				if n := another.given.Load(); n != 0 {
					t.Errorf("it was given the identity %d times", n)
				}
				return
			}
			token := func() string { return p.Instances()[0].Token }
			for range 2 { // by its proof, and then by the new key
				plugin.cert.Store(machine())
				before := token()
				hosttest.Eventually(t, "it has a new token", func() bool { return token() != before })
			}
			if said := c.log.String(); strings.Contains(said, "is not renewed") {
				t.Error(said)
			}
		})
	}
}

// elsewhere is a plugin that takes each identity, and answers for none once it has turned.
type elsewhere struct {
	asked, given atomic.Int32 // since it turned; ever
	turned       atomic.Bool
	http         *http.Client // that it calls its host with
}

func (s *elsewhere) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var answer proto.Message
	switch {
	case strings.HasSuffix(r.URL.Path, "GetPluginInfo"):
		answer = &connectpluginv1.GetPluginInfoResponse{
			SelfId: "echo", SelfVersion: "1.0.0",
			Provides: []*connectpluginv1.ServiceDeclaration{{Type: "echo", Version: "1.0.0", Path: echoPath}},
		}
	case strings.HasSuffix(r.URL.Path, "SetRuntimeIdentity"):
		var m connectpluginv1.SetRuntimeIdentityRequest
		if _ = proto.Unmarshal(body, &m); s.given.Add(1) == 1 {
			s.work(&m)
		}
		answer = &connectpluginv1.SetRuntimeIdentityResponse{Acknowledged: true}
	case strings.HasSuffix(r.URL.Path, "GetHealth"):
		var m connectpluginv1.GetHealthRequest
		if _ = proto.Unmarshal(body, &m); m.GetRuntimeId() != "" && s.turned.Load() {
			s.asked.Add(1)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"code":"not_found"}`)
			return
		}
		answer = &connectpluginv1.GetHealthResponse{State: connectpluginv1.HealthState_HEALTH_STATE_HEALTHY}
	}
	raw, _ := proto.Marshal(answer)
	w.Header().Set("Content-Type", "application/proto")
	_, _ = w.Write(raw)
}

// work registers what it provides and says that it is healthy.
func (s *elsewhere) work(id *connectpluginv1.SetRuntimeIdentityRequest) {
	for path, m := range map[string]proto.Message{
		"/connectplugin.v1.ServiceRegistry/RegisterService": &connectpluginv1.RegisterServiceRequest{
			ServiceType: "echo", Version: "1.0.0", EndpointPath: echoPath,
		},
		"/connectplugin.v1.PluginLifecycle/ReportHealth": &connectpluginv1.ReportHealthRequest{
			State: connectpluginv1.HealthState_HEALTH_STATE_HEALTHY,
		},
	} {
		raw, _ := proto.Marshal(m)
		r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, id.GetHostUrl()+path, bytes.NewReader(raw))
		if err != nil {
			return
		}
		r.Header.Set("Content-Type", "application/proto")
		r.Header.Set("X-Plugin-Runtime-Id", id.GetRuntimeId())
		r.Header.Set("Authorization", "Bearer "+id.GetRuntimeToken())
		if resp, err := s.http.Do(r); err == nil {
			_ = resp.Body.Close()
		}
	}
}

// A plugin that says at each question that it is another gets its identity once more, and the log does not say that it is
// back.
func TestAudit_H58_APluginThatIsNeverBackIsNotGivenItsIdentityAgainAndAgain(t *testing.T) {
	t.Parallel()
	c := startCompany(t, func(*hosttest.CA, *connectplugin.ServeConfig, *connectplugin.PluginPolicy) {})
	cert := c.ca.Issue(t, hosttest.CommonName("echo"))
	cfg := &tls.Config{Certificates: []tls.Certificate{*cert}, RootCAs: c.ca.Pool}
	hostile := &elsewhere{http: hosttest.HTTPClient(t, cfg)}
	config := connectplugin.PluginConfig{SelfID: "echo", Endpoint: hosttest.ServeTLS(t, cfg, hostile)}
	if err := c.Platform().AddPlugin(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	hostile.turned.Store(true)
	hosttest.Eventually(t, "it is asked again and again", func() bool { return hostile.asked.Load() > 20 })
	said := c.log.String()
	if n := hostile.given.Load(); n > 2 || strings.Contains(said, "it has its identity back") || strings.Count(said, "answers in the place") != 1 {
		t.Errorf("it was given its identity %d times: %s", n, said)
	}
}

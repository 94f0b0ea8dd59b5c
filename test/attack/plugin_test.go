package attack_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// record is a log that a test reads.
type record struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func (r *record) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// company is a host and a plugin with certificates that name host names, as a company
// gives them to everybody.
type company struct {
	ca     *hosttest.CA
	cert   *tls.Certificate // the host's
	caller *tls.Certificate // with which the host calls plugins
	host   *hosttest.Host
	echo   *echo
	addr   string // the plugin's
	log    *record
}

// startCompany starts both; edit says whom the plugin takes for its host. The host calls
// plugins with a certificate of its own where caller names one.
func startCompany(t *testing.T, hostName func(*x509.Certificate), caller func(*x509.Certificate), edit func(*company, *connectplugin.PluginServerConfig)) *company {
	t.Helper()
	c := &company{ca: hosttest.NewCA(t), echo: &echo{}, log: &record{}}
	c.cert = c.ca.Certify(t, hostName, hosttest.Loopback)
	c.caller = c.cert
	if caller != nil {
		c.caller = c.ca.Certify(t, caller)
	}
	c.host = c.ca.Start(t, c.cert, func(s *connectplugin.ServeConfig) {
		s.Policy = policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": withSecret, "api": withSecret})
		if caller != nil {
			s.PluginTLS = c.ca.TLS(c.caller)
		}
	})
	listener := hosttest.Listen(t)
	c.addr = "https://" + listener.Addr().String()
	c.host.StartPlugin(t, "storage", func(p *connectplugin.PluginServerConfig) {
		p.Client.TLS = c.ca.TLS(c.ca.Certify(t, hosttest.DNS("storage.example"), hosttest.Loopback))
		p.Client.Logger, p.Listener = c.log.logger(), listener
		p.Services = []connectplugin.PluginService{c.echo.service("echo")}
		edit(c, p)
	})
	return c
}

// call calls the plugin through the host.
func (c *company) call(t *testing.T) map[string]error {
	t.Helper()
	api, err := enrol(t, connectplugin.ClientConfig{
		HostURL: c.host.URL, SelfID: "api", TLS: c.ca.TLS(nil), Secret: hosttest.Secret,
		Metadata: connectplugin.PluginMetadata{Requires: hosttest.Requires("echo")},
	})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := api.Service(t.Context(), "echo", "")
	if err != nil {
		t.Fatal(err)
	}
	return callEcho(t.Context(), conn.HTTPClient(), conn.BaseURL())
}

// knock calls everything that the plugin serves, without the host.
func (c *company) knock(t *testing.T, cert *tls.Certificate) map[string]error {
	t.Helper()
	client := hosttest.HTTPClient(t, c.ca.TLS(cert))
	errs := map[string]error{}
	say := connect.NewClient[text, text](stating(client), c.addr+sayProc)
	_, errs["Say"] = say.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x")))
	identity := connectpluginv1connect.NewPluginIdentityClient(client, c.addr)
	control := connectpluginv1connect.NewPluginControlClient(client, c.addr, connect.WithGRPC())
	_, errs["GetHealth"] = control.GetHealth(t.Context(), connect.NewRequest(&connectpluginv1.GetHealthRequest{}))
	_, errs["Shutdown"] = control.Shutdown(t.Context(), connect.NewRequest(&connectpluginv1.ShutdownRequest{}))
	_, errs["GetPluginInfo"] = identity.GetPluginInfo(t.Context(), connect.NewRequest(&connectpluginv1.GetPluginInfoRequest{}))
	_, errs["SetRuntimeIdentity"] = identity.SetRuntimeIdentity(t.Context(), connect.NewRequest(&connectpluginv1.SetRuntimeIdentityRequest{}))
	return errs
}

// stating is a client that says to call for somebody.
type statingClient struct{ next *http.Client }

func stating(next *http.Client) statingClient { return statingClient{next} }

func (s statingClient) Do(r *http.Request) (*http.Response, error) {
	r.Header.Set("X-Plugin-Caller-Id", "admin")
	return s.next.Do(r)
}

// wantNobodyServed checks that whoever is not the host gets nothing.
func (c *company) wantNobodyServed(t *testing.T, knockers map[string]*tls.Certificate) {
	t.Helper()
	before := c.echo.calls.Load()
	for name, cert := range knockers {
		errs := c.knock(t, cert)
		if name == "another plugin" { // TLS knows no calls, so that one is enough
			maps.Copy(errs, callEcho(t.Context(), stating(hosttest.HTTPClient(t, c.ca.TLS(cert))), c.addr))
		}
		for call, err := range errs {
			// TLS refuses before there is anybody to answer.
			if err == nil || connect.IsWireError(err) {
				t.Errorf("%s: %s: %v, want no answer", name, call, err)
			}
		}
	}
	if served := c.echo.calls.Load() - before; served != 0 {
		t.Errorf("%d calls of others were served", served)
	}
}

func (c *company) strangers(t *testing.T, more map[string]*tls.Certificate) map[string]*tls.Certificate {
	t.Helper()
	all := map[string]*tls.Certificate{
		"nobody":              nil,
		"a stranger":          hosttest.NewCA(t).Certify(t, hosttest.DNS("localhost"), hosttest.Loopback),
		"another plugin":      c.ca.Certify(t, hosttest.DNS("api.example"), hosttest.Loopback),
		"another SPIFFE id":   c.ca.Certify(t, hosttest.URI(apiID), hosttest.Loopback),
		"no name":             c.ca.Certify(t, hosttest.Loopback),
		"the host's, renamed": c.ca.Certify(t, hosttest.DNS("x.example", "localhost"), hosttest.Loopback),
	}
	maps.Copy(all, more)
	return all
}

var nothing = func(*company, *connectplugin.PluginServerConfig) {}

// A plugin whose operator named nobody learns no host from a name that others hold: it
// serves nobody, and says so when it starts.
func TestAudit_ATK15_APluginThatKnowsNoHostServesNobody(t *testing.T) {
	t.Parallel()
	for name, hostName := range map[string]func(*x509.Certificate){
		"DNS name": hosttest.DNS("localhost"), "common name": hosttest.CommonName("localhost"), "no name": func(*x509.Certificate) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startCompany(t, hostName, nil, nothing)
			c.wantNobodyServed(t, c.strangers(t, map[string]*tls.Certificate{
				"the same name": c.ca.Certify(t, hostName, hosttest.Loopback), "the host itself": c.cert,
			}))
			wantRefused(t, "through the host", c.call(t), connect.CodeUnavailable)
			if said := c.log.String(); !strings.Contains(said, "HostIdentity") || !strings.Contains(said, "PinnedKeys") ||
				!strings.Contains(said, certs.PinOf(c.cert.Leaf).String()) {
				t.Errorf("the log does not say what to set: %s", said)
			}
		})
	}
}

// What the operator names is the host, and nobody else is.
func TestAudit_ATK15_TheOperatorNamesTheHost(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	for name, c := range map[string]struct {
		edit func(*company, *connectplugin.PluginServerConfig)
		same bool // another certificate for the host's name will do, as the operator says
	}{
		"client's identity": {func(_ *company, p *connectplugin.PluginServerConfig) { p.Client.HostIdentity = "localhost" }, true},
		"server's identity": {func(_ *company, p *connectplugin.PluginServerConfig) { p.HostIdentity = "localhost" }, true},
		"key": {func(c *company, p *connectplugin.PluginServerConfig) {
			p.Client.PinnedKeys = []string{certs.PinOf(c.cert.Leaf).String()}
		}, false},
		"identity and key": {func(c *company, p *connectplugin.PluginServerConfig) {
			p.HostIdentity, p.Client.PinnedKeys = "localhost", []string{certs.PinOf(c.cert.Leaf).String()}
		}, false},
		"in a chosen configuration": {func(c *company, p *connectplugin.PluginServerConfig) {
			p.Client.PinnedKeys = []string{certs.PinOf(c.cert.Leaf).String()}
			inner := p.Client.TLS.Clone()
			p.TLS = p.Client.TLS.Clone()
			p.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return inner, nil }
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			company := startCompany(t, hosttest.DNS("localhost"), nil, c.edit)
			others := map[string]*tls.Certificate{"another company's host": ca.Certify(t, hosttest.DNS("localhost"), hosttest.Loopback)}
			if !c.same {
				others["the same name"] = company.ca.Certify(t, hosttest.DNS("localhost"), hosttest.Loopback)
			}
			company.wantNobodyServed(t, company.strangers(t, others))
			wantServed(t, "through the host", company.call(t))
			said := strings.ReplaceAll(company.log.String(), "as HostIdentity says", "") // of a stranger who was refused
			if strings.Contains(said, "HostIdentity") {
				t.Errorf("warned: %s", said)
			}
		})
	}
}

// Where the host calls plugins with another certificate, that one is named.
func TestAudit_ATK15_TheHostThatCallsWithAnotherCertificate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit func(*company, *connectplugin.PluginServerConfig)
		ok   bool
	}{
		"before the client's": {func(_ *company, p *connectplugin.PluginServerConfig) {
			p.Client.HostIdentity, p.HostIdentity = "localhost", "caller.example"
		}, true},
		"both keys": {func(c *company, p *connectplugin.PluginServerConfig) {
			p.Client.PinnedKeys = []string{certs.PinOf(c.cert.Leaf).String(), certs.PinOf(c.caller.Leaf).String()}
		}, true},
		"the client's alone": {func(_ *company, p *connectplugin.PluginServerConfig) { p.Client.HostIdentity = "localhost" }, false},
		"one key": {func(c *company, p *connectplugin.PluginServerConfig) {
			p.Client.PinnedKeys = []string{certs.PinOf(c.cert.Leaf).String()}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			company := startCompany(t, hosttest.DNS("localhost"), hosttest.DNS("caller.example"), c.edit)
			company.wantNobodyServed(t, company.strangers(t, nil))
			if errs := company.call(t); c.ok {
				wantServed(t, name, errs)
			} else {
				wantRefused(t, name, errs, connect.CodeUnavailable)
			}
		})
	}
}

// The SPIFFE id of the host that the plugin enrolled with is nobody else's.
func TestAudit_ATK15_SPIFFEIDsNeedNoNaming(t *testing.T) {
	t.Parallel()
	c := startCompany(t, hosttest.URI(hostID), nil, nothing)
	c.wantNobodyServed(t, c.strangers(t, map[string]*tls.Certificate{
		"a longer id": c.ca.Certify(t, hosttest.URI(hostID+"/x"), hosttest.Loopback),
		"two ids":     c.ca.Certify(t, hosttest.URI(hostID, apiID), hosttest.Loopback),
		"look-alike":  c.ca.Certify(t, hosttest.CommonName(hostID), hosttest.Loopback),
	}))
	wantServed(t, "through the host", c.call(t))
}

// A plugin that waits for its host is assigned its identity by that host alone.
func TestAudit_ATK15_APluginThatWaitsServesItsHostOnly(t *testing.T) {
	t.Parallel()
	c := &company{ca: hosttest.NewCA(t), echo: &echo{}, log: &record{}}
	c.cert = c.ca.Certify(t, hosttest.DNS("localhost"), hosttest.Loopback)
	listener := hosttest.Listen(t)
	c.addr = "https://" + listener.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
			Client: connectplugin.ClientConfig{
				SelfID: "storage", Secret: hosttest.Secret, Logger: c.log.logger(), PinnedKeys: []string{certs.PinOf(c.cert.Leaf).String()},
				TLS: c.ca.TLS(c.ca.Certify(t, hosttest.DNS("storage.example"), hosttest.Loopback)),
			},
			Listener: listener, Services: []connectplugin.PluginService{c.echo.service("echo")},
		})
	}()
	c.wantNobodyServed(t, c.strangers(t, map[string]*tls.Certificate{"the same name": c.ca.Certify(t, hosttest.DNS("localhost"), hosttest.Loopback)}))
	say := connect.NewClient[text, text](hosttest.HTTPClient(t, c.ca.TLS(c.cert)), c.addr+sayProc)
	if _, err := say.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x"))); err != nil {
		t.Errorf("the host: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("plugin: %v", err)
	}
}

// A plugin that will serve nobody says so before it has found its host.
func TestAudit_ATK15_APluginSaysAtStartThatItServesNobody(t *testing.T) {
	t.Parallel()
	ca, log := hosttest.NewCA(t), &record{}
	nowhere := hosttest.Listen(t)
	defer func() { _ = nowhere.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
			Client: connectplugin.ClientConfig{
				HostURL: "https://" + nowhere.Addr().String(), SelfID: "storage", Secret: hosttest.Secret, Logger: log.logger(),
				TLS: ca.TLS(ca.Certify(t, hosttest.DNS("storage.example"), hosttest.Loopback)),
			},
			Services: []connectplugin.PluginService{(&echo{}).service("echo")},
		})
	}()
	hosttest.Eventually(t, "the log says it", func() bool { return strings.Contains(log.String(), "HostIdentity") })
	cancel()
	if err := <-done; err != nil {
		t.Errorf("plugin: %v", err)
	}
}

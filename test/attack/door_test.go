package attack_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// withHeader is a client that adds fields to each request.
type withHeader struct {
	next   connect.HTTPClient
	header http.Header
}

func (w withHeader) Do(r *http.Request) (*http.Response, error) {
	maps.Copy(r.Header, w.header)
	return w.next.Do(r)
}

// offersEcho makes the echo service one of the host's own plugins, for which certificates are
// asked by an auth provider.
func offersEcho(e *echo, providers ...connectplugin.AuthProvider) func(*connectplugin.ServeConfig) {
	return func(c *connectplugin.ServeConfig) {
		c.Plugins, c.Impls = connectplugin.PluginSet{"echo": hostEcho{e}}, map[string]any{"echo": true}
		c.AuthProviders = slices.Concat(providers, []connectplugin.AuthProvider{connectplugin.NewMTLSAuth(nil, nil, nil)})
	}
}

// door is a plugin with a certificate that tries every way into a host plugin.
type door struct {
	host *hosttest.Host
	echo *echo
	tls  *tls.Config

	id, token string
	client    *http.Client
}

// use changes the certificate that the door shows.
func (d *door) use(t *testing.T, cfg *tls.Config) {
	t.Helper()
	d.tls, d.client = cfg, hosttest.HTTPClient(t, cfg)
}

// enrol gets the plugin its identity, for which it proves the test's secret where that is
// asked.
func (d *door) enrol(t *testing.T, secret connectplugin.Secret) {
	t.Helper()
	c, err := enrol(t, connectplugin.ClientConfig{HostURL: d.host.URL, SelfID: "storage", TLS: d.tls, Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	d.id, d.token = c.RuntimeID(), c.RuntimeToken()
}

// call calls in every protocol, with what a header says.
func (d *door) call(t *testing.T, header http.Header) map[string]error {
	t.Helper()
	return callEcho(t.Context(), withHeader{d.client, header}, d.host.URL)
}

// say makes one call, with what a header says.
func (d *door) say(t *testing.T, header http.Header) map[string]error {
	t.Helper()
	client := connect.NewClient[text, text](withHeader{d.client, header}, d.host.URL+sayProc)
	_, err := client.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x")))
	return map[string]error{"unary": err}
}

// wantShut checks that no way leads in.
func (d *door) wantShut(t *testing.T, when string) {
	t.Helper()
	before := d.echo.calls.Load()
	wantRefused(t, when+", no runtime id", d.call(t, nil), connect.CodeUnauthenticated)
	for how, header := range map[string]http.Header{
		"an empty one": {"X-Plugin-Runtime-Id": {""}}, "nobody's": hosttest.IdentityHeader("nobody-0123", d.token),
		"a wrong token": hosttest.IdentityHeader(d.id, "wrong"), "the token alone": hosttest.BearerHeader(d.token),
	} {
		wantRefused(t, when+", "+how, d.say(t, header), connect.CodeUnauthenticated)
	}
	wantRefused(t, when+", the identity", d.say(t, hosttest.IdentityHeader(d.id, d.token)), connect.CodeUnauthenticated, connect.CodeNotFound)
	if n := d.echo.calls.Load() - before; n != 0 {
		t.Errorf("%s: %d calls were served", when, n)
	}
}

// doors are the ways in which a policy can know a certificate.
func doors() map[string]struct {
	secret connectplugin.Secret
	policy func(*tls.Certificate) map[string]func(*connectplugin.PluginPolicy)
	edits  []func(*x509.Certificate)
} {
	type way = struct {
		secret connectplugin.Secret
		policy func(*tls.Certificate) map[string]func(*connectplugin.PluginPolicy)
		edits  []func(*x509.Certificate)
	}
	one := []func(*x509.Certificate){hosttest.URI(oneID)}
	known := func(name string, edit func(*connectplugin.PluginPolicy)) func(*tls.Certificate) map[string]func(*connectplugin.PluginPolicy) {
		return func(*tls.Certificate) map[string]func(*connectplugin.PluginPolicy) {
			return map[string]func(*connectplugin.PluginPolicy){name: edit}
		}
	}
	return map[string]way{
		"by its identity":  {nil, known(oneID, nil), one},
		"by its host name": {nil, known("one.company.example", nil), []func(*x509.Certificate){hosttest.DNS("one.company.example")}},
		"as a proof":       {nil, known("storage", withCertificates(oneID)), one},
		"by its key": {nil, func(cert *tls.Certificate) map[string]func(*connectplugin.PluginPolicy) {
			digest := sha256.Sum256(cert.Leaf.RawSubjectPublicKeyInfo)
			return map[string]func(*connectplugin.PluginPolicy){"storage": func(p *connectplugin.PluginPolicy) { p.PinnedKeys = []string{hex.EncodeToString(digest[:])} }}
		}, nil},
		"beside a secret":  {hosttest.Secret, known("storage", withSecret), one},
		"without a proof":  {nil, known("storage", unproven), one},
		"a nameless one's": {nil, known("storage", unproven), nil},
	}
}

// deny takes the host plugins away from everybody.
func deny(p *connectplugin.Policy) *connectplugin.Policy {
	for name, rules := range p.Plugins {
		rules.HostPlugins = nil
		p.Plugins[name] = rules
	}
	return p
}

// Whoever leaves its runtime identity out is no stranger, however policy knows its
// certificate, while its identity lives and afterwards; and who is a stranger is asked for
// by the providers as before.
func TestAudit_ATK02_APluginIsNoStranger(t *testing.T) {
	t.Parallel()
	for name, way := range doors() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := &echo{}
			host := startNamesHost(t, nil, offersEcho(e))
			cert := host.ca.Certify(t, way.edits...)
			d := &door{host: host.Host, echo: e}
			d.use(t, host.ca.TLS(cert))
			allowed, denied := policyFor(way.policy(cert)), deny(policyFor(way.policy(cert)))
			hosttest.SetPolicy(t, host.Host, allowed)
			d.enrol(t, way.secret)
			wantServed(t, "allowed", d.call(t, hosttest.IdentityHeader(d.id, d.token)))
			wantRefused(t, "allowed, but no runtime id", d.call(t, nil), connect.CodeUnauthenticated)
			hosttest.SetPolicy(t, host.Host, denied)
			d.wantShut(t, "denied")
			host.Revoke(d.id)
			d.wantShut(t, "revoked")
			hosttest.SetPolicy(t, host.Host, allowed)
			d.wantShut(t, "allowed, without an identity")
			for when, policy := range map[string]*connectplugin.Policy{"empty": {}, "nil": nil, "open": connectplugin.OpenPolicy()} {
				if when == "open" {
					policy.Public = nil
				}
				hosttest.SetPolicy(t, host.Host, policy)
				d.wantShut(t, when)
			}
			if len(way.edits) > 0 { // and so is another certificate of the same identity
				d.use(t, host.ca.TLS(host.ca.Certify(t, way.edits...)))
				d.wantShut(t, "with another certificate")
			}
			d.use(t, host.ca.TLS(host.ca.Certify(t, hosttest.URI("spiffe://company.example/stranger"))))
			wantServed(t, "a stranger", d.call(t, nil))
		})
	}
}

// A certificate that policy names has not to enrol first; nor has one of the Authority, which
// certifies plugins and nobody else.
func TestAudit_ATK02_NobodyEnrolsFirst(t *testing.T) {
	t.Parallel()
	e := &echo{}
	host := startNamesHost(t, deny(policyFor(map[string]func(*connectplugin.PluginPolicy){oneID: nil})), offersEcho(e))
	d := &door{host: host.Host, echo: e}
	d.use(t, host.ca.TLS(host.ca.Certify(t, hosttest.URI(oneID))))
	d.wantShut(t, "named by policy")
	hosttest.SetPolicy(t, host.Host, nil)
	d.wantShut(t, "named by an earlier policy")

	f := &echo{}
	both, company := twoAuthorities(t, policyFor(nil), offersEcho(f))
	own, err := both.Authority.PluginTLS("storage")
	if err != nil {
		t.Fatal(err)
	}
	d = &door{host: both, echo: f}
	d.use(t, own)
	d.wantShut(t, "of the authority")
	stranger := both.StrangerTLS()
	stranger.Certificates = []tls.Certificate{*company.Certify(t, hosttest.URI(oneID))}
	d.use(t, stranger)
	wantServed(t, "a stranger of the company", d.call(t, nil))
}

// A stranger's stream ends when policy makes a plugin of it, and no other stranger's.
func TestAudit_ATK02_StreamsOfStrangersWhoBecomePlugins(t *testing.T) {
	t.Parallel()
	for name, options := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &staying{}
			host := startNamesHost(t, nil, func(c *connectplugin.ServeConfig) {
				c.Plugins, c.Impls = connectplugin.PluginSet{"echo": staysOpen{s}}, map[string]any{"echo": true}
				c.AuthProviders = []connectplugin.AuthProvider{connectplugin.NewMTLSAuth(nil, nil, nil)}
			})
			one, other := s.open(t, host, oneID, options), s.open(t, host, otherID, options)
			hosttest.SetPolicy(t, host.Host, policyFor(map[string]func(*connectplugin.PluginPolicy){oneID: nil}))
			if err := hosttest.Arrival(t, one); err == nil {
				t.Error("the stream of a plugin ended well")
			}
			select {
			case err := <-other:
				t.Errorf("the stream of a stranger ended: %v", err)
			default:
			}
			hosttest.SetPolicy(t, host.Host, policyFor(map[string]func(*connectplugin.PluginPolicy){otherID: nil}))
			if err := hosttest.Arrival(t, other); err == nil {
				t.Error("the stream of the other plugin ended well")
			}
		})
	}
}

// staying serves streams that stay open.
type staying struct{}

// staysOpen serves them as one of the host's own plugins.
type staysOpen struct{ *staying }

func (staysOpen) Metadata() connectplugin.PluginMetadata { return hostEcho{}.Metadata() }

func (staysOpen) ConnectServer(any) (string, http.Handler, error) {
	return echoPath, connect.NewServerStreamHandler(watchProc, func(ctx context.Context, r *connect.Request[text], s *connect.ServerStream[text]) error {
		if err := s.Send(r.Msg); err != nil {
			return err
		}
		<-ctx.Done()
		return context.Cause(ctx)
	}), nil
}

func (staysOpen) ConnectClient(string, connect.HTTPClient) (any, error) { return struct{}{}, nil }

// open opens a stream with a new certificate of an identity; its end arrives.
func (*staying) open(t *testing.T, host *namesHost, identity string, options []connect.ClientOption) <-chan error {
	t.Helper()
	client := hosttest.HTTPClient(t, host.ca.TLS(host.ca.Certify(t, hosttest.URI(identity))))
	stream, err := connect.NewClient[text, text](client, host.URL+watchProc, options...).CallServerStream(t.Context(), connect.NewRequest(wrapperspb.String("x")))
	if err != nil || !stream.Receive() {
		t.Fatalf("%s: %v, %v", identity, err, stream.Err())
	}
	ended := make(chan error, 1)
	go func() {
		for stream.Receive() { // to the end
		}
		err := stream.Err()
		_ = stream.Close()
		ended <- err
	}()
	return ended
}

// A runtime token is not shown to the providers, good or not, whichever field it is in.
func TestAudit_ATK02_TokensAreNotShownToProviders(t *testing.T) {
	t.Parallel()
	e := &echo{}
	shown := make(chan string, 1000)
	anybody := func(token string) (string, map[string]string, error) {
		shown <- token
		return "anybody", nil, nil
	}
	host := startNamesHost(t, policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": unproven}), offersEcho(e,
		connectplugin.NewTokenAuth("", anybody), connectplugin.NewAPIKeyAuth("", anybody)))
	bare := hosttest.HTTPClient(t, host.ca.TLS(nil))
	shakes := connectpluginv1connect.NewHandshakeServiceClient(bare, host.URL)
	first, err := shakes.Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("storage")))
	if err != nil {
		t.Fatal(err)
	}
	id, old := first.Msg.GetRuntimeId(), first.Msg.GetRuntimeToken()
	renewed, err := shakes.Handshake(t.Context(), hosttest.WithCredentials(hosttest.OldRequest("storage"), id, old))
	if err != nil {
		t.Fatal(err)
	}
	token := renewed.Msg.GetRuntimeToken()
	try := func(when string) {
		for what, token := range map[string]string{"current": token, "replaced": old} {
			for _, header := range []http.Header{
				{"Authorization": {"Bearer " + token}}, {"X-Api-Key": {token}}, {"Authorization": {"bearer   " + token}},
			} {
				wantRefused(t, when+", "+what, callEcho(t.Context(), withHeader{bare, header}, host.URL), connect.CodeUnauthenticated)
			}
		}
	}
	try("while it lives")
	wantServed(t, "the plugin", callEcho(t.Context(), withHeader{bare, hosttest.IdentityHeader(id, token)}, host.URL))
	host.Revoke(id)
	try("revoked")
	hosttest.SetPolicy(t, host.Host, nil)
	try("no policy")
	if len(shown) != 0 {
		t.Errorf("a provider was shown %d tokens", len(shown))
	}
	wantServed(t, "a stranger", callEcho(t.Context(), withHeader{bare, hosttest.BearerHeader("something-else")}, host.URL))
}

// A peer that shows more certificates than are verified, or larger ones, is refused before any signature is looked at,
// however its leaf verifies, whatever configuration of TLS a host has, and in clients.
func TestAudit_ATK03_ChainsAreShort(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	leaf, other := ca.Certify(t, hosttest.Loopback), ca.Certify(t, hosttest.DNS("other.example"))
	large := ca.Certify(t, hosttest.DNS(slices.Repeat([]string{"a-name-of-some-length.example"}, 3000)...))
	chain := func(n int, more *tls.Certificate) *tls.Certificate {
		c := *leaf
		c.Certificate = slices.Concat(leaf.Certificate, slices.Repeat(more.Certificate, n))
		return &c
	}
	chains := map[string]struct {
		shown   *tls.Certificate
		refused bool
	}{
		"ten certificates": {chain(9, other), false}, "eleven": {chain(10, other), true}, "a large one": {chain(1, large), true},
	}
	for name, edit := range map[string]func(c *connectplugin.ServeConfig){
		"verifies those that are given": func(*connectplugin.ServeConfig) {},
		"requires one":                  func(c *connectplugin.ServeConfig) { c.TLS.ClientAuth = tls.RequireAndVerifyClientCert },
		"asks for one":                  func(c *connectplugin.ServeConfig) { c.TLS.ClientAuth = tls.RequestClientCert },
		"verifies in a callback": func(c *connectplugin.ServeConfig) {
			c.PluginTLS, c.TLS.ClientAuth = ca.TLS(leaf), tls.RequireAnyClientCert
			c.TLS.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { return nil }
		},
		"chooses": func(c *connectplugin.ServeConfig) {
			chosen := c.TLS.Clone()
			c.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return chosen, nil }
		},
	} {
		host := ca.Start(t, leaf, edit)
		for what, c := range chains {
			conn, err := tls.Dial("tcp", host.Addr(), ca.TLS(c.shown))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(conn, http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
			_, err = conn.Read(make([]byte, 1)) // of the host's SETTINGS
			if (err != nil) != c.refused {
				t.Errorf("a host that %s, and a client with %s: %v, want refused: %t", name, what, err, c.refused)
			}
			_ = conn.Close()
		}
	}
	for what, c := range chains {
		host := ca.Start(t, c.shown, func(*connectplugin.ServeConfig) {})
		client, err := connectplugin.NewClient(connectplugin.ClientConfig{
			HostURL: host.URL, SelfID: "a", Secret: hosttest.Secret, TLS: ca.TLS(leaf),
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Connect(t.Context()); errors.Is(err, connectplugin.ErrHostNotTrusted) != c.refused {
			t.Errorf("a host with %s: %v, want refused: %t", what, err, c.refused)
		}
		_ = client.Close()
	}
}

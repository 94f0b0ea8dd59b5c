package connectplugin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
	"github.com/masegraye/connect-plugin-go/internal/turns"
)

// testPKI is an authority with one certificate for both roles.
type testPKI struct {
	pool *x509.CertPool
	cert tls.Certificate
}

func newTestPKI(t *testing.T) testPKI {
	t.Helper()

	now := time.Now()

	ca, err := certs.NewCA("example.test", certs.ECDSA, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}

	key, err := certs.NewKey(certs.ECDSA)
	if err != nil {
		t.Fatal(err)
	}

	cert, err := ca.Issue(certs.Request{
		ID:    certs.ID{TrustDomain: "example.test", Role: certs.RoleHost},
		Hosts: []string{"127.0.0.1"}, Key: key, TTL: time.Hour,
	}, now)
	if err != nil {
		t.Fatal(err)
	}

	return testPKI{pool: ca.Pool(), cert: *cert}
}

func (p testPKI) server() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{p.cert}}
}

func (p testPKI) client() *tls.Config {
	return &tls.Config{RootCAs: p.pool}
}

func hardServer(t *testing.T, config *tls.Config) *tls.Config {
	t.Helper()

	hardened, err := hardenServerTLS(config)
	if err != nil {
		t.Fatalf("hardenServerTLS: %v", err)
	}

	return hardened
}

func hardClient(t *testing.T, config *tls.Config, pins ...string) *tls.Config {
	t.Helper()

	hardened, err := hardenClientTLS(config, pins)
	if err != nil {
		t.Fatalf("hardenClientTLS: %v", err)
	}

	return hardened
}

// shakeHands makes one handshake over loopback and returns what the server got to,
// and the errors of both handshakes and of the first byte exchanged after them.
func shakeHands(t *testing.T, server, client *tls.Config) (state tls.ConnectionState, err error) {
	t.Helper()

	var listen net.ListenConfig

	listener, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	served := make(chan error, 1)

	go func() {
		conn, err := listener.Accept()
		if err != nil {
			served <- err

			return
		}
		defer func() { _ = conn.Close() }()

		secured := tls.Server(conn, server)
		err = secured.HandshakeContext(ctx)
		state = secured.ConnectionState()

		if err == nil {
			_, err = secured.Write([]byte{1})
		}
		served <- err
	}()

	clientErr := func() error {
		conn, err := (&tls.Dialer{Config: client}).DialContext(ctx, "tcp", listener.Addr().String())
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()

		_, err = conn.Read(make([]byte, 1))

		return err
	}()

	return state, errors.Join(<-served, clientErr)
}

func TestAudit_AUTH008_Default(t *testing.T) {
	t.Parallel()

	pki := newTestPKI(t)
	config := pki.server()
	config.NextProtos = []string{"http/1.1", "h2"}
	server := hardServer(t, config)

	if config.MinVersion != 0 || len(config.NextProtos) != 2 || config.VerifyConnection != nil || config.SessionTicketsDisabled {
		t.Error("the caller's configuration was changed")
	}

	// Honest use: both sides hardened.
	state, err := shakeHands(t, server, hardClient(t, pki.client()))
	if err != nil || state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != "h2" {
		t.Fatalf("%s, %q, %v, want TLS 1.3 and h2", tls.VersionName(state.Version), state.NegotiatedProtocol, err)
	}

	// TLS 1.2 is refused by either side.
	old := pki.client()
	old.MaxVersion, old.NextProtos = tls.VersionTLS12, []string{"h2"}

	if _, err := shakeHands(t, server, old); err == nil {
		t.Error("the server speaks TLS 1.2")
	}

	oldServer := pki.server()
	oldServer.MaxVersion, oldServer.NextProtos = tls.VersionTLS12, []string{"h2"}

	if _, err := shakeHands(t, oldServer, hardClient(t, pki.client())); err == nil {
		t.Error("the client speaks TLS 1.2")
	}
}

func TestAudit_AUTH008_TLS12WithModernSuitesOnly(t *testing.T) {
	t.Parallel()

	pki := newTestPKI(t)
	config := pki.server()
	config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	server := hardServer(t, config)

	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if !slices.Contains(suite.SupportedVersions, tls.VersionTLS12) || strings.Contains(suite.Name, "_RSA_") {
			continue // the certificate is ECDSA
		}

		client := pki.client()
		client.MaxVersion, client.NextProtos, client.CipherSuites = tls.VersionTLS12, []string{"h2"}, []uint16{suite.ID}
		state, err := shakeHands(t, server, client)

		if modern := slices.Contains(modernSuites, suite.ID); modern != (err == nil) {
			t.Errorf("%s: %v, want success %t", suite.Name, err, modern)
		} else if modern && state.CipherSuite != suite.ID {
			t.Errorf("%s: got %s", suite.Name, tls.CipherSuiteName(state.CipherSuite))
		}
	}

	for _, id := range modernSuites {
		if name := tls.CipherSuiteName(id); !strings.HasPrefix(name, "TLS_ECDHE_") ||
			!strings.Contains(name, "GCM") && !strings.Contains(name, "POLY1305") {
			t.Errorf("%s has no ECDHE or no authenticated encryption", name)
		}
	}
}

func TestAudit_AUTH008_NoH2NoConnection(t *testing.T) {
	t.Parallel()

	pki := newTestPKI(t)

	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, protocols := range map[string][]string{
			"none": nil, "HTTP/1.1": {"http/1.1"}, "another": {"spdy/3"},
		} {
			client := pki.client()
			client.MaxVersion, client.NextProtos = version, protocols
			server := pki.server()
			server.MinVersion = version

			if _, err := shakeHands(t, hardServer(t, server), client); err == nil {
				t.Errorf("%s: a client that offers %s is served", tls.VersionName(version), name)
			}

			server, client = pki.server(), pki.client()
			server.MaxVersion, server.NextProtos = version, protocols
			client.MinVersion = version

			if _, err := shakeHands(t, server, hardClient(t, client)); err == nil {
				t.Errorf("%s: a server that offers %s is spoken to", tls.VersionName(version), name)
			}
		}
	}
}

func TestAudit_AUTH008_RefusedConfigurations(t *testing.T) {
	t.Parallel()

	pki := newTestPKI(t)
	both := map[string]struct {
		change func(*tls.Config)
		field  string
	}{
		"TLS 1.1":          {func(c *tls.Config) { c.MinVersion = tls.VersionTLS11 }, "TLS.MinVersion"},
		"maximum too low":  {func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, "TLS.MaxVersion"},
		"CBC":              {weakSuite(tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA), "TLS.CipherSuites"},
		"RSA key exchange": {weakSuite(tls.TLS_RSA_WITH_AES_128_GCM_SHA256), "TLS.CipherSuites"},
	}

	for name, test := range both {
		server, client := pki.server(), pki.client()
		test.change(server)
		test.change(client)

		_, err := hardenServerTLS(server)
		assertInvalid(t, "server, "+name, err, test.field)

		_, err = hardenClientTLS(client, nil)
		assertInvalid(t, "client, "+name, err, test.field)
	}

	_, err := hardenServerTLS(nil)
	assertInvalid(t, "no configuration", err, "TLS")

	_, err = hardenServerTLS(&tls.Config{})
	assertInvalid(t, "no certificate", err, "Certificates")

	for _, auth := range []tls.ClientAuthType{tls.VerifyClientCertIfGiven, tls.RequireAndVerifyClientCert} {
		server := pki.server()
		server.ClientAuth = auth
		_, err = hardenServerTLS(server)
		assertInvalid(t, auth.String(), err, "TLS.ClientCAs")
	}

	skip := pki.client()
	skip.InsecureSkipVerify = true
	_, err = hardenClientTLS(skip, []string{certs.PinOf(pki.cert.Leaf).String()})
	assertInvalid(t, "no verification", err, "TLS.InsecureSkipVerify")

	_, err = hardenClientTLS(nil, []string{"x"})
	assertInvalid(t, "pin", err, "PinnedKeys[0]")
}

func weakSuite(suite uint16) func(*tls.Config) {
	return func(c *tls.Config) {
		c.MinVersion = tls.VersionTLS12
		c.CipherSuites = []uint16{modernSuites[0], suite}
	}
}

func assertInvalid(t *testing.T, name string, err error, field string) {
	t.Helper()

	if !errors.Is(err, ErrInvalidConfig) || !strings.Contains(err.Error(), field) {
		t.Errorf("%s: %v, want ErrInvalidConfig that names %s", name, err, field)
	}
}

func TestAudit_AUTH008_ChosenConfigIsHardened(t *testing.T) {
	t.Parallel()

	pki := newTestPKI(t)

	var chosen *tls.Config

	config := pki.server()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return chosen, nil }
	server := hardServer(t, config)
	h2, bare, old := hardClient(t, pki.client()), pki.client(), pki.client()
	old.MaxVersion, old.NextProtos = tls.VersionTLS12, []string{"h2"}

	for name, choice := range map[string]*tls.Config{"the original": nil, "another": pki.server()} {
		chosen = choice

		if _, err := shakeHands(t, server, h2); err != nil {
			t.Errorf("%s: %v", name, err)
		}

		if _, err := shakeHands(t, server, bare); err == nil {
			t.Errorf("%s: served without ALPN", name)
		}

		if _, err := shakeHands(t, server, old); err == nil {
			t.Errorf("%s: served over TLS 1.2", name)
		}
	}

	chosen = pki.server()
	chosen.MinVersion = tls.VersionTLS10

	if _, err := shakeHands(t, server, h2); !errors.Is(err, ErrInvalidConfig) {
		t.Errorf("weak choice: %v, want ErrInvalidConfig", err)
	}
}

// VerifyPeerCertificate does not run on resumed connections: there must be none.
func TestAudit_AUTH008_NoResumption(t *testing.T) {
	t.Parallel()

	pki := newTestPKI(t)

	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		var asked int

		client := pki.client()
		client.MinVersion, client.MaxVersion = version, version
		client.ClientSessionCache = tls.NewLRUClientSessionCache(8)
		client.InsecureSkipVerify = true
		client.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error {
			asked++

			return nil
		}
		lax := client.Clone()
		lax.NextProtos = []string{"h2"}
		plain := pki.server()
		plain.MinVersion, plain.NextProtos = version, []string{"h2"}
		config := pki.server()
		config.MinVersion = version
		server, hardened := hardServer(t, config), hardClient(t, client)

		for name, pair := range map[string]struct{ server, client *tls.Config }{
			"hardened server": {server, lax}, "hardened client": {plain, hardened},
		} {
			asked = 0

			for range 3 {
				state, err := shakeHands(t, pair.server, pair.client)
				if err != nil || state.DidResume {
					t.Errorf("%s, %s: resumed %t, %v", tls.VersionName(version), name, state.DidResume, err)
				}
			}

			if asked != 3 {
				t.Errorf("%s, %s: verified %d of 3 connections", tls.VersionName(version), name, asked)
			}
		}

		// The test can tell: without hardening the same pair resumes.
		if _, err := shakeHands(t, plain, lax); err != nil {
			t.Fatal(err)
		}

		if state, err := shakeHands(t, plain, lax); err != nil || !state.DidResume {
			t.Errorf("%s: the plain pair resumed %t, %v", tls.VersionName(version), state.DidResume, err)
		}
	}
}

func TestHardenKeepsVerifyConnection(t *testing.T) {
	t.Parallel()

	pki, errTest := newTestPKI(t), errors.New("refused by the test")
	refuse := func(tls.ConnectionState) error { return errTest }
	server, client := pki.server(), pki.client()
	server.VerifyConnection, client.VerifyConnection = refuse, refuse

	if _, err := shakeHands(t, hardServer(t, server), hardClient(t, pki.client())); !errors.Is(err, errTest) {
		t.Errorf("server: %v, want the caller's refusal", err)
	}

	if _, err := shakeHands(t, hardServer(t, pki.server()), hardClient(t, client)); !errors.Is(err, errTest) {
		t.Errorf("client: %v, want the caller's refusal", err)
	}
}

func TestAudit_GAPPINNING_PinnedServerKey(t *testing.T) {
	t.Parallel()

	pki, other := newTestPKI(t), newTestPKI(t)
	server, pin := hardServer(t, pki.server()), certs.PinOf(pki.cert.Leaf).String()
	wrong := certs.PinOf(other.cert.Leaf).String()

	if _, err := shakeHands(t, server, hardClient(t, pki.client(), wrong, pin)); err != nil {
		t.Errorf("pinned: %v", err)
	}

	if _, err := shakeHands(t, server, hardClient(t, pki.client(), wrong)); !errors.Is(err, certs.ErrPinMismatch) {
		t.Errorf("valid certificate, other key: %v, want ErrPinMismatch", err)
	}

	// A pin does not stand in for the certificate's verification.
	if _, err := shakeHands(t, server, hardClient(t, other.client(), pin)); err == nil {
		t.Error("pinned key, but unknown authority: accepted")
	}
}

// The clients of a process connect to their hosts a few at a time: one has its turn before there is a connection, and until
// the TLS handshake is over.
func TestAudit_USE42_ClientsOfAProcessConnectAFewAtATime(t *testing.T) {
	t.Parallel()
	isFree := func(of *turns.Turns) bool {
		ended, end := context.WithCancel(context.Background())
		end()
		free := of.Await(ended)
		if free {
			of.Give()
		}
		return free
	}
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	c, err := NewClient(ClientConfig{
		HostURL: s.URL, SelfID: "a", TLS: &tls.Config{RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, MinVersion: tls.VersionTLS13},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if c.connecting != connecting {
		t.Error("a client does not share the turns of its process")
	}
	c.connecting = turns.New(1)
	conn, err := c.dial(t.Context(), func(raw net.Conn) net.Conn {
		if isFree(c.connecting) {
			t.Error("a client connected without a turn")
		}
		return raw
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if !isFree(c.connecting) {
		t.Error("a turn is taken after the handshake")
	}
}

// All TLS handshakes of a process share its turns: those of its hosts, of their calls to plugins, and of its plugins.
func TestAudit_USE42_HandshakesOfAProcessShareItsTurns(t *testing.T) {
	t.Parallel()
	authority, err := NewAuthority(AuthorityConfig{})
	if err != nil {
		t.Fatal(err)
	}
	host, err := NewHost(&ServeConfig{Authority: authority, Policy: &Policy{Plugins: map[string]PluginPolicy{"a": {}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = host.Shutdown(t.Context()) }()
	id, _, err := host.hub.store.Issue(tokenstore.Request{SelfID: "a", Peer: "192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	dialer, err := standaloneDialer(host.hub.settings())
	if err != nil {
		t.Fatal(err)
	}
	plugin := &pluginServer{cfg: &PluginServerConfig{}}
	for name, got := range map[string]*turns.Process{
		"of a host":            host.edgeConfig().Turns,
		"of its calls":         dialer.config(host.hub, id, proxy.Endpoint{}).Turns,
		"of a plugin's server": plugin.entryConfig(nil).Turns,
	} {
		if got != handshakes {
			t.Errorf("handshakes %s do not wait for their turn in the process", name)
		}
	}
}

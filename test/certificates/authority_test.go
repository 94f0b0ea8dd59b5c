package certificates_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/certs"
)

func newAuthority(t *testing.T, config connectplugin.AuthorityConfig) *connectplugin.Authority {
	t.Helper()

	authority, err := connectplugin.NewAuthority(config)
	if err != nil {
		t.Fatalf("NewAuthority: %v", err)
	}

	return authority
}

// tlsOf is for the methods that return a configuration and an error.
func tlsOf(t *testing.T) func(*tls.Config, error) *tls.Config {
	t.Helper()

	return func(config *tls.Config, err error) *tls.Config {
		t.Helper()

		if err != nil {
			t.Fatal(err)
		}

		return config
	}
}

// meet makes a handshake over loopback and returns the
// certificate that the client saw and the first error of either side.
func meet(t *testing.T, server, client *tls.Config) (*x509.Certificate, error) {
	t.Helper()

	var listen net.ListenConfig

	listener, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()

	there, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}

	here, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}

	return shakeBoth(t.Context(), here, there, server, client)
}

// meetInPipe is meet over a pipe, which works in a synctest bubble.
func meetInPipe(t *testing.T, server, client *tls.Config) (*x509.Certificate, error) {
	t.Helper()

	here, there := net.Pipe()

	return shakeBoth(t.Context(), here, there, server, client)
}

func shakeBoth(ctx context.Context, here, there net.Conn, server, client *tls.Config) (*x509.Certificate, error) {
	defer func() { _ = here.Close() }()
	defer func() { _ = there.Close() }()

	client = client.Clone()
	client.ServerName = "localhost"
	served := make(chan error, 1)

	go func() {
		secured := tls.Server(here, server)
		err := secured.HandshakeContext(ctx)

		if err == nil {
			_, err = secured.Write([]byte{1})
		}

		if err != nil {
			_ = here.Close()
		}
		served <- err
	}()

	secured := tls.Client(there, client)
	_, err := secured.Read(make([]byte, 1))
	if err != nil {
		_ = there.Close()
	}

	if err := errors.Join(<-served, err); err != nil {
		return nil, err
	}

	return secured.ConnectionState().PeerCertificates[0], nil
}

func TestAuthorityMutualTLS(t *testing.T) {
	t.Parallel()

	for kind, isKind := range map[connectplugin.KeyType]func(any) bool{
		connectplugin.KeyECDSA:   func(k any) bool { _, ok := k.(*ecdsa.PublicKey); return ok },
		connectplugin.KeyEd25519: func(k any) bool { _, ok := k.(ed25519.PublicKey); return ok },
	} {
		authority := newAuthority(t, connectplugin.AuthorityConfig{TrustDomain: "example.test", KeyType: kind})
		host, plugin := tlsOf(t)(authority.HostTLS()), tlsOf(t)(authority.PluginTLS("logger"))

		cert, err := meet(t, host, plugin)
		if err != nil || certs.CertificateIdentity(cert) != authority.HostIdentity() {
			t.Errorf("plugin dials host: %v", err)
		}

		cert, err = meet(t, plugin, host)
		if err != nil || certs.CertificateIdentity(cert) != authority.PluginIdentity("logger") {
			t.Fatalf("host dials plugin: %v", err)
		}

		if !isKind(cert.PublicKey) {
			t.Errorf("key type %d: a %T", kind, cert.PublicKey)
		}

		if life := time.Until(cert.NotAfter); life > 24*time.Hour {
			t.Errorf("a certificate for %s", life)
		}

		if _, err := meet(t, host, authority.ClientTLS()); err != nil {
			t.Errorf("client without a certificate dials host: %v", err)
		}
	}
}

func TestAuthorityIdentities(t *testing.T) {
	t.Parallel()

	authority := newAuthority(t, connectplugin.AuthorityConfig{TrustDomain: "td.example"})
	if got, want := authority.HostIdentity(), "spiffe://td.example/host"; got != want {
		t.Errorf("%q, want %q", got, want)
	}

	if got, want := authority.PluginIdentity("logger"), "spiffe://td.example/plugin/logger"; got != want {
		t.Errorf("%q, want %q", got, want)
	}

	for _, selfID := range []string{"", "..", "a/b", "a b", "a%2fb", "é"} {
		if _, err := authority.PluginTLS(selfID); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), "selfID: ") {
			t.Errorf("self id %q: %v, want ErrInvalidConfig and the argument", selfID, err)
		}
	}

	if _, err := authority.HostTLS("localhost:8080"); !errors.Is(err, certs.ErrHost) {
		t.Errorf("host with a port: %v, want ErrHost", err)
	}
}

func TestAuthorityHosts(t *testing.T) {
	t.Parallel()

	authority := newAuthority(t, connectplugin.AuthorityConfig{})
	client := authority.ClientTLS()

	for name, test := range map[string]struct {
		hosts []string
		dial  string
		ok    bool
	}{
		"default name": {nil, "localhost", true},
		"default IPv4": {nil, "127.0.0.1", true},
		"default IPv6": {nil, "::1", true},
		"not default":  {nil, "host.example", false},
		"given":        {[]string{"host.example", "192.0.2.1"}, "host.example", true},
		"given IP":     {[]string{"host.example", "192.0.2.1"}, "192.0.2.1", true},
		"not given":    {[]string{"host.example"}, "localhost", false},
	} {
		host := tlsOf(t)(authority.HostTLS(test.hosts...))

		cert, err := host.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}

		_, err = cert.Leaf.Verify(x509.VerifyOptions{Roots: client.RootCAs, DNSName: test.dial})
		if (err == nil) != test.ok {
			t.Errorf("%s: %v, want success %t", name, err, test.ok)
		}
	}
}

// Every certificate names localhost, so a name does not tell the host from a
// plugin that took its port: the identity must.
func TestAuthorityRefusesWrongPeers(t *testing.T) {
	t.Parallel()

	authority, other := newAuthority(t, connectplugin.AuthorityConfig{}), newAuthority(t, connectplugin.AuthorityConfig{})
	host, plugin := tlsOf(t)(authority.HostTLS()), tlsOf(t)(authority.PluginTLS("a"))
	squatter := tlsOf(t)(authority.PluginTLS("squatter"))
	squatter.VerifyConnection = nil
	foreignHost, foreignPlugin := tlsOf(t)(other.HostTLS()), tlsOf(t)(other.PluginTLS("a"))
	foreignPlugin.RootCAs, foreignPlugin.VerifyConnection = authority.CertPool(), nil
	foreignHost.RootCAs = authority.CertPool()

	for name, pair := range map[string]struct{ server, client *tls.Config }{
		"plugin in the host's place, for a plugin":  {squatter, plugin},
		"plugin in the host's place, for a client":  {lenient(squatter), authority.ClientTLS()},
		"plugin dials a plugin":                     {plugin, squatter},
		"client without certificate dials a plugin": {plugin, authority.ClientTLS()},
		"foreign host for a plugin":                 {foreignHost, plugin},
		"foreign host for a client":                 {foreignHost, authority.ClientTLS()},
		"foreign plugin dials host":                 {host, foreignPlugin},
		"foreign host dials plugin":                 {plugin, foreignHost},
	} {
		if _, err := meet(t, pair.server, pair.client); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// lenient returns a server that asks for nothing.
func lenient(config *tls.Config) *tls.Config {
	config = config.Clone()
	config.ClientAuth = tls.NoClientCert

	return config
}

func TestAuthorityRenewsByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		authority := newAuthority(t, connectplugin.AuthorityConfig{})
		host, plugin := tlsOf(t)(authority.HostTLS()), tlsOf(t)(authority.PluginTLS("a"))
		serials, pins := make(map[string]bool), make(map[certs.Pin]bool)

		for range 14 {
			cert, err := meetInPipe(t, host, plugin)
			if err != nil {
				t.Fatal(err)
			}

			if _, err := meetInPipe(t, plugin, host); err != nil {
				t.Fatal(err)
			}

			serials[cert.SerialNumber.String()] = true
			pins[certs.PinOf(cert)] = true

			<-time.After(12 * time.Hour)
		}

		if len(serials) != 7 || len(pins) != 1 {
			t.Errorf("%d certificates for %d keys in a week, want 7 for 1", len(serials), len(pins))
		}
	})
}

func TestAuthorityConfigRefuses(t *testing.T) {
	t.Parallel()

	for field, config := range map[string]connectplugin.AuthorityConfig{
		"TrustDomain":    {TrustDomain: "Not A Domain"},
		"KeyType":        {KeyType: 7},
		"CATTL":          {CATTL: -1},
		"CertificateTTL": {CertificateTTL: -1},
		"CertificateTTL: 2.999999999s is too short; write 3s or more": {CertificateTTL: 3*time.Second - 1},
	} {
		_, err := connectplugin.NewAuthority(config)
		if !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}

	if _, err := connectplugin.LoadAuthority(connectplugin.AuthorityConfig{}); !errors.Is(err, connectplugin.ErrInvalidConfig) {
		t.Errorf("no Dir: %v", err)
	}

	if _, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{}); !errors.Is(err, connectplugin.ErrInvalidConfig) {
		t.Errorf("no Dir: %v", err)
	}
}

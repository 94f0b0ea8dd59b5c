package connectplugin_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

	authority := newAuthority(t, connectplugin.AuthorityConfig{})
	if got, want := authority.HostIdentity(), "spiffe://connectplugin/host"; got != want {
		t.Errorf("%q, want %q", got, want)
	}

	if got, want := authority.PluginIdentity("logger"), "spiffe://connectplugin/plugin/logger"; got != want {
		t.Errorf("%q, want %q", got, want)
	}

	for _, selfID := range []string{"", "..", "a/b", "a b", "a%2fb", "é"} {
		if _, err := authority.PluginTLS(selfID); !errors.Is(err, certs.ErrIdentity) {
			t.Errorf("self id %q: %v, want ErrIdentity", selfID, err)
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

func TestAudit_GAPAUTOMTLS_OneLaunch(t *testing.T) {
	t.Parallel()

	authority := newAuthority(t, connectplugin.AuthorityConfig{})
	launch := newLaunch(t, authority, connectplugin.LaunchTLSConfig{ID: "logger-1"})
	second := newLaunch(t, authority, connectplugin.LaunchTLSConfig{ID: "logger-2"})
	host, plugin := tlsOf(t)(authority.HostTLS()), tlsOf(t)(authority.PluginTLS("third"))
	open := plugin.Clone()
	open.VerifyConnection = nil
	stolen := second.PluginTLS()
	stolen.VerifyConnection = nil

	type pairs map[string]struct{ server, client *tls.Config }

	honest := pairs{
		"host dials launch":        {launch.PluginTLS(), launch.HostTLS()},
		"launch dials host":        {host, launch.PluginTLS()},
		"host dials second launch": {second.PluginTLS(), second.HostTLS()},
	}
	for name, pair := range honest {
		if _, err := meet(t, pair.server, pair.client); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	for name, pair := range (pairs{
		"third process with a certificate in the launch's place": {open, launch.HostTLS()},
		"another launch in its place":                            {stolen, launch.HostTLS()},
		"third process with a certificate dials the launch":      {launch.PluginTLS(), open},
		"another launch dials it":                                {launch.PluginTLS(), stolen},
		"third process without a certificate dials the launch":   {launch.PluginTLS(), authority.ClientTLS()},
	}) {
		if _, err := meet(t, pair.server, pair.client); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}

	if _, err := authority.LaunchTLS(connectplugin.LaunchTLSConfig{ID: "logger-1"}); !errors.Is(err, connectplugin.ErrInvalidConfig) {
		t.Errorf("a running launch's id again: %v, want ErrInvalidConfig", err)
	}

	launch.Close()
	launch.Close()

	// A later launch of the same name is another one.
	again := newLaunch(t, authority, connectplugin.LaunchTLSConfig{ID: "logger-1"})
	for name, pair := range (pairs{
		"ended launch dials host":      {host, launch.PluginTLS()},
		"host dials ended launch":      {launch.PluginTLS(), launch.HostTLS()},
		"host takes old for new":       {launch.PluginTLS(), again.HostTLS()},
		"host's dialler, ended launch": {launch.PluginTLS(), host},
		"ended launch's dialler":       {again.PluginTLS(), launch.HostTLS()},
	}) {
		if _, err := meet(t, pair.server, pair.client); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}

	launch.Close() // must not end the later one

	if _, err := meet(t, host, again.PluginTLS()); err != nil {
		t.Errorf("later launch dials host: %v", err)
	}
}

func newLaunch(t *testing.T, authority *connectplugin.Authority, config connectplugin.LaunchTLSConfig) *connectplugin.LaunchTLS {
	t.Helper()

	launch, err := authority.LaunchTLS(config)
	if err != nil {
		t.Fatalf("LaunchTLS: %v", err)
	}

	t.Cleanup(launch.Close)

	return launch
}

func TestAudit_GAPAUTOMTLS_FilesOutliveCertificates(t *testing.T) {
	t.Parallel()

	dir := filepath.Join(t.TempDir(), "launch")

	synctest.Test(t, func(t *testing.T) {
		authority := newAuthority(t, connectplugin.AuthorityConfig{CertificateTTL: time.Hour})
		launch := newLaunch(t, authority, connectplugin.LaunchTLSConfig{ID: "logger-1", Dir: dir})

		child, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}

		first, err := meetInPipe(t, child, launch.HostTLS())
		if err != nil {
			t.Fatalf("host dials launch: %v", err)
		}

		<-time.After(100 * time.Hour)

		last, err := meetInPipe(t, child, launch.HostTLS())
		if err != nil || last.SerialNumber.Cmp(first.SerialNumber) == 0 {
			t.Errorf("after 100 certificates' lives: %v", err)
		}

		launch.Close()

		if _, err := meetInPipe(t, child, launch.HostTLS()); err == nil {
			t.Error("accepted after Close")
		}

		before := readPEM(t, filepath.Join(dir, "tls.crt"))

		<-time.After(2 * time.Hour)

		if !bytes.Equal(before, readPEM(t, filepath.Join(dir, "tls.crt"))) {
			t.Error("still renewed after Close")
		}
	})
}

func TestLaunchTLSEndsWithItsAuthority(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()

	synctest.Test(t, func(t *testing.T) {
		authority := newAuthority(t, connectplugin.AuthorityConfig{CATTL: 3 * time.Hour, CertificateTTL: time.Hour})

		launch, err := authority.LaunchTLS(connectplugin.LaunchTLSConfig{ID: "a", Dir: dir})
		if err != nil {
			t.Fatal(err)
		}

		<-time.After(10 * time.Hour) // would not end if the loop went on writing
		launch.Close()

		if _, err := meetInPipe(t, launch.PluginTLS(), launch.HostTLS()); err == nil {
			t.Error("an expired authority is trusted")
		}
	})
}

func TestLaunchTLSRefuses(t *testing.T) {
	t.Parallel()

	authority := newAuthority(t, connectplugin.AuthorityConfig{})
	if _, err := authority.LaunchTLS(connectplugin.LaunchTLSConfig{}); !errors.Is(err, certs.ErrIdentity) {
		t.Errorf("no id: %v, want ErrIdentity", err)
	}

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	// A failed launch leaves its name free.
	for range 2 {
		if _, err := authority.LaunchTLS(connectplugin.LaunchTLSConfig{ID: "a", Dir: file}); err == nil || errors.Is(err, connectplugin.ErrInvalidConfig) {
			t.Errorf("a file in the directory's place: %v", err)
		}
	}
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

func TestAuthorityInDirectory(t *testing.T) {
	t.Parallel()

	dir := filepath.Join(t.TempDir(), "pki")
	config := connectplugin.AuthorityConfig{Dir: dir, TrustDomain: "example.test"}

	if _, err := connectplugin.LoadAuthority(config); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there yet: %v, want fs.ErrNotExist", err)
	}

	first := newAuthority(t, config)

	for path, want := range map[string]fs.FileMode{
		dir: 0o700, filepath.Join(dir, "authority.key"): 0o600, filepath.Join(dir, "authority.crt"): 0o644,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, want)
		}
	}

	loaded, err := connectplugin.LoadAuthority(connectplugin.AuthorityConfig{Dir: dir})
	if err != nil || loaded.TrustDomain() != "example.test" {
		t.Fatalf("LoadAuthority: %v", err)
	}

	if _, err := meet(t, tlsOf(t)(first.HostTLS()), tlsOf(t)(loaded.PluginTLS("a"))); err != nil {
		t.Errorf("the loaded authority is another one: %v", err)
	}

	_, err = connectplugin.LoadAuthority(connectplugin.AuthorityConfig{Dir: dir, TrustDomain: "other.test"})
	if !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), "TrustDomain") {
		t.Errorf("another trust domain: %v", err)
	}
}

func TestNewAuthorityOverwritesNothing(t *testing.T) {
	t.Parallel()

	for _, keep := range []string{"authority.key", "authority.crt"} {
		dir := t.TempDir()
		newAuthority(t, connectplugin.AuthorityConfig{Dir: dir})

		for _, name := range []string{"authority.key", "authority.crt"} {
			if name == keep {
				continue
			}

			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}

		before := readPEM(t, filepath.Join(dir, keep))

		_, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{Dir: dir})
		if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), filepath.Join(dir, keep)) ||
			!strings.Contains(err.Error(), "LoadAuthority") {
			t.Errorf("%s: %v, want fs.ErrExist, the file, and what to do", keep, err)
		}

		if !bytes.Equal(before, readPEM(t, filepath.Join(dir, keep))) {
			t.Errorf("%s was overwritten", keep)
		}

		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("%d files are left, %v, want 1", len(entries), err)
		}
	}
}

func TestLoadAuthorityRefuses(t *testing.T) {
	t.Parallel()

	otherDir := t.TempDir()
	newAuthority(t, connectplugin.AuthorityConfig{Dir: otherDir})

	for name, test := range map[string]struct {
		config connectplugin.AuthorityConfig
		spoil  func(dir string) error
		want   error
	}{
		"key readable by the group": {
			spoil: func(dir string) error { return os.Chmod(filepath.Join(dir, "authority.key"), 0o640) }, want: certs.ErrPermissions,
		},
		"key readable by all": {
			spoil: func(dir string) error { return os.Chmod(filepath.Join(dir, "authority.key"), 0o604) }, want: certs.ErrPermissions,
		},
		"key of another": {
			spoil: func(dir string) error {
				return os.Rename(filepath.Join(otherDir, "authority.key"), filepath.Join(dir, "authority.key"))
			},
			want: certs.ErrCA,
		},
		"no certificate": {
			spoil: func(dir string) error { return os.Remove(filepath.Join(dir, "authority.crt")) }, want: fs.ErrNotExist,
		},
		"no PEM": {
			spoil: func(dir string) error { return os.WriteFile(filepath.Join(dir, "authority.crt"), []byte("x"), 0o600) },
			want:  certs.ErrPEM,
		},
		"expired": {
			config: connectplugin.AuthorityConfig{CATTL: time.Nanosecond}, spoil: func(string) error { return nil }, want: certs.ErrCA,
		},
	} {
		dir := t.TempDir()
		test.config.Dir = dir

		// The host's own certificates are made on demand: an authority for a moment works.
		newAuthority(t, test.config)

		if err := test.spoil(dir); err != nil {
			t.Fatal(err)
		}

		if _, err := connectplugin.LoadAuthority(connectplugin.AuthorityConfig{Dir: dir}); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()

	authority := newAuthority(t, connectplugin.AuthorityConfig{})
	dir := filepath.Join(t.TempDir(), "logger")

	if err := authority.WriteCredentials(dir, "logger", "localhost"); err != nil {
		t.Fatal(err)
	}

	for path, want := range map[string]fs.FileMode{
		dir: 0o700, filepath.Join(dir, "tls.key"): 0o600, filepath.Join(dir, "tls.crt"): 0o644, filepath.Join(dir, "ca.crt"): 0o644,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, want)
		}
	}

	host := tlsOf(t)(authority.HostTLS())
	plugin := tlsOf(t)(connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: dir, CheckInterval: 1}))

	if _, err := meet(t, host, plugin); err != nil {
		t.Errorf("plugin dials host: %v", err)
	}

	first, err := meet(t, plugin, host)
	if err != nil || certs.CertificateIdentity(first) != authority.PluginIdentity("logger") {
		t.Fatalf("host dials plugin: %v", err)
	}

	squatter := tlsOf(t)(authority.PluginTLS("squatter"))
	squatter.VerifyConnection = nil

	if _, err := meet(t, squatter, plugin); err == nil {
		t.Error("a plugin in the host's place is accepted")
	}

	if _, err := meet(t, plugin, squatter); err == nil {
		t.Error("a plugin dials a plugin")
	}

	if err := authority.WriteCredentials(dir, "logger"); err != nil {
		t.Fatal(err)
	}

	second, err := meet(t, plugin, host)
	if err != nil || second.SerialNumber.Cmp(first.SerialNumber) == 0 || certs.PinOf(second) != certs.PinOf(first) {
		t.Errorf("renewed: same certificate or other key, %v", err)
	}
}

func TestWriteCredentialsRefuses(t *testing.T) {
	t.Parallel()

	authority := newAuthority(t, connectplugin.AuthorityConfig{})
	dir := t.TempDir()

	if err := authority.WriteCredentials(dir, "a"); err != nil {
		t.Fatal(err)
	}

	before := readPEM(t, filepath.Join(dir, "tls.crt"))

	if err := authority.WriteCredentials(dir, "b"); err == nil || !strings.Contains(err.Error(), "plugin/a") {
		t.Errorf("another plugin's directory: %v", err)
	}

	if err := authority.WriteCredentials(dir, "a", "bad host"); !errors.Is(err, certs.ErrHost) {
		t.Errorf("host: %v, want ErrHost", err)
	}

	if err := os.Chmod(filepath.Join(dir, "tls.key"), 0o644); err != nil {
		t.Fatal(err)
	}

	if err := authority.WriteCredentials(dir, "a"); !errors.Is(err, certs.ErrPermissions) {
		t.Errorf("open key: %v, want ErrPermissions", err)
	}

	if !bytes.Equal(before, readPEM(t, filepath.Join(dir, "tls.crt"))) {
		t.Error("a refused call changed the certificate")
	}
}

// The authority renews the files of a running plugin, key included, while host
// and plugin connect in both directions without a pause. No handshake may fail.
func TestCredentialsRotationUnderLoad(t *testing.T) {
	t.Parallel()

	const rotations = 24

	authority := newAuthority(t, connectplugin.AuthorityConfig{})
	dir := t.TempDir()

	if err := authority.WriteCredentials(dir, "a"); err != nil {
		t.Fatal(err)
	}

	host := tlsOf(t)(authority.HostTLS())
	plugin := tlsOf(t)(connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: dir, CheckInterval: 1}))

	var (
		group  sync.WaitGroup
		mu     sync.Mutex
		serial = make(map[string]bool)
		keys   = make(map[certs.Pin]bool)
		count  int
	)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()

	load := func(server, client *tls.Config, note func(*x509.Certificate)) {
		for ctx.Err() == nil {
			cert, err := meet(t, server, client)
			if err != nil {
				t.Errorf("handshake: %v", err)

				return
			}

			mu.Lock()
			count++
			note(cert)
			mu.Unlock()
		}
	}

	group.Go(func() { load(host, plugin, func(*x509.Certificate) {}) })
	group.Go(func() {
		load(plugin, host, func(cert *x509.Certificate) {
			serial[cert.SerialNumber.String()] = true
			keys[certs.PinOf(cert)] = true
		})
	})

	for i := range rotations {
		if i%4 == 0 {
			if err := os.Remove(filepath.Join(dir, "tls.key")); err != nil {
				t.Fatal(err)
			}
		}

		if err := authority.WriteCredentials(dir, "a"); err != nil {
			t.Fatal(err)
		}

		for seen := func() int { mu.Lock(); defer mu.Unlock(); return len(serial) }; seen() <= i && !t.Failed(); {
			<-time.After(time.Millisecond)
		}
	}

	stop()
	group.Wait()

	if len(keys) < rotations/4 {
		t.Errorf("%d keys seen, want at least %d", len(keys), rotations/4)
	}

	t.Logf("%d handshakes, %d certificates and %d keys seen, none failed", count, len(serial), len(keys))
}

func TestLoadCredentialsRefuses(t *testing.T) {
	t.Parallel()

	foreign := t.TempDir()
	newAuthority(t, connectplugin.AuthorityConfig{Dir: foreign})

	for name, spoil := range map[string]func(dir string) error{
		"authority missing": func(dir string) error { return os.Remove(filepath.Join(dir, "ca.crt")) },
		"authority damaged": func(dir string) error { return os.WriteFile(filepath.Join(dir, "ca.crt"), []byte("x"), 0o600) },
		"foreign authority": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "ca.crt"), readPEM(t, filepath.Join(foreign, "authority.crt")), 0o600)
		},
		"key missing":            func(dir string) error { return os.Remove(filepath.Join(dir, "tls.key")) },
		"key readable by others": func(dir string) error { return os.Chmod(filepath.Join(dir, "tls.key"), 0o644) },
	} {
		dir := t.TempDir()
		if err := newAuthority(t, connectplugin.AuthorityConfig{}).WriteCredentials(dir, "a"); err != nil {
			t.Fatal(err)
		}

		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}

		if _, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: dir}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A certificate manager's certificates have an intermediate, DNS names, and no
// identity of ours: then whoever the authority verifies is a peer.
func TestLoadCredentialsOfAnotherAuthority(t *testing.T) {
	t.Parallel()

	root, rootKey := signFor(t, true, nil, nil)
	middle, middleKey := signFor(t, true, root, rootKey)

	load := func() *tls.Config {
		t.Helper()

		leaf, key := signFor(t, false, middle, middleKey)
		dir := t.TempDir()

		keyPEM, err := certs.EncodeKey(key)
		if err != nil {
			t.Fatal(err)
		}

		for name, data := range map[string][]byte{
			"tls.crt": certs.EncodeCertificates(leaf.Raw, middle.Raw), "tls.key": keyPEM, "ca.crt": certs.EncodeCertificates(root.Raw),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}

		return tlsOf(t)(connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: dir}))
	}

	host, plugin := load(), load()
	if _, err := meet(t, host, plugin); err != nil {
		t.Errorf("two of the same authority: %v", err)
	}

	ours := newAuthority(t, connectplugin.AuthorityConfig{})
	stranger := tlsOf(t)(ours.PluginTLS("a"))
	stranger.RootCAs, stranger.VerifyConnection = host.RootCAs, nil

	if _, err := meet(t, host, stranger); err == nil {
		t.Error("a stranger is accepted")
	}
}

// signFor makes a certificate for localhost, self-signed if there is no parent.
func signFor(t *testing.T, isCA bool, parent *x509.Certificate, parentKey crypto.Signer) (*x509.Certificate, crypto.Signer) {
	t.Helper()

	key, err := certs.NewKey(certs.ECDSA)
	if err != nil {
		t.Fatal(err)
	}

	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: isCA, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if isCA {
		template.KeyUsage = x509.KeyUsageCertSign
	} else {
		template.DNSNames = []string{"localhost"}
	}

	if parent == nil {
		parent, parentKey = template, key
	}

	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}

	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}

	return cert, key
}

func readPEM(t *testing.T, path string) []byte {
	t.Helper()

	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	return data
}

package certificates_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
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

// Credentials of which a file is damaged are not written over, since nobody knows whose they are; the error says what to do, and
// that does.
func TestWriteCredentials_DamagedFiles(t *testing.T) {
	t.Parallel()
	authority := newAuthority(t, connectplugin.AuthorityConfig{})
	for _, name := range []string{"tls.crt", "tls.key"} {
		for _, text := range []string{"", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
			dir := t.TempDir()
			if err := authority.WriteCredentials(dir, "a"); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			err := authority.WriteCredentials(dir, "a")
			if !errors.Is(err, certs.ErrPEM) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "remove ") {
				t.Errorf("%s is %q: %v", name, text, err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := authority.WriteCredentials(dir, "a"); err != nil {
				t.Errorf("without %s: %v", name, err)
			}
			tlsOf(t)(connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: dir}))
		}
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

	old := t.TempDir()
	synctest.Test(t, func(t *testing.T) { // in the year 2000
		century := newAuthority(t, connectplugin.AuthorityConfig{CATTL: 100 * 365 * 24 * time.Hour})
		if err := century.WriteCredentials(old, "a"); err != nil {
			t.Fatal(err)
		}
	})

	for name, spoil := range map[string]func(dir string) error{
		"expired, write it again": func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(old)), os.Chmod(filepath.Join(dir, "tls.key"), 0o600))
		},
		"authority missing":                 func(dir string) error { return os.Remove(filepath.Join(dir, "ca.crt")) },
		"authority damaged, write it again": func(dir string) error { return os.WriteFile(filepath.Join(dir, "ca.crt"), []byte("x"), 0o600) },
		"foreign authority, write it again": func(dir string) error {
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

		_, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: dir})
		if err == nil {
			t.Errorf("%s: accepted", name)

			continue
		}

		t.Logf("%s: %v", name, err)

		if strings.Contains(err.Error(), "WriteCredentials") != strings.Contains(name, "write it again") {
			t.Errorf("%s: it says %q", name, err)
		}
	}
}

func TestLoadCredentials_ATimeThatNobodyCanMean(t *testing.T) {
	t.Parallel()

	_, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: t.TempDir(), CheckInterval: -1})
	if err == nil || !strings.HasSuffix(err.Error(), ": CheckInterval: is negative; write 0 for the default, or more") {
		t.Errorf("got %v", err)
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

// Files that are whole and no good say what is wrong with them: a program that trusts its own certificate alone trusts no host, unless that
// signed itself, and a certificate of tomorrow is a matter of clocks.
func TestLoadCredentialsThatFitNobody(t *testing.T) {
	t.Parallel()

	root, rootKey := signFor(t, true, nil, nil)
	middle, middleKey := signFor(t, true, root, rootKey)
	leaf, leafKey := signFor(t, false, root, rootKey)
	below, belowKey := signFor(t, false, middle, middleKey)
	alone, aloneKey := signFor(t, false, nil, nil)
	tomorrow := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(24*time.Hour), time.Now().Add(48*time.Hour)
	}
	yesterday := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	}
	early, earlyKey := signFor(t, false, root, rootKey, tomorrow)
	late, lateKey := signFor(t, false, root, rootKey, yesterday)

	for name, test := range map[string]struct {
		key       crypto.Signer
		chain, ca [][]byte
		says, not string // says is empty where they are taken
	}{
		"a copy":                      {leafKey, [][]byte{leaf.Raw}, [][]byte{leaf.Raw}, "holds the plugin's own certificate", "damaged"},
		"a copy, twice":               {leafKey, [][]byte{leaf.Raw}, [][]byte{leaf.Raw, leaf.Raw}, "ca.crt holds the plugin's own certificate", "damaged"},
		"a copy beside the authority": {leafKey, [][]byte{leaf.Raw}, [][]byte{leaf.Raw, root.Raw}, "", ""},
		"a copy with an intermediate": {belowKey, [][]byte{below.Raw, middle.Raw}, [][]byte{below.Raw, middle.Raw}, "", ""},
		"what signed itself":          {aloneKey, [][]byte{alone.Raw}, [][]byte{alone.Raw}, "", ""},
		"the authority":               {leafKey, [][]byte{leaf.Raw}, [][]byte{root.Raw}, "", ""},
		"of tomorrow":                 {earlyKey, [][]byte{early.Raw}, [][]byte{root.Raw}, "set the clock of this machine, which may be behind", "damaged"},
		"of yesterday":                {lateKey, [][]byte{late.Raw}, [][]byte{root.Raw}, "write tls.crt, tls.key and ca.crt again", "damaged"},
		"of another authority":        {leafKey, [][]byte{leaf.Raw}, [][]byte{middle.Raw}, "remove what is damaged", "clock"},
	} {
		keyPEM, err := certs.EncodeKey(test.key)
		if err != nil {
			t.Fatal(err)
		}

		dir := t.TempDir()
		for file, data := range map[string][]byte{
			"tls.crt": certs.EncodeCertificates(test.chain...), "tls.key": keyPEM, "ca.crt": certs.EncodeCertificates(test.ca...),
		} {
			if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}

		_, err = connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: dir})
		if (err == nil) != (test.says == "") || err != nil && (!strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), test.not)) {
			t.Errorf("%s: %v, want %q", name, err, test.says)
		}
	}
}

// signFor makes a certificate for localhost, self-signed if there is no parent.
func signFor(t *testing.T, isCA bool, parent *x509.Certificate, parentKey crypto.Signer, edits ...func(*x509.Certificate)) (*x509.Certificate, crypto.Signer) {
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

	for _, edit := range edits {
		edit(template)
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

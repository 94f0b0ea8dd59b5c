package certificates_test

import (
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// files are what a directory holds, by name.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		held[e.Name()] = string(data)
	}
	return held
}

// strangers write the credentials of somebody else to a directory.
func strangers(t *testing.T, authority *connectplugin.Authority) map[string]func(dir string) error {
	t.Helper()
	other := newAuthority(t, connectplugin.AuthorityConfig{TrustDomain: "other.example"})
	twin := newAuthority(t, connectplugin.AuthorityConfig{TrustDomain: authority.TrustDomain()}) // as after a restart of one in memory
	return map[string]func(dir string) error{
		"another plugin's":                      func(dir string) error { return authority.WriteCredentials(dir, "somebody-else") },
		"another authority's":                   func(dir string) error { return other.WriteCredentials(dir, "somebody-else") },
		"another authority's, of the same name": func(dir string) error { return other.WriteCredentials(dir, "own") },
		"another authority's, of one trust domain, of the same name": func(dir string) error {
			return twin.WriteCredentials(dir, "own")
		},
	}
}

// What belongs to somebody else is written over by nobody: neither at the operator's word nor,
// when it is due, by the host that once wrote something else there. It says so once.
func TestAudit_USE34_CredentialsOfSomebodyElseStay(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var log hosttest.Buffer
		authority := newAuthority(t, connectplugin.AuthorityConfig{})
		defer runHost(t, authority, slog.New(slog.NewTextHandler(&log, nil)))()
		before := map[string]map[string]string{}
		for name, write := range strangers(t, authority) {
			dir := filepath.Join(root, name)
			if err := authority.WriteCredentials(dir, "own"); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if err := write(dir); err != nil {
				t.Fatal(err)
			}
			if name == "another plugin's" { // that was written by the host's authority, and is renewed under its own name
				continue
			}
			before[dir] = files(t, dir)
		}
		later := func(when string) {
			t.Helper()
			for dir, held := range before {
				if err := authority.WriteCredentials(dir, "own"); err == nil || !strings.Contains(err.Error(), "belongs to another identity") {
					t.Errorf("%s, %s: %v", when, dir, err)
					continue
				} else if namesake := strings.HasSuffix(dir, "of the same name"); namesake != strings.Contains(err.Error(), "is of another authority") {
					t.Errorf("%s, %s: %v: says that the authority was lost: %t", when, dir, err, !namesake)
				}
				for name, text := range files(t, dir) {
					if text != held[name] {
						t.Errorf("%s: %s in %s is another", when, name, dir)
					}
				}
			}
		}
		later("at once")
		time.Sleep(23 * time.Hour) // longer than any of them may get
		later("when it was due")
		if n := strings.Count(log.String(), "credentials are not renewed any more"); n != len(before) {
			t.Errorf("told %d times of %d: %s", n, len(before), log.String())
		}
		if left := time.Until(writtenLeaf(t, filepath.Join(root, "another plugin's")).NotAfter); left < 7*time.Hour {
			t.Errorf("the other plugin's of our own are not renewed: %s left", left)
		}
		if err := authority.WriteCredentials(filepath.Join(root, "another plugin's"), "own"); err == nil {
			t.Error("written over")
		}
	})
}

// A host warns of the certificate of a plugin that only calls it, too.
func TestAudit_USE34_ACallersCertificateIsWarnedOf(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	for name, warned := range map[string]bool{"fresh": false, "aging": true} {
		var log hosttest.Buffer
		host := ca.Start(t, ca.Certify(t, hosttest.Loopback), func(s *connectplugin.ServeConfig) {
			s.Logger, s.Policy = slog.New(slog.NewTextHandler(&log, nil)), hosttest.LoggerPolicy()
		})
		cert := ca.Certify(t, hosttest.URI("spiffe://test.example/logger"), func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-20*time.Hour), time.Now().Add(40*24*time.Hour)
			if warned {
				c.NotAfter = time.Now().Add(30 * time.Minute)
			}
		})
		cfg := connectplugin.ClientConfig{HostURL: host.URL, SelfID: "logger", TLS: ca.TLS(cert), Secret: hosttest.Secret}
		if _, err := hosttest.EnrolOnce(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		host.Stop(t)
		if strings.Contains(log.String(), `whose="plugin logger, when it calls this host"`) != warned {
			t.Errorf("%s: warned %t: %s", name, !warned, log.String())
		}
	}
}

// An authority that was stored is the same after a restart, and goes on with what it wrote.
func TestAudit_USE34_AnAuthorityThatIsLoadedAgainGoesOn(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	config := connectplugin.AuthorityConfig{Dir: filepath.Join(root, "authority")}
	dir := filepath.Join(root, "own")
	if err := newAuthority(t, config).WriteCredentials(dir, "own"); err != nil {
		t.Fatal(err)
	}
	before := files(t, dir)
	again, err := connectplugin.LoadAuthority(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.WriteCredentials(dir, "own"); err != nil {
		t.Fatal(err)
	}
	for name, text := range files(t, dir) {
		if renewed := text != before[name]; renewed != (name == "tls.crt") {
			t.Errorf("%s is another: %t", name, renewed)
		}
	}
}

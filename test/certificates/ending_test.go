package certificates_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// runHost runs a host of an authority until the function that it returns is called.
func runHost(t *testing.T, authority *connectplugin.Authority, log *slog.Logger) (stop func()) {
	t.Helper()
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: authority, Logger: log, HealthProbe: connectplugin.HealthProbeConfig{Disabled: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := host.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// writtenLeaf reads the certificate in a directory of credentials.
func writtenLeaf(t *testing.T, dir string) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "tls.crt"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := certs.ParseCertificates(data)
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}

// What an authority wrote once is good for as long as its host runs: it renews it under the
// reader's eyes, with the same key, and the reader takes it over without a restart.
func TestAudit_USE34_WrittenCredentialsRenewThemselves(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		authority := newAuthority(t, connectplugin.AuthorityConfig{})
		early, late := filepath.Join(root, "early"), filepath.Join(root, "late")
		if err := authority.WriteCredentials(early, "early", "early.example"); err != nil {
			t.Fatal(err)
		}
		stop := runHost(t, authority, hosttest.Logger(t))
		time.Sleep(5 * time.Hour)
		if err := authority.WriteCredentials(late, "late"); err != nil {
			t.Fatal(err)
		}
		loaded, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: early, Logger: hosttest.Logger(t)})
		if err != nil {
			t.Fatal(err)
		}
		first := writtenLeaf(t, early)
		for range 2 * 24 { // two days, hour by hour
			time.Sleep(time.Hour)
			for _, dir := range []string{early, late} {
				if left := time.Until(writtenLeaf(t, dir).NotAfter); left < 7*time.Hour {
					t.Fatalf("%s: %s left", dir, left)
				}
			}
			shown, err := loaded.GetClientCertificate(&tls.CertificateRequestInfo{})
			if err != nil || time.Until(shown.Leaf.NotAfter) < 7*time.Hour {
				t.Fatalf("the plugin shows a certificate until %v: %v", shown.Leaf.NotAfter, err)
			}
		}
		last := writtenLeaf(t, early)
		if certs.PinOf(last) != certs.PinOf(first) || last.VerifyHostname("early.example") != nil || last.SerialNumber.Cmp(first.SerialNumber) == 0 {
			t.Error("another key, other names, or the same certificate")
		}
		stop()
		time.Sleep(24 * time.Hour)
		if left := time.Until(writtenLeaf(t, early).NotAfter); left > 0 {
			t.Errorf("renewed after the end of the host: %s left", left)
		}
	})
}

// The host leaves alone what its operator took away or put in the place of what it wrote,
// and tries again where it could not write.
func TestAudit_USE34_RenewalKeepsToItsOwn(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var log hosttest.Buffer
		authority := newAuthority(t, connectplugin.AuthorityConfig{})
		dirs := map[string]string{}
		for _, name := range []string{"removed", "foreign", "renewed", "blocked"} {
			dirs[name] = filepath.Join(root, name)
			if err := authority.WriteCredentials(dirs[name], name); err != nil {
				t.Fatal(err)
			}
		}
		defer runHost(t, authority, slog.New(slog.NewTextHandler(&log, nil)))()
		time.Sleep(12 * time.Hour)
		if err := os.RemoveAll(dirs["removed"]); err != nil {
			t.Fatal(err)
		}
		other := newAuthority(t, connectplugin.AuthorityConfig{TrustDomain: "other.example"})
		if err := os.RemoveAll(dirs["foreign"]); err != nil {
			t.Fatal(err)
		}
		if err := other.WriteCredentials(dirs["foreign"], "foreign"); err != nil {
			t.Fatal(err)
		}
		if err := authority.WriteCredentials(dirs["renewed"], "renewed"); err != nil {
			t.Fatal(err)
		}
		renewed, foreign := writtenLeaf(t, dirs["renewed"]), writtenLeaf(t, dirs["foreign"])
		key := filepath.Join(dirs["blocked"], "tls.key")
		if err := os.Chmod(key, 0o666); err != nil { // that of nobody any more
			t.Fatal(err)
		}
		time.Sleep(6 * time.Hour) // the first ones are due after 16
		if _, err := os.Stat(dirs["removed"]); err == nil {
			t.Error("what was removed is there again")
		}
		if now := writtenLeaf(t, dirs["foreign"]); now.SerialNumber.Cmp(foreign.SerialNumber) != 0 {
			t.Error("another authority's certificate was replaced")
		}
		if now := writtenLeaf(t, dirs["renewed"]); now.SerialNumber.Cmp(renewed.SerialNumber) != 0 {
			t.Error("what is not due was renewed")
		}
		if !strings.Contains(log.String(), "could not be renewed") {
			t.Errorf("no word of the key that everybody can read: %s", log.String())
		}
		if err := os.Chmod(key, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if left := time.Until(writtenLeaf(t, dirs["blocked"]).NotAfter); left < 20*time.Hour {
			t.Errorf("not renewed once that was possible: %s left", left)
		}
	})
}

// Each side is warned of its own certificates and of those that the other shows, before
// they end.
func TestAudit_USE34_EndingCertificatesAreWarnedOfOnBothSides(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	aging := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-20*time.Hour), time.Now().Add(30*time.Minute)
	}
	fresh := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(40 * 24 * time.Hour) }
	for name, c := range map[string]struct {
		host, calls, plugin func(*x509.Certificate)
		onHost, onPlugin    []string
	}{
		"fresh":           {fresh, fresh, fresh, nil, nil},
		"host":            {aging, fresh, fresh, []string{"this host"}, []string{"the host, where this side calls it"}},
		"host, as caller": {fresh, aging, fresh, nil, []string{"the host, when it calls this plugin"}},
		"plugin":          {fresh, fresh, aging, []string{"plugin greeter"}, []string{"this side", "this plugin"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var host, plugin hosttest.Buffer
			// A callback could renew it, so that its age alone counts.
			hostTLS := dynamic(ca, ca.Certify(t, hosttest.Loopback, hosttest.URI("spiffe://test.example/host"), c.host))
			h := ca.Start(t, nil, func(s *connectplugin.ServeConfig) {
				s.TLS, s.Logger = hostTLS, slog.New(slog.NewTextHandler(&host, nil))
				s.TLS.ClientAuth = tls.VerifyClientCertIfGiven
				s.PluginTLS = dynamic(ca, ca.Certify(t, hosttest.Loopback, hosttest.URI("spiffe://test.example/host"), c.calls))
				s.HealthProbe = connectplugin.HealthProbeConfig{Interval: 50 * time.Millisecond, Timeout: hosttest.Wait}
				s.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
					"greeter": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = []string{"greeter"} }),
				}}
			})
			pluginTLS := dynamic(ca, ca.Certify(t, hosttest.Loopback, hosttest.URI("spiffe://test.example/greeter"), c.plugin))
			p := h.StartPlugin(t, "greeter", func(s *connectplugin.PluginServerConfig) {
				s.Client.TLS, s.Client.Logger = pluginTLS, slog.New(slog.NewTextHandler(&plugin, nil))
				s.Services = []connectplugin.PluginService{{Type: "greeter", Version: "1.0.0", Path: "/g.v1.G/", Handler: http.NotFoundHandler()}}
			})
			for side, want := range map[*hosttest.Buffer][]string{&host: c.onHost, &plugin: c.onPlugin} {
				if len(want) == 0 {
					continue
				}
				hosttest.Eventually(t, "warning", func() bool {
					for _, whose := range want {
						if strings.Contains(side.String(), "about to end") && strings.Contains(side.String(), `whose="`+whose) {
							return true
						}
					}
					return false
				})
			}
			p.Stop(t)
			h.Stop(t)
			if name == "fresh" && strings.Contains(host.String()+plugin.String(), "about to end") {
				t.Errorf("warned of what is good for weeks: %s%s", host.String(), plugin.String())
			}
		})
	}
}

// dynamic shows a certificate that a callback returns.
func dynamic(ca *hosttest.CA, cert *tls.Certificate) *tls.Config {
	cfg := ca.TLS(nil)
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	return cfg
}

// A host that runs on while its certificate gets old is warned again and again, and told
// when it has ended; whoever renews in time hears nothing.
func TestAudit_USE34_WarnedWhileItRuns(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		life time.Duration
		warn time.Duration // how long before the end
	}{"a day": {24 * time.Hour, 24 * time.Hour}, "eight days": {8 * 24 * time.Hour, 48 * time.Hour}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ca, err := certs.NewCA("", certs.ECDSA, 2*c.life, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				key, err := certs.NewKey(certs.ECDSA)
				if err != nil {
					t.Fatal(err)
				}
				cert, err := ca.Issue(certs.Request{
					ID: certs.ID{TrustDomain: ca.TrustDomain(), Role: certs.RoleHost}, Hosts: []string{"localhost"}, Key: key, TTL: c.life,
				}, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				var log hosttest.Buffer
				host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
					HealthProbe: connectplugin.HealthProbeConfig{Disabled: true},
					TLS:         &tls.Config{Certificates: []tls.Certificate{*cert}}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
				})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = host.Shutdown(context.Background()) }()
				time.Sleep(c.life - c.warn - time.Hour)
				synctest.Wait()
				if c.life > c.warn && strings.Contains(log.String(), "about to end") {
					t.Errorf("too early: %s", log.String())
				}
				time.Sleep(c.warn - time.Hour)
				synctest.Wait()
				if n := strings.Count(log.String(), "about to end"); n < 3 || n > 20 {
					t.Errorf("%d warnings before the end: %s", n, log.String())
				}
				if strings.Contains(log.String(), "has ended") {
					t.Error("told of the end before it")
				}
				time.Sleep(3 * time.Hour)
				synctest.Wait()
				if !strings.Contains(log.String(), "has ended") {
					t.Errorf("not told of the end: %s", log.String())
				}
			})
		})
	}
}

// What could not be renewed, as on a disk that is full for a moment, is tried again before the certificate ends, however short its
// life is: with a minute in between it would end, and its plugin be out of reach until then.
func TestAudit_USE34_WhatIsNotRenewedIsTriedAgainInTime(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const life = 36 * time.Second
		authority := newAuthority(t, connectplugin.AuthorityConfig{CertificateTTL: life})
		written, launched := filepath.Join(root, "written"), filepath.Join(root, "launched")
		if err := authority.WriteCredentials(written, "written"); err != nil {
			t.Fatal(err)
		}
		launch, err := authority.LaunchTLS(connectplugin.LaunchTLSConfig{ID: "launched", Dir: launched})
		if err != nil {
			t.Fatal(err)
		}
		defer launch.Close()
		defer runHost(t, authority, slog.New(slog.DiscardHandler))()
		for _, dir := range []string{written, launched} {
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(life * 3 / 4) // they are due after two thirds
		for _, dir := range []string{written, launched} {
			if left := time.Until(writtenLeaf(t, dir).NotAfter); left > life/4 {
				t.Errorf("%s is renewed already: %s left", dir, left)
			}
			if err := os.Chmod(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(life / 8)
		for _, dir := range []string{written, launched} {
			if left := time.Until(writtenLeaf(t, dir).NotAfter); left < life/2 {
				t.Errorf("%s is not renewed once that was possible: %s left", dir, left)
			}
		}
	})
}

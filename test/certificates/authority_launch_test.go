package certificates_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/certs"
)

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

package certificates_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

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
			!strings.Contains(err.Error(), "LoadAuthority") || !strings.Contains(err.Error(), "is missing") {
			t.Errorf("%s: %v, want fs.ErrExist, the file, and what to do", keep, err)
		}

		_, err = connectplugin.LoadAuthority(connectplugin.AuthorityConfig{Dir: dir})
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "load: "+filepath.Join(dir, keep)+" is there, and ") {
			t.Errorf("%s: %v, want fs.ErrNotExist, and which file is missing", keep, err)
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
		text   string
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
			want:  certs.ErrPEM, text: "authority.crt: malformed PEM",
		},
		"no PEM for a key": {
			spoil: func(dir string) error { return os.WriteFile(filepath.Join(dir, "authority.key"), []byte("x"), 0o600) },
			want:  certs.ErrPEM, text: "authority.key: malformed PEM",
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

		if _, err := connectplugin.LoadAuthority(connectplugin.AuthorityConfig{Dir: dir}); !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: %v, want %v and %q", name, err, test.want, test.text)
		}
	}
}

func readPEM(t *testing.T, path string) []byte {
	t.Helper()

	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	return data
}

// An Authority is replaced at once, as the manual says: nobody takes two of them, and the new one writes to directories that
// were emptied alone.
func TestAuthorityIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	config := func(dir string) connectplugin.AuthorityConfig {
		return connectplugin.AuthorityConfig{Dir: dir, TrustDomain: "example.org"}
	}
	dirs := []string{filepath.Join(t.TempDir(), "old"), filepath.Join(t.TempDir(), "new")}
	var authorities []*connectplugin.Authority
	var both []byte
	for _, dir := range dirs {
		a, err := connectplugin.NewAuthority(config(dir))
		if err != nil {
			t.Fatal(err)
		}
		pem, err := os.ReadFile(filepath.Join(dir, "authority.crt"))
		if err != nil {
			t.Fatal(err)
		}
		authorities, both = append(authorities, a), append(both, pem...)
	}
	plugin := filepath.Join(t.TempDir(), "plugin")
	if err := authorities[0].WriteCredentials(plugin, "echo"); err != nil {
		t.Fatal(err)
	}
	if err := authorities[1].WriteCredentials(plugin, "echo"); err == nil || !strings.Contains(err.Error(), "remove the directory") {
		t.Errorf("a directory of the old one: %v", err)
	}
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		if err := os.Remove(filepath.Join(plugin, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := authorities[1].WriteCredentials(plugin, "echo"); err != nil {
		t.Fatal(err)
	}
	if authorities[0].HostIdentity() != authorities[1].HostIdentity() {
		t.Error("the host has another identity, in one trust domain")
	}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Authority, c.Policy = authorities[1], &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"echo": {}}}
	})
	tlsConfig, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: plugin})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hosttest.EnrolOnce(t.Context(), connectplugin.ClientConfig{HostURL: host.URL, SelfID: "echo", TLS: tlsConfig}); err != nil {
		t.Errorf("with what the new one wrote: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dirs[1], "authority.crt"), both, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := connectplugin.LoadAuthority(config(dirs[1])); err == nil || !strings.Contains(err.Error(), "2 certificates instead of one") {
		t.Errorf("two at once: %v", err)
	}
}

// Several processes that make an authority in one directory at once have one: who loses is told to load it, and not to remove what the
// other one is making.
func TestAuthorityIsMadeOnce(t *testing.T) {
	t.Parallel()

	const makers = 6

	for range 10 {
		config := connectplugin.AuthorityConfig{Dir: filepath.Join(t.TempDir(), "authority")}
		made := make(chan error, makers)

		for range makers {
			go func() {
				_, err := connectplugin.NewAuthority(config)
				if loaded, wrong := connectplugin.LoadAuthority(config); wrong != nil || loaded == nil {
					err = errors.Join(errors.New("load"), wrong)
				}
				made <- err
			}()
		}

		won := 0

		for range makers {
			switch err := <-made; {
			case err == nil:
				won++
			case !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "load it with LoadAuthority") || strings.Contains(err.Error(), "is missing"):
				t.Errorf("who came too late is told %v", err)
			}
		}

		if entries, err := os.ReadDir(config.Dir); won != 1 || err != nil || len(entries) != 2 {
			t.Errorf("%d made it, %d files, %v", won, len(entries), err)
		}
	}
}

// Whoever finds one half alone waits a moment for the other, where it is fresh, and says what is missing where it is not.
func TestAuthorityThatIsBeingMade(t *testing.T) {
	t.Parallel()

	config := connectplugin.AuthorityConfig{Dir: t.TempDir()}
	newAuthority(t, config)

	cert, key, aside := filepath.Join(config.Dir, "authority.crt"), filepath.Join(config.Dir, "authority.key"), filepath.Join(t.TempDir(), "crt")
	if err := os.Rename(cert, aside); err != nil {
		t.Fatal(err)
	}

	came := make(chan error)
	time.AfterFunc(50*time.Millisecond, func() { came <- os.Rename(aside, cert) })

	_, err := connectplugin.LoadAuthority(config)
	if err = errors.Join(err, <-came); err != nil {
		t.Errorf("it was coming: %v", err)
	}

	if err := errors.Join(os.Remove(cert), os.Chtimes(key, time.Time{}, time.Now().Add(-time.Hour))); err != nil {
		t.Fatal(err)
	}

	if _, err := connectplugin.LoadAuthority(config); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "unless another process") {
		t.Errorf("it is not coming: %v", err)
	}
}

package page_test

import (
	"crypto/tls"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/console/page"
	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// run runs one of the programs that make a browser's database of certificates; without it the
// test says so and ends.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	program, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("no %s here: apt-get install libnss3-tools openssl lets a browser have a certificate", name)
	}
	if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// home makes a home directory in which a browser finds the authority that it trusts and the
// credentials of a self id, and shows them without asking where it is asked for them.
func home(t *testing.T, authority *connectplugin.Authority, selfID string) string {
	t.Helper()
	dir := t.TempDir()
	creds, db := filepath.Join(dir, "credentials"), filepath.Join(dir, ".pki", "nssdb")
	if err := authority.WriteCredentials(creds, selfID); err != nil {
		t.Fatal(err)
	}
	for _, made := range []string{db, filepath.Join(dir, ".local", "share")} {
		if err := os.MkdirAll(made, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Dir(db), filepath.Join(dir, ".local", "share", "pki")); err != nil {
		t.Fatal(err)
	}
	p12 := filepath.Join(dir, "own.p12")
	run(t, "certutil", "-N", "-d", "sql:"+db, "--empty-password")
	run(t, "certutil", "-A", "-d", "sql:"+db, "-n", "authority", "-t", "CT,,", "-i", filepath.Join(creds, "ca.crt"))
	run(t, "openssl", "pkcs12", "-export", "-in", filepath.Join(creds, "tls.crt"), "-inkey", filepath.Join(creds, "tls.key"), "-out", p12, "-passout", "pass:", "-name", "own")
	run(t, "pk12util", "-i", p12, "-d", "sql:"+db, "-W", "", "-K", "")
	return dir
}

// profileWith makes a profile that shows a certificate to some pages without asking.
func profileWith(t *testing.T, pages ...string) string {
	t.Helper()
	dir, shows := profileDir(t), map[string]any{}
	for _, p := range pages {
		shows[p+",*"] = map[string]any{"setting": map[string]any{"filters": []any{map[string]any{}}}}
	}
	var preferences any = map[string]any{"auto_select_certificate": shows}
	for _, within := range []string{"exceptions", "content_settings", "profile"} {
		preferences = map[string]any{within: preferences}
	}
	text, err := json.Marshal(preferences)
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, "Default"), 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "Default", "Preferences"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// A browser with a certificate that the page was told of shows the host without a link. One whose
// certificate it was not told of is asked for the link.
func TestBrowserShowsACertificate(t *testing.T) {
	t.Parallel()
	program := chromium(t)
	r := newRig(t, false)
	by := r.Enrol(t, "operator", nil).HTTPClient()
	own, err := r.Authority.PluginTLS("page")
	if err != nil {
		t.Fatal(err)
	}
	var pages []string
	for _, known := range []string{"auditor", "victim"} {
		l := hosttest.Listen(t)
		pages = append(pages, "https://"+l.Addr().String())
		servePage(t, page.Config{
			Read:       adminv1connect.NewAdminReadServiceClient(by, r.URL),
			TLS:        &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: own.GetCertificate, ClientCAs: r.Authority.CertPool()},
			Identities: []string{r.Authority.PluginIdentity(known)},
		}, l)
	}
	dir := home(t, r.Authority, "auditor")
	b := openProfile(t, program, profileWith(t, pages...), pages[0]+"/", "HOME="+dir, "XDG_DATA_HOME="+filepath.Join(dir, ".local", "share"))
	hosttest.Eventually(t, "the page shows the host", func() bool {
		return b.status(t) == "live" && strings.Contains(b.evaluate(t, "document.body.textContent"), r.Addr())
	})
	b.visit(t, pages[1]+"/")
	hosttest.Eventually(t, "the other page asks for a link", func() bool {
		return strings.HasPrefix(b.status(t), "not connected: open the link")
	})
	if text := b.evaluate(t, "document.body.textContent"); strings.Contains(text, r.Addr()) {
		t.Errorf("it shows the host all the same: %s", text)
	}
}

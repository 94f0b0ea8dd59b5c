package attack_test

import (
	"crypto/tls"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// credentialsOfBoth are the credentials of storage, whose ca.crt names a company's
// authority, too.
func credentialsOfBoth(t *testing.T, authority *connectplugin.Authority, company *hosttest.CA) *tls.Config {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "storage")
	if err := authority.WriteCredentials(dir, "storage"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "ca.crt")
	own, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	foreign := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: company.Cert.Raw})
	if err := os.WriteFile(path, append(own, foreign...), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

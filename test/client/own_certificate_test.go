package client_test

import (
	"crypto/tls"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Who runs with the credentials of another plugin, or with none, is told so by its own side: the host tells its log alone.
func TestRefused_SaysWhichCertificateThisSideShows(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"app": {}}}
	})
	other, err := host.Authority.PluginTLS("other")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := other.GetClientCertificate(&tls.CertificateRequestInfo{
		Version: tls.VersionTLS13, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
	})
	if err != nil {
		t.Fatal(err)
	}
	static, none := host.StrangerTLS(), host.StrangerTLS()
	static.Certificates = []tls.Certificate{*leaf}
	const another = `certificate is wrong (this side shows the certificate of "spiffe://test.example/plugin/other"); the host's log`
	for name, c := range map[string]struct {
		tls  *tls.Config
		want string
	}{
		"another plugin's":         {other, another},
		"another plugin's, static": {static, another},
		"none":                     {none, "certificate is wrong (this side shows no certificate); the host's log"},
	} {
		client, err := connectplugin.NewClient(connectplugin.ClientConfig{HostURL: host.URL, SelfID: "app", TLS: c.tls})
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		_ = client.Close()
	}
}

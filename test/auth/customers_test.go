package auth_test

import (
	"crypto/tls"
	"net/http"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// Beside an Authority, whose certificates are those of plugins, customers show certificates of an authority of their own, once
// that is among the ClientCAs.
func TestMTLSAuth_CustomersBesideAnAuthority(t *testing.T) {
	t.Parallel()
	theirs := hosttest.NewCA(t)
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		shown, err := c.Authority.HostTLS()
		if err != nil {
			t.Fatal(err)
		}
		shown.ClientCAs.AddCert(theirs.Cert)
		c.TLS, c.Policy = shown, hosttest.LoggerPolicy()
		c.Plugins = connectplugin.PluginSet{"echo": echo.HostPlugin{Handler: (&echo.Whoami{}).Handler()}}
		c.Impls = map[string]any{"echo": true}
		c.AuthProviders = []connectplugin.AuthProvider{connectplugin.NewMTLSAuth(nil, nil, nil)}
	})
	plugins, err := host.Authority.PluginTLS("somebody")
	if err != nil {
		t.Fatal(err)
	}
	customers := host.StrangerTLS()
	customers.Certificates = []tls.Certificate{*theirs.Issue(t, hosttest.CommonName("acme"))}
	for _, c := range echo.Calls() {
		got, err := c.Call(t.Context(), hosttest.HTTPClient(t, customers), host.URL, http.Header{})
		echo.WantAnswer(t, got, err, "mtls:acme")
		_, err = c.Call(t.Context(), hosttest.HTTPClient(t, plugins), host.URL, http.Header{}) // no identity, and no customer
		wantAuthRefused(t, err)
	}
}

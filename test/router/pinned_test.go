package router_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// A key that policy pins is demanded of the plugin as a server too.
func TestAudit_PROTO52_PinnedKeyOfAProvider(t *testing.T) {
	t.Parallel()
	authority := hosttest.NewAuthority(t)
	providerTLS, err := authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	otherTLS, err := authority.PluginTLS("provider") // the same name, another key
	if err != nil {
		t.Fatal(err)
	}
	right, wrong := echo.NewTrap(t, "127.0.0.1", providerTLS), echo.NewTrap(t, "127.0.0.1", otherTLS)
	for _, server := range []*echo.Trap{right, wrong} {
		host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
			c.Authority, c.Policy = authority, echo.Policy()
			rules := c.Policy.Plugins["provider"]
			rules.Endpoint, rules.PinnedKeys = "https://"+server.Addr, []string{keyPin(t, providerTLS)}
			c.Policy.Plugins["provider"] = rules
		})
		host.Authority = authority
		provider := host.Enrol(t, "provider", func(c *connectplugin.ClientConfig) {
			c.TLS, c.Metadata.Provides = providerTLS, hosttest.Provides(echo.Type)
		})
		if err := echo.Register(t, provider, nil); err != nil {
			t.Fatal(err)
		}
		caller := host.Enrol(t, "caller", hosttest.Requiring(echo.Type))
		to := echo.At(host.URL+"/services/echo/"+provider.RuntimeID(), caller.HTTPClient())
		for protocol, opts := range hosttest.Protocols {
			out := echo.CallUnary(t.Context(), to, opts, nil)
			if server == right && out.Err != nil || server == wrong && connect.CodeOf(out.Err) != connect.CodeUnavailable {
				t.Errorf("%s: right key: %v, got %v", protocol, server == right, out.Err)
			}
		}
	}
	if n := len(wrong.Take()); n != 0 {
		t.Errorf("%d requests reached another key", n)
	}
}

// A plugin takes calls from the host alone.
func TestAudit_PROTO52_PluginsAnswerTheHostOnly(t *testing.T) {
	t.Parallel()
	service := &echo.Recorder{Next: echo.Service{}.Handler()}
	rig := &echo.Rig{Host: hosttest.Start(t, hosttest.WithPolicy(echo.Policy()))}
	l := hosttest.Listen(t)
	rig.Provider = rig.Provide(t, "provider", service, func(c *connectplugin.PluginServerConfig) { c.Listener = l })
	rig.Caller = rig.Enrol(t, "caller", hosttest.Requiring(echo.Type))
	asCaller, err := rig.Authority.PluginTLS("caller")
	if err != nil {
		t.Fatal(err)
	}
	asProvider, err := rig.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]*tls.Config{
		"no certificate": rig.StrangerTLS(), "another plugin": asCaller, "the plugin itself": asProvider,
	} {
		cfg = cfg.Clone()
		cfg.InsecureSkipVerify, cfg.VerifyConnection = true, nil // the attacker does not mind whom it reaches
		direct := echo.At("https://"+l.Addr().String(), hosttest.HTTPClient(t, cfg))
		header := http.Header{"X-Plugin-Caller-Id": {rig.Caller.RuntimeID()}}
		for protocol, opts := range hosttest.Protocols {
			if out := echo.CallUnary(t.Context(), direct, opts, header); out.Err == nil {
				t.Errorf("%s, %s: was served", name, protocol)
			}
		}
	}
	if n := len(service.Take()); n != 0 {
		t.Errorf("%d requests were served", n)
	}
	for protocol, opts := range hosttest.Protocols {
		if out := echo.CallUnary(t.Context(), rig.ToProvider(), opts, nil); out.Err != nil {
			t.Errorf("%s, through the host: %v", protocol, out.Err)
		}
	}
}

// keyPin is the digest of the key in the certificate that a configuration shows.
func keyPin(t *testing.T, cfg *tls.Config) string {
	t.Helper()
	cert, err := cfg.GetCertificate(&tls.ClientHelloInfo{SupportedVersions: []uint16{tls.VersionTLS13}})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

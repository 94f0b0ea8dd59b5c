package recovery_test

import (
	"net"
	"net/url"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// zoned returns the base URL of a host on the loopback interface with a zone, as link-local addresses need one.
func zoned(t *testing.T, host *hosttest.Host) string {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 {
			u, err := url.Parse(host.URL)
			if err != nil {
				t.Fatal(err)
			}
			return (&url.URL{Scheme: u.Scheme, Host: net.JoinHostPort("::1%"+i.Name, u.Port())}).String()
		}
	}
	t.Skip("this machine has no loopback interface")
	return ""
}

// A plugin reaches its host at an address with a zone: no certificate names one, and no request says it.
func TestAudit_USE33_AnAddressWithAZone(t *testing.T) {
	t.Parallel()
	host := startAt(t, "::1")
	address := zoned(t, host)
	atZone := func(c *connectplugin.ClientConfig) {
		c.HostURL = address
		c.Metadata.Requires = hosttest.Requires(echoType)
	}
	host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) {
		c.Client.HostURL = address
		c.Services = echoServices()
	})
	c := host.Enrol(t, "api", atZone)
	if got := c.Config().HostURL; got != address {
		t.Fatalf("the client reaches its host at %s, not %s", got, address)
	}
	if err := once(t.Context(), service(t, c)); err != nil {
		t.Errorf("%v", err)
	}
}

// A provider at an address with a zone is told that its host cannot use it.
func TestAudit_USE33_AProviderAtAnAddressWithAZone(t *testing.T) {
	t.Parallel()
	host := startAt(t, "::1")
	tls, err := host.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	cfg := &connectplugin.PluginServerConfig{Client: host.ClientConfig(t, "provider"), Services: echoServices(), BaseURL: "https://[fe80::2%25eth0]:8443"}
	cfg.Client.TLS = tls
	err = connectplugin.ServePlugin(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "zone") {
		t.Errorf("%v; want an error about the zone", err)
	}
}

package attack_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// knockAgain makes handshakes over one connection.
func knockAgain(t *testing.T, host *hosttest.Host, cfg *tls.Config) func() error {
	t.Helper()
	client := connectpluginv1connect.NewHandshakeServiceClient(oneConnection(t, cfg), host.URL)
	return func() error {
		_, err := client.Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("storage")))
		return err
	}
}

// oneConnection is a client that never dials twice.
func oneConnection(t *testing.T, cfg *tls.Config) *http.Client {
	t.Helper()
	client := hosttest.HTTPClient(t, cfg)
	transport, _ := client.Transport.(*http.Transport)
	dialled := false
	transport.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if dialled {
			t.Error("a second connection")
		}
		dialled = true
		return (&tls.Dialer{Config: cfg}).DialContext(ctx, network, addr)
	}
	return client
}

// A certificate that ended obtains no identity on the connection that it opened.
func TestAudit_ATK08_AnEndedCertificateObtainsNoIdentity(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	host := ca.Start(t, ca.Certify(t, hosttest.Loopback), func(c *connectplugin.ServeConfig) {
		c.Policy = policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": withCertificates(storageID)})
	})
	brief := ca.Certify(t, hosttest.URI(storageID), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(3 * time.Second) })
	again := knockAgain(t, host, ca.TLS(brief))
	if err := again(); err != nil {
		t.Fatalf("while it lasts: %v", err)
	}
	hosttest.Eventually(t, "the certificate ends", func() bool { return time.Now().After(brief.Leaf.NotAfter) })
	if err := again(); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("after its end: %v", err)
	}
	if _, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "storage", TLS: ca.TLS(ca.Certify(t, hosttest.URI(storageID)))}); err != nil {
		t.Errorf("a fresh one: %v", err)
	}
}

// Nor does that of a launch that ended.
func TestAudit_ATK08_AnEndedLaunchObtainsNoIdentity(t *testing.T) {
	t.Parallel()
	const launch = "spiffe://test.example/launch/one"
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": withCertificates(launch)})
	})
	one, err := host.Authority.LaunchTLS(connectplugin.LaunchTLSConfig{ID: "one"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(one.Close)
	again := knockAgain(t, host, one.PluginTLS())
	if err := again(); err != nil {
		t.Fatalf("while it runs: %v", err)
	}
	one.Close()
	if err := again(); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("after its end: %v", err)
	}
}

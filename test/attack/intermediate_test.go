package attack_test

import (
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A certificate is over when the authority is that issued it, however long it says that it is good itself.
func TestAudit_ATK08_ACertificateEndsWithItsIntermediate(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	host := ca.Start(t, ca.Certify(t, hosttest.Loopback), func(c *connectplugin.ServeConfig) {
		c.Policy = policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": withCertificates(storageID)})
		c.Limits.CertificateOvertime = time.Hour
	})
	ends := time.Now().Add(8 * time.Second) // a slow machine enrols before
	again := knockAgain(t, host, ca.TLS(ca.Intermediate(t, ends).Certify(t, hosttest.URI(storageID))))
	if err := again(); err != nil {
		t.Fatalf("while its authority lasts: %v", err)
	}
	hosttest.Eventually(t, "the authority ends", func() bool { return time.Now().After(ends) })
	if err := again(); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("after the end of its authority: %v", err)
	}
	later := ca.Intermediate(t, time.Now().Add(time.Hour)).Certify(t, hosttest.URI(storageID))
	if _, err := enrol(t, connectplugin.ClientConfig{HostURL: host.URL, SelfID: "storage", TLS: ca.TLS(later)}); err != nil {
		t.Errorf("one of an authority that goes on: %v", err)
	}
}

// Its connection ends, too.
func TestAudit_ATK08_AConnectionEndsWithTheIntermediate(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	host := ca.Start(t, ca.Certify(t, hosttest.Loopback), func(c *connectplugin.ServeConfig) {
		c.Policy = policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": unproven})
		c.Limits.CertificateOvertime = time.Millisecond
	})
	ending := stand(t, host, ca.TLS(ca.Intermediate(t, time.Now().Add(8*time.Second)).Certify(t, hosttest.URI(oneID))))
	going := stand(t, host, ca.TLS(ca.Intermediate(t, time.Now().Add(time.Hour)).Certify(t, hosttest.URI(otherID))))
	ending.wantEnded(t)
	going.wantStanding(t, host, "its authority goes on")
}

package attack_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
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

// brief is a certificate of an identity that ends soon.
func brief(t *testing.T, ca *hosttest.CA, identity string) *tls.Certificate {
	t.Helper()
	return ca.Certify(t, hosttest.URI(identity), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(15 * time.Second) })
}

// standing is a connection with streams that stay open, one in each protocol, by an identity of
// its own.
type standing struct {
	client *http.Client
	header http.Header
	end    chan error // gets that of each stream
}

// stand enrols over one connection and opens the watches over it.
func stand(t *testing.T, host *hosttest.Host, cfg *tls.Config) *standing {
	t.Helper()
	s := &standing{client: oneConnection(t, cfg), end: make(chan error, len(protocols))}
	resp, err := connectpluginv1connect.NewHandshakeServiceClient(s.client, host.URL).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("storage")))
	if err != nil {
		t.Fatal(err)
	}
	s.header = hosttest.IdentityHeader(resp.Msg.GetRuntimeId(), resp.Msg.GetRuntimeToken())
	for name, options := range protocols {
		registry := connectpluginv1connect.NewServiceRegistryClient(withHeader{s.client, s.header}, host.URL, options...)
		stream, err := registry.WatchService(t.Context(), connect.NewRequest(&connectpluginv1.WatchServiceRequest{ServiceType: "echo"}))
		if err != nil || !stream.Receive() {
			t.Fatalf("watch in %s: %v, %v", name, err, stream.Err())
		}
		go func() {
			for stream.Receive() { // to the end
			}
			err := stream.Err()
			_ = stream.Close()
			s.end <- err
		}()
	}
	return s
}

// wantEnded waits for the end of every stream.
func (s *standing) wantEnded(t *testing.T) {
	t.Helper()
	for range protocols {
		if err := hosttest.Arrival(t, s.end); err == nil {
			t.Error("a stream ended well")
		}
	}
}

// wantStanding checks that a connection goes on.
func (s *standing) wantStanding(t *testing.T, host *hosttest.Host, why string) {
	t.Helper()
	for name, options := range protocols {
		_, err := connectpluginv1connect.NewPluginLifecycleClient(withHeader{s.client, s.header}, host.URL, options...).ReportHealth(t.Context(),
			connect.NewRequest(&connectpluginv1.ReportHealthRequest{State: connectpluginv1.HealthState_HEALTH_STATE_HEALTHY}))
		if err != nil {
			t.Errorf("%s: a call in %s: %v", why, name, err)
		}
	}
	select {
	case err := <-s.end:
		t.Errorf("%s: a stream ended: %v", why, err)
	default:
	}
}

// A connection ends soon after its certificate, with every stream on it, unless its identity
// shows a later one on another.
func TestAudit_ATK08_AConnectionEndsWithItsCertificate(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	host := ca.Start(t, ca.Certify(t, hosttest.Loopback), func(c *connectplugin.ServeConfig) {
		c.Policy = policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": unproven})
		c.Limits.CertificateOvertime = time.Second
	})
	first := brief(t, ca, oneID)
	ending, renewed := stand(t, host, ca.TLS(first)), stand(t, host, ca.TLS(brief(t, ca, otherID)))
	nameless := stand(t, host, ca.TLS(nil))
	later := stand(t, host, ca.TLS(ca.Certify(t, hosttest.URI(otherID))))
	ending.wantStanding(t, host, "before")
	ending.wantEnded(t)
	if early := time.Until(first.Leaf.NotAfter); early > 0 {
		t.Errorf("it ended %s before its certificate", early)
	}
	hosttest.Eventually(t, "the overtime of the other is over", func() bool { return time.Now().After(first.Leaf.NotAfter.Add(3 * time.Second)) })
	renewed.wantStanding(t, host, "a later certificate was shown")
	later.wantStanding(t, host, "its own lasts")
	nameless.wantStanding(t, host, "no certificate")
}

// So does that of a launch that ended.
func TestAudit_ATK08_AConnectionEndsWithItsLaunch(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": unproven})
		c.Limits.CertificateOvertime = time.Millisecond
	})
	launch := func(id string) (*standing, *connectplugin.LaunchTLS) {
		l, err := host.Authority.LaunchTLS(connectplugin.LaunchTLSConfig{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		return stand(t, host, l.PluginTLS()), l
	}
	ending, l := launch("one")
	other, _ := launch("two")
	l.Close()
	ending.wantEnded(t)
	other.wantStanding(t, host, "another launch")
}

// A client whose certificate renews itself shows the later one by itself, and keeps what it
// has open.
func TestAudit_ATK08_AnHonestPluginKeepsItsStreams(t *testing.T) {
	t.Parallel()
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{CertificateTTL: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Authority, c.Policy = authority, policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": nil})
		c.Limits.CertificateOvertime = 8 * time.Second // for a busy machine
	})
	own, err := authority.PluginTLS("storage")
	if err != nil {
		t.Fatal(err)
	}
	var shown atomic.Int64 // when the certificate that was shown last ends
	source := own.GetClientCertificate
	own.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, err := source(r)
		if err == nil {
			shown.Store(cert.Leaf.NotAfter.Unix())
		}
		return cert, err
	}
	cfg := connectplugin.ClientConfig{HostURL: host.URL, SelfID: "storage", TLS: own}
	cfg.Metadata.Requires = hosttest.Requires("echo")
	client, err := enrol(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	var watches []*hosttest.Watching
	for _, options := range protocols {
		w := hosttest.Watch(t, client, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "echo"}, options...)
		w.Next(t)
		watches = append(watches, w)
	}
	first, id := shown.Load(), client.RuntimeID()
	hosttest.Eventually(t, "the first certificate is long over", func() bool { return time.Now().Unix() > first+9 })
	for _, w := range watches {
		if code := w.Code(hosttest.Moment); code != 0 || client.RuntimeID() != id {
			t.Errorf("the watch ended: %v; %s, then %s", code, id, client.RuntimeID())
		}
	}
}

// Package hosttest starts real hosts and plugins over TLS 1.3 in tests. It is for
// tests only.
package hosttest

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// Secret is the enrolment secret of every plugin that [Allow] makes a policy for.
var Secret = connectplugin.Secret("0123456789abcdef0123456789abcdef")

// Host is a running host.
type Host struct {
	*connectplugin.Host

	URL       string
	Authority *connectplugin.Authority
	Audit     *Audit

	cancel context.CancelFunc
	served chan error
}

// Audit collects audit events.
type Audit struct {
	mu     sync.Mutex
	events []connectplugin.AuditEvent
}

// Events returns what was recorded so far.
func (a *Audit) Events() []connectplugin.AuditEvent {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.events)
}

// Has reports whether an event of the kind was recorded.
func (a *Audit) Has(kind connectplugin.AuditKind) bool {
	return slices.ContainsFunc(a.Events(), func(e connectplugin.AuditEvent) bool { return e.Kind == kind })
}

func (a *Audit) add(e connectplugin.AuditEvent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events = append(a.events, e)
}

// Start starts a host with a fresh authority on a free loopback port. edit
// changes the configuration before; the default policy is nil, and plugins are asked
// for their health only where edit sets HealthProbe. The host is shut
// down at the end of the test, which fails if that is not clean.
func Start(t testing.TB, edit func(*connectplugin.ServeConfig)) *Host {
	t.Helper()
	h := &Host{Audit: &Audit{}, Authority: NewAuthority(t), served: make(chan error, 1)}
	cfg := &connectplugin.ServeConfig{
		Authority: h.Authority, Logger: Logger(t), Audit: h.Audit.add,
		// A busy machine must not make an honest test fail.
		Limits: connectplugin.Limits{HandshakesPerSecond: 1e6, HandshakeBurst: 1e6, WatchEventsPerSecond: 1e6, WatchEventBurst: 1e6},
	}
	if edit != nil {
		edit(cfg)
	}
	if cfg.Authority != nil {
		h.Authority = cfg.Authority
	}
	if cfg.HealthProbe == (connectplugin.HealthProbeConfig{}) {
		// Nor may it make an honest plugin look dead.
		cfg.HealthProbe.Disabled = true
	}
	host, err := connectplugin.NewHost(cfg)
	if err != nil {
		t.Fatalf("NewHost: %v", err)
	}
	h.Host = host
	l := Listen(t)
	scheme := "https://"
	if cfg.AllowInsecure {
		scheme = "http://"
	}
	h.URL = scheme + l.Addr().String()
	var ctx context.Context
	ctx, h.cancel = context.WithCancel(context.Background())
	go func() { h.served <- host.Serve(ctx, l) }()
	t.Cleanup(func() { h.Stop(t) })
	Eventually(t, "host is serving", func() bool { return host.Addr() != "" })
	return h
}

// Stop shuts the host down and waits for its end. Later calls do nothing.
func (h *Host) Stop(t testing.TB) {
	t.Helper()
	if h.cancel == nil {
		return
	}
	h.cancel()
	h.cancel = nil
	select {
	case err := <-h.served:
		if err != nil && !errors.Is(err, connectplugin.ErrHostClosed) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("host: %v", err)
		}
	case <-time.After(Wait):
		t.Error("host did not shut down")
	}
}

// NewAuthority makes an authority in memory.
func NewAuthority(t testing.TB) *connectplugin.Authority {
	t.Helper()
	a, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{TrustDomain: "test.example"})
	if err != nil {
		t.Fatalf("NewAuthority: %v", err)
	}
	return a
}

// Allow is the policy of a plugin that proves [Secret], is dialled at its own
// address and may do what edit says.
func Allow(edit func(*connectplugin.PluginPolicy)) connectplugin.PluginPolicy {
	p := connectplugin.PluginPolicy{Secret: Secret, AllowOwnAddress: true}
	if edit != nil {
		edit(&p)
	}
	return p
}

// StrangerTLS trusts the host and shows no certificate.
func (h *Host) StrangerTLS() *tls.Config { return h.Authority.ClientTLS() }

// Stranger is an HTTP/2 client over TLS that trusts the host, shows no
// certificate and sends no credentials.
func (h *Host) Stranger(t testing.TB) *http.Client {
	t.Helper()
	return HTTPClient(t, h.StrangerTLS())
}

// HTTPClient is an HTTP/2 client with a TLS configuration, which others may use, too: net/http
// writes in its own. Nil means plaintext.
func HTTPClient(t testing.TB, cfg *tls.Config) *http.Client {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(cfg == nil)
	transport := &http.Transport{TLSClientConfig: cfg.Clone(), Protocols: &protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

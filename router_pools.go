package connectplugin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/bridge"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/coarse"
	"github.com/masegraye/connect-plugin-go/internal/headers"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// routedProvider passes calls on to one plugin at one endpoint.
type routedProvider struct {
	// Fixed at creation.
	endpoint string
	pool     *proxy.Provider                                     // nil where err is set
	err      error                                               // what is wrong with the endpoint
	memory   bool                                                // the plugin is in the host's own process
	question func(context.Context) (catalog.HealthReport, error) // asks it how it is in its own way; may be nil

	down   atomic.Int64 // until when calls fail at once, as the router's age
	missed atomic.Int64 // when the host was last told that a call did not reach it, as that
	asking atomic.Bool  // a question to a plugin in the host's own process is under way

	previous *proxy.Provider // at the endpoint before, whose calls may finish; guarded by the router's mu
}

// failed notes that the provider could not be reached. As long as that took, and
// no longer, the next calls do not try: so a refused connection costs nothing, and
// an address that swallows everything does not let every caller wait.
func (p *routedProvider) failed(now, took time.Duration) {
	p.down.Store(int64(now + min(took, maxDown)))
}

// letGo ends the connections to a plugin that nobody called on: the host need not ask it for a while.
func (s *ServiceRouter) letGo(id *tokenstore.Identity) {
	s.mu.Lock()
	p := s.providers[id.RuntimeID()]
	s.mu.Unlock()
	if p != nil && p.pool != nil {
		p.pool.LetGo()
	}
}

// pools are to be closed; some may be nil.
type pools []*proxy.Provider

func (all pools) close() {
	for _, pool := range all {
		if pool != nil {
			pool.Close()
		}
	}
}

var (
	errNoEndpoint = errors.New("no endpoint")
	errUnhealthy  = errors.New("the provider reported to be unhealthy")
	errDown       = errors.New("the provider could not be reached a moment ago")
	errNotServing = errors.New("the router belongs to no host, or the host is closed")
)

// noEndpoint says how a plugin gets an endpoint that has none.
func noEndpoint(h *hub, runtimeID string) error {
	id, ok := h.store.Lookup(runtimeID)
	if !ok {
		return errNoEndpoint
	}
	return fmt.Errorf("%w: set %s so that the plugin names it", errNoEndpoint, placing(id))
}

// provider returns the pool of a plugin that takes calls.
func (s *ServiceRouter) provider(h *hub, runtimeID string) (*routedProvider, error) {
	if !s.lifecycle.ShouldRouteTraffic(runtimeID) {
		return nil, errUnhealthy
	}
	p, err := s.providerAt(h, runtimeID)
	if err == nil && int64(s.now()) < p.down.Load() {
		return nil, errDown
	}
	return p, err
}

// providerAt returns the pool of a plugin at its endpoint, whatever its health, and
// makes it on the first call and when the endpoint changed.
func (s *ServiceRouter) providerAt(h *hub, runtimeID string) (*routedProvider, error) {
	endpoint, _ := s.catalog.Endpoint(runtimeID)
	if endpoint == "" {
		return nil, noEndpoint(h, runtimeID)
	}
	s.mu.Lock()
	if p := s.providers[runtimeID]; p != nil && p.endpoint == endpoint {
		s.mu.Unlock()
		return p, p.err
	}
	p, stale, err := s.moveLocked(h, runtimeID)
	s.mu.Unlock()
	stale.close()
	if err != nil {
		return nil, err
	}
	return p, p.err
}

// moveLocked makes the pool of a plugin at a new endpoint. Calls to the one before
// may finish; those to the one before that may not. It returns what is to be
// closed.
func (s *ServiceRouter) moveLocked(h *hub, runtimeID string) (*routedProvider, pools, error) {
	if s.closed {
		return nil, nil, errNotServing
	}
	if s.dialer == nil { // the router is on a server of its user's
		d, err := standaloneDialer(h.settings())
		if err != nil {
			return nil, nil, err
		}
		s.dialer = d
	}
	id, ok := h.store.Lookup(runtimeID)
	if !ok {
		return nil, nil, fmt.Errorf("runtime id %q: %w", runtimeID, errNotAlive)
	}
	// Under the lock, so that nobody goes back to an endpoint before.
	endpoint, _ := s.catalog.Endpoint(runtimeID)
	before := s.providers[runtimeID]
	switch {
	case endpoint == "":
		return nil, nil, noEndpoint(h, runtimeID)
	case before != nil && before.endpoint == endpoint:
		return before, nil, nil
	}
	p := s.poolLocked(h, id, endpoint)
	var stale pools
	if before != nil {
		stale = pools{before.previous}
		if p.previous = before.pool; p.previous != nil {
			s.draining.Go(func() { s.drain(p, before.pool) })
		}
	}
	s.providers[runtimeID] = p
	if id.Ended() { // while the pool was being made; nobody else will close it
		delete(s.providers, runtimeID)
		return nil, append(stale, p.pool, p.previous), fmt.Errorf("runtime id %q: %w", runtimeID, errNotAlive)
	}
	return p, stale, nil
}

// drain lets the calls to the endpoint before finish.
func (s *ServiceRouter) drain(p *routedProvider, previous *proxy.Provider) {
	_ = previous.Drain(s.life)
	previous.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.previous == previous {
		p.previous = nil
	}
}

// endProvider ends what goes through to a plugin whose identity ended, and what the
// router knows of it.
func (s *ServiceRouter) endProvider(runtimeID string) {
	s.mu.Lock()
	delete(s.handlers, runtimeID)
	s.mu.Unlock()
	s.unsucceed(runtimeID)
	s.forget(runtimeID)
}

// forget ends what goes through to a plugin at its endpoint.
func (s *ServiceRouter) forget(runtimeID string) {
	s.mu.Lock()
	var ends pools
	if p := s.providers[runtimeID]; p != nil {
		ends = pools{p.pool, p.previous}
	}
	delete(s.providers, runtimeID)
	s.mu.Unlock()
	ends.close()
}

// identityEnded takes out what goes through to a plugin. Where it left, or its process ended, what it answered may still be on its way.
func (s *ServiceRouter) identityEnded(e tokenstore.End) {
	runtimeID := e.Identity.RuntimeID()
	if e.Reason == reasonLeft || e.Reason == reasonExited {
		s.passOn(e.Identity)
	}
	s.endProvider(runtimeID)
}

// maxDown is how long at most the calls to a provider that cannot be reached fail without trying.
const maxDown = 5 * time.Second

// farewell has providers know that the host is about to end, on the connections that have calls, which go on: streams that could go
// on for ever are for them to end.
func (s *ServiceRouter) farewell() {
	s.mu.Lock()
	all := make(pools, 0, len(s.providers))
	for _, p := range s.providers {
		all = append(all, p.pool, p.previous)
	}
	s.mu.Unlock()
	for _, pool := range all {
		if pool != nil {
			pool.Farewell()
		}
	}
}

// Close ends every call that goes through and the connections to plugins, and refuses what
// comes later. It is for a router on a server of your own: a [Host] closes its own. It may
// be called more than once.
func (s *ServiceRouter) Close() {
	s.made().mu.Lock()
	ends := make(pools, 0, 2*len(s.providers))
	for _, p := range s.providers {
		ends = append(ends, p.pool, p.previous)
	}
	s.providers, s.closed = map[string]*routedProvider{}, true
	clear(s.handlers)
	s.mu.Unlock()
	s.end()
	ends.close()
	s.draining.Wait()
}

// drainProvider refuses further calls to a plugin and waits for those in flight, at most
// until ctx ends.
func (s *ServiceRouter) drainProvider(ctx context.Context, runtimeID string) error {
	s.mu.Lock()
	var all pools
	if p := s.providers[runtimeID]; p != nil {
		all = pools{p.pool, p.previous}
	}
	s.mu.Unlock()
	var errs []error
	for _, pool := range all {
		if pool != nil {
			errs = append(errs, pool.Drain(ctx))
		}
	}
	return errors.Join(errs...)
}

// inFlight returns how many calls to a plugin are being passed on.
func (s *ServiceRouter) inFlight(runtimeID string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	if p := s.providers[runtimeID]; p != nil {
		for _, pool := range (pools{p.pool, p.previous}) {
			if pool != nil {
				n += pool.InFlight()
			}
		}
	}
	return n
}

// awaitQuiet waits until the calls in flight to a plugin are done, at most until ctx ends.
// Later calls to it get connections of their own.
func (s *ServiceRouter) awaitQuiet(ctx context.Context, runtimeID string) error {
	s.mu.Lock()
	if p := s.providers[runtimeID]; p != nil {
		// No endpoint is the empty one: the next call finds that the plugin has moved.
		s.providers[runtimeID] = &routedProvider{pool: p.pool, err: p.err, memory: p.memory, previous: p.previous}
	}
	s.mu.Unlock()
	return s.drainProvider(ctx, runtimeID)
}

// pluginDialer says how the host connects to plugins.
type pluginDialer struct {
	tls       *tls.Config // nil in plaintext
	authority *Authority  // where set, plugins prove their self id with its certificates
	issuer    *Authority  // alone issues names in its trust domain; nil where the host has none
	insecure  bool        // plaintext endpoints are accepted
	limits    Limits
	headers   *headers.Rules // which metadata passes
	clock     coarse.Clock   // of connections to plugins
}

// metadataRules says which metadata passes, and tells the log of what does not, once for each name.
func metadataRules(cfg *settings) *headers.Rules {
	return headers.NewRules().With(cfg.passed, func(d headers.Direction, name string) {
		cfg.log.Debug("metadata of this name does not pass between plugins; ServeConfig.PassMetadata can let it",
			keyName, printable(name), keyDirection, d.String())
	})
}

// newPluginDialer settles the client side towards plugins.
func newPluginDialer(cfg *settings, serverTLS *tls.Config) (*pluginDialer, error) {
	d := &pluginDialer{issuer: cfg.authority, insecure: cfg.allowInsecure, limits: cfg.limits, headers: metadataRules(cfg)}
	if serverTLS == nil {
		return d, nil
	}
	base := cfg.pluginTLS
	if base == nil && cfg.authority == nil && verifiesItself(serverTLS) {
		return nil, fieldError("PluginTLS", "is required, because TLS verifies clients in a callback and has no ClientCAs that plugins could be "+
			"verified against; with go-spiffe write tlsconfig.MTLSClientConfig(...)")
	}
	if base == nil {
		base = &tls.Config{
			Certificates:         serverTLS.Certificates,
			GetClientCertificate: clientCertificate(serverTLS, cfg.hosts),
			RootCAs:              serverTLS.ClientCAs,
			MinVersion:           tls.VersionTLS13,
		}
		d.authority = cfg.authority
		if cfg.authority != nil {
			base.RootCAs = cfg.authority.CertPool()
		}
	}
	hardened, err := hardenClientTLS(base, nil)
	if err != nil {
		return nil, fmt.Errorf("PluginTLS: %w", err)
	}
	d.tls = hardened
	return d, nil
}

// standaloneDialer is that of a router that no Host serves.
func standaloneDialer(cfg *settings) (*pluginDialer, error) {
	served := cfg.serverTLS
	if served == nil && cfg.authority != nil {
		var err error
		if served, err = cfg.authority.HostTLS(); err != nil {
			return nil, err
		}
	}
	return newPluginDialer(cfg, served)
}

// mustProve reports whether a plugin has to show that it is the one that answers at an
// endpoint that it named itself: where the certificate that is demanded there may be
// another's too, or none is. In plaintext and under an open policy nothing is protected.
func (d *pluginDialer) mustProve(h *hub, book *policy.Book, id *tokenstore.Identity) bool {
	rules := book.Of(subjectOf(id))
	switch {
	case d.authority != nil, h.launchOf(id) != nil:
		return false
	case d.tls == nil:
		return rules == nil || !rules.Open()
	}
	switch book.Tells(subjectOf(id)) {
	case policy.TellsApart:
		return false
	case policy.TellsShared:
		return true
	case policy.TellsNothing:
	}
	return !h.alone(id)
}

// alone reports whether an identity showed a certificate that no other plugin did.
func (h *hub) alone(id *tokenstore.Identity) bool {
	certificate, alone := declared(id).certIdentity, true
	if certificate == "" {
		return false
	}
	h.store.Each(func(other *tokenstore.Identity) bool {
		alone = other.SelfID() == id.SelfID() || declared(other).certIdentity != certificate
		return alone
	})
	return alone
}

// pool makes the connection pool of a plugin, which is asked on each connection what ask says, nil
// for nothing, and whose certificate is looked at besides. Nothing is dialled yet.
func (d *pluginDialer) pool(h *hub, id *tokenstore.Identity, endpoint string, ask challenger, besides ...peerCheck) (*proxy.Provider, error) {
	baseURL, resolver := proxy.Unpin(endpoint)
	e, err := proxy.ParseEndpoint(baseURL, d.insecure)
	if err != nil {
		return nil, err
	}
	cfg := d.config(h, id, e)
	cfg.Resolver = resolver
	if d.tls != nil {
		cfg.TLS = d.tlsFor(h, id)
		cfg.TLS.VerifyConnection = verifyAll(append([]peerCheck{cfg.TLS.VerifyConnection}, besides...)...)
	}
	if d.insecure && e.Plaintext() {
		cfg.Dial = bridge.Dial
	}
	cfg.Challenge = ask
	return proxy.New(cfg)
}

// config is what the pool of a plugin has, wherever it is, but for its TLS.
func (d *pluginDialer) config(h *hub, id *tokenstore.Identity, e proxy.Endpoint) proxy.Config {
	l := &d.limits
	return proxy.Config{
		Endpoint: e, DialTimeout: l.DialTimeout, IdleTimeout: l.IdleTimeout, CallIdle: l.StreamIdleTimeout, Overtime: l.CertificateOvertime,
		MaxHeaderBytes: max(l.MaxHeaderBytes, proxy.DefaultMaxHeaderBytes), Logger: h.log().With(keyRuntimeID, id.RuntimeID()),
		Headers: d.headers, GRPC: declared(id).inGRPC, Clock: &d.clock, Turns: handshakes, Pace: &h.shareOf(id).fields,
	}
}

// tlsFor returns the TLS configuration that accepts one plugin only: by the
// identity in its certificate where that is known, and by the pins of its
// policy.
func (d *pluginDialer) tlsFor(h *hub, id *tokenstore.Identity) *tls.Config {
	cfg := d.tls.Clone()
	// With an authority, and with SPIFFE ids, the certificate's identity is checked
	// instead of its host names: plugins run anywhere, and no other plugin may answer
	// for one.
	byIdentity := d.authority != nil || certs.IsSPIFFE(declared(id).certIdentity)
	if byIdentity {
		cfg = withoutNames(cfg)
	}
	named := !cfg.InsecureSkipVerify // crypto/tls compares the names
	cfg.VerifyConnection = verifyAll(cfg.VerifyConnection, func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return errNoCertificate
		}
		leaf := cs.PeerCertificates[0]
		if err := d.checkIdentity(id, leaf, named); err != nil {
			return err
		}
		if err := checkProvider(h, id, leaf); err != nil {
			return err
		}
		h.settings().vigil.Saw("plugin "+id.SelfID()+", where this host calls it", leaf)
		return nil
	})
	return cfg
}

// checkIdentity demands of a plugin's certificate the identity that is known of it.
func (d *pluginDialer) checkIdentity(id *tokenstore.Identity, leaf *x509.Certificate, named bool) error {
	if d.issuer != nil {
		if err := d.issuer.vouchFor(leaf); err != nil {
			return err
		}
	}
	got, shown := certs.CertificateIdentity(leaf), declared(id).certIdentity
	switch {
	case d.authority != nil:
		if want := d.identityOf(id); got != want {
			return fmt.Errorf("plugin answers as %q, not as %q", got, want)
		}
	case !named && certs.IsSPIFFE(got) && got != shown:
		return fmt.Errorf("plugin answers as %q and enrolled as %q: let it enrol with the certificate that it serves with", got, shown)
	}
	return nil
}

// identityOf returns the certificate identity with which a plugin must answer:
// that of its self id or, where it enrolled with one, of its launch.
func (d *pluginDialer) identityOf(id *tokenstore.Identity) string {
	shown := declared(id).certIdentity
	if parsed, err := certs.ParseID(shown); err == nil && parsed.Role == certs.RoleLaunch && parsed.TrustDomain == d.authority.TrustDomain() {
		return shown
	}
	return d.authority.PluginIdentity(declared(id).selfID)
}

// checkProvider demands of a provider the certificate identity that it enrolled with or showed
// when it was adopted, and the certificates and pins of its policy.
func checkProvider(h *hub, id *tokenstore.Identity, leaf *x509.Certificate) error {
	if want := declared(id).certIdentity; want != "" && certs.CertificateIdentity(leaf) != want {
		return fmt.Errorf("plugin answers as %q and enrolled as %q", certs.CertificateIdentity(leaf), want)
	}
	rules := h.rulesOf(id)
	if rules == nil {
		return errors.New("policy does not know the plugin")
	}
	if len(rules.Pins) > 0 && !slices.Contains(rules.Pins, certs.PinOf(leaf)) {
		return errors.New("plugin answers with a key that is not pinned")
	}
	if err := h.checkNamed(rules, leaf); err != nil {
		return err
	}
	return declared(id).adopted.admit(leaf)
}

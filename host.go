package connectplugin

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	"github.com/masegraye/connect-plugin-go/internal/backoff"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/drain"
	"github.com/masegraye/connect-plugin-go/internal/h2serve"
	"github.com/masegraye/connect-plugin-go/internal/headers"
	"github.com/masegraye/connect-plugin-go/internal/jury"
	"github.com/masegraye/connect-plugin-go/internal/probes"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// Host serves plugins. Make it with [NewHost], end it with [Host.Shutdown], also
// when it never served. It is safe for concurrent use.
type Host struct {
	// Fixed at creation.
	cfg       *ServeConfig
	hub       *hub
	handshake *HandshakeServer
	lifecycle *LifecycleServer
	registry  *ServiceRegistry
	router    *ServiceRouter
	broker    *CapabilityBroker
	health    *HealthServer
	serverTLS *tls.Config     // nil in plaintext
	certified bool            // the certificate is made by Authority, for Hosts
	server    *h2serve.Server // nil in plaintext
	plain     *http.Server    // nil but in plaintext
	serverLog *serverLog      // of what net/http says, and of what connections begin with
	ingress   *ingress
	standing  *certs.Standing[net.Conn]
	drain     *drain.Drain
	abort     context.CancelCauseFunc
	prober    *prober
	probes    *probes.Server // for HealthAddr
	metrics   *probes.Server // for MetricsAddr
	stopTasks context.CancelFunc
	tasks     sync.WaitGroup
	made      time.Time
	followers chan struct{} // a place for each stream that follows the host; nil without Admin
	leaving   chan struct{} // closed when the host begins to shut down; nil without Admin
	done      chan struct{} // closed when the shutdown is complete
	judging   *jury.Box     // of changes of policy for which HandshakeAuth.Secret is asked

	draining atomic.Bool
	shutdown sync.Once
	aside    sync.Once // the warning of a server of the user's own
	shutErr  error     // written before done is closed

	policyMu sync.Mutex // held during a change of policy; guards nothing

	upperMu sync.Mutex
	upper   upperFloor // nil until it is asked for

	mu          sync.Mutex
	addr        string
	healthAddr  string // empty before probes are answered
	metricsAddr string // empty before scrapes are
	edges       listeners
}

// Usage counts what a host holds at one moment, for its operator's metrics. Most of
// the counts have a bound in [Limits]. On a host where nothing happens, a count that
// grows is a leak.
type Usage struct {
	// Identities that are alive, and capability grants. One that expired a moment ago
	// may still be among the grants.
	Identities, Grants int
	// Registrations of services, and the types that somebody offers or watches.
	Registrations, ServiceTypes int
	// RememberedTypes are the types of which the last events are kept, so that
	// watches can resume, though nobody offers or watches them.
	RememberedTypes int
	// Plugins are the identities of which the host knows a registration, a health, an endpoint or a watch.
	Plugins int
	// Endpoints are the plugins that the host can pass calls on to. Handlers are
	// those of them that live in the host's own process.
	Endpoints, Handlers int
	// Watches that are open.
	Watches int
	// Calls in flight that a change of policy may end, open watches among them.
	Calls int
}

// upperFloor is what stands on top of a host. It ends when the last call has, before the
// identities do.
type upperFloor interface {
	close(ctx context.Context) error
	// launches are the plugins that it launched: by runtime id, and those that are not
	// running by another key.
	launches() map[string]*adminv1.PluginInfo
	// replaceLaunched replaces a launched plugin, by the name of its launch.
	replaceLaunched(ctx context.Context, name string) error
}

// NewHost makes a host of a configuration, which it validates and copies. The
// error wraps [ErrInvalidConfig] and names the field. The services in the
// configuration belong to this host from now on. It waits for nothing but a GetCertificate of ServeConfig.TLS that takes its time, for ten
// seconds at most.
func NewHost(cfg *ServeConfig) (*Host, error) { return newHost(context.Background(), cfg) }

// newHost is NewHost that waits for a source of certificates no longer than ctx lasts.
func newHost(ctx context.Context, cfg *ServeConfig) (*Host, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	h := &Host{
		cfg: cfg.withDefaults(), drain: drain.New(), made: time.Now(), done: make(chan struct{}),
		judging: &jury.Box{Seats: maxChanges, Patience: secretIsHeld},
	}
	if err := h.setTLS(); err != nil {
		return nil, err
	}
	nameless, err := h.nameless(ctx)
	if err != nil {
		return nil, err
	}
	table, err := h.assemble()
	if err != nil {
		return nil, err
	}
	h.ingress = &ingress{hub: h.hub, tls: h.serverTLS, table: table, draining: h.draining.Load}
	h.nameFor(nil)
	h.standing = newStanding(h.hub, h.cfg.Limits, h.cfg.Authority)
	h.setServer()
	h.probes = probes.New(h.health.probes(), h.cfg.Logger)
	h.metrics = probes.New(scrapes(h.cfg.Metrics), h.cfg.Logger)
	h.setProber()
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	h.stopTasks = stop
	h.tasks.Go(func() { h.hub.store.Run(ctx) })
	h.tasks.Go(func() { h.prober.run(ctx) })
	h.tasks.Go(func() { h.standing.Run(ctx) })
	h.tasks.Go(func() { h.hub.recount(ctx) })
	h.keepCertificates(ctx)
	h.warn(nameless)
	return h, nil
}

// Addr returns the address that the host listens on, empty before it does.
func (h *Host) Addr() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.addr
}

// HealthAddr returns the address on which the host answers probes in plaintext, empty
// where it does not.
func (h *Host) HealthAddr() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.healthAddr
}

// MetricsAddr returns the address on which the host answers scrapes, empty where it does
// not.
func (h *Host) MetricsAddr() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.metricsAddr
}

// Registry returns the host's service registry.
func (h *Host) Registry() *ServiceRegistry { return h.mustBeMade().registry }

// Lifecycle returns the host's lifecycle service.
func (h *Host) Lifecycle() *LifecycleServer { return h.mustBeMade().lifecycle }

// Broker returns the host's capability broker.
func (h *Host) Broker() *CapabilityBroker { return h.mustBeMade().broker }

// Revoke ends an identity at once: its token, grants, registrations, watches and
// streams in flight. When it returns all of them have ended. It reports whether
// the identity was alive.
func (h *Host) Revoke(runtimeID string) bool {
	ended := h.mustBeMade().hub.store.Revoke(runtimeID, tokenstore.ReasonRevoked)
	h.router.cutParting(func(id *tokenstore.Identity) bool { return id.RuntimeID() == runtimeID })
	return ended
}

// Usage returns the present counts. Each is right for itself; what happens meanwhile
// may be in one and not yet in another. It looks at every identity, so ask every few
// seconds rather than with every call. It is safe for concurrent use, also after the
// end of the host.
func (h *Host) Usage() Usage {
	stats := h.mustBeMade().registry.catalog.Stats()
	u := Usage{
		Registrations: stats.Registrations, ServiceTypes: stats.Types, RememberedTypes: stats.Remembered,
		Plugins: stats.Runtimes, Watches: stats.Watches,
		Grants:   h.hub.store.GrantLen(),
		Handlers: h.router.handlerCount(), Calls: h.hub.permitted.Len(),
	}
	h.hub.store.Each(func(id *tokenstore.Identity) bool {
		u.Identities++
		if endpoint, _ := h.registry.catalog.Endpoint(id.RuntimeID()); endpoint != "" {
			u.Endpoints++
		}
		return true
	})
	return u
}

// mustBeMade returns a host that NewHost made.
func (h *Host) mustBeMade() *Host {
	mustBeMade("the Host", h != nil && h.hub != nil, "NewHost")
	return h
}

// setTLS settles both TLS sides.
func (h *Host) setTLS() error {
	if h.cfg.AllowInsecure {
		return h.cfg.validateCertificateProviders(true)
	}
	if h.cfg.TLS == nil {
		cfg, err := h.cfg.Authority.HostTLS(h.cfg.Hosts...)
		if err != nil {
			return fmt.Errorf("%w: Authority, Hosts: %w", ErrInvalidConfig, err)
		}
		h.cfg.TLS, h.certified = cfg, true
	}
	served := h.cfg.TLS
	if a := h.cfg.Authority; a != nil {
		served = demandOfClients(served, tls.NoClientCert, a.checkPeer)
	}
	hardened, err := hardenServerTLS(served)
	if err != nil {
		return err
	}
	if h.cfg.HandshakeAuth.RequireCertificate && hardened.ClientAuth < tls.VerifyClientCertIfGiven && !verifiesItself(hardened) {
		return fieldError("TLS.ClientAuth", "HandshakeAuth.RequireCertificate needs tls.VerifyClientCertIfGiven or more, and ClientCAs")
	}
	h.serverTLS = hardened
	return h.cfg.validateCertificateProviders(hardened.ClientAuth == tls.NoClientCert && !verifiesItself(hardened))
}

// keepCertificates has certificates that are about to end renewed where that is the host's
// to do, and warned of.
func (h *Host) keepCertificates(ctx context.Context) {
	var own []certs.Source
	if h.serverTLS != nil {
		own = append(own, certs.ServerSource("this host, where plugins call it", h.serverTLS))
	}
	if to := h.router.dialing(); to != nil {
		own = append(own, certs.ClientSource("this host, when it calls plugins", to))
	}
	if a := h.cfg.Authority; a != nil {
		own = append(own, a.ownSource())
		h.tasks.Go(func() { a.serve(ctx, h.cfg.Logger) })
	}
	h.tasks.Go(func() { h.hub.settings().vigil.Run(ctx, own...) })
}

// assemble settles what the host serves. A router that it could not use is free for another.
func (h *Host) assemble() (routeTable, error) {
	h.setRouter()
	h.hub = h.handshake.hub
	if !h.hub.taken.CompareAndSwap(false, true) {
		return nil, fieldError("ServiceRouter", "%v", errBoundElsewhere)
	}
	if err := h.setServices(); err != nil {
		h.hub.taken.Store(false)
		return nil, err
	}
	table, err := h.routes()
	if err != nil {
		h.hub.taken.Store(false)
	}
	return table, err
}

// setServices makes the services that are missing and binds them all to one hub.
func (h *Host) setServices() error {
	c := h.cfg
	if h.broker = c.CapabilityBroker; h.broker == nil {
		h.broker = NewCapabilityBroker("")
	}
	if h.health = c.HealthService; h.health == nil {
		h.health = NewHealthServer()
	}
	for _, s := range []struct {
		field string
		bind  func(*hub) error
	}{
		{"LifecycleService", h.lifecycle.bind},
		{"ServiceRegistry", h.registry.bind},
		{"CapabilityBroker", h.broker.bind},
		{"HealthService", h.health.bind},
	} {
		if err := s.bind(h.hub); err != nil {
			return fieldError(s.field, "%v", err)
		}
	}
	h.handshake.configure(c.settings()) // that of a router has what it was made with
	for _, name := range c.Plugins.Keys() {
		h.health.offer(name)
	}
	h.registry.configure(c.Limits)
	h.handshake.offer = &offer{hub: h.hub, plugins: h.cfg.Plugins, broker: h.broker}
	h.health.concerns = h.concerns
	dialer, err := newPluginDialer(h.hub.settings(), h.serverTLS)
	if err != nil {
		return err
	}
	h.router.configure(dialer)
	return nil
}

// setRouter takes the configured router with what it was made of, or makes one.
func (h *Host) setRouter() {
	c := h.cfg
	if h.router = c.ServiceRouter; h.router != nil {
		h.handshake, h.registry, h.lifecycle = h.router.handshake, h.router.registry, h.router.lifecycle
		return
	}
	h.handshake = NewHandshakeServer(c)
	if h.lifecycle = c.LifecycleService; h.lifecycle == nil && c.ServiceRegistry != nil {
		h.lifecycle = c.ServiceRegistry.lifecycle
	}
	if h.lifecycle == nil {
		h.lifecycle = NewLifecycleServer()
	}
	if h.registry = c.ServiceRegistry; h.registry == nil {
		h.registry = NewServiceRegistry(h.lifecycle)
	}
	h.router = NewServiceRouter(h.handshake, h.registry, h.lifecycle)
}

// farewellEvery is how often providers are told that the host is about to end: a call that was let in before that may come to one later.
const farewellEvery = time.Second

// farewell has providers end streams that could go on for ever, until it is called off.
func (h *Host) farewell() (over func()) {
	ctx, cancel := context.WithCancel(context.Background())
	h.tasks.Go(func() {
		for again := true; again; again = backoff.Wait(ctx, farewellEvery) {
			h.router.farewell()
		}
	})
	return cancel
}

// cutCalls ends the server at once.
func (h *Host) cutCalls() {
	if h.server != nil {
		_ = h.server.Close()
		return
	}
	_ = h.plain.Close()
}

// recovered turns a panic in a service into an error that tells the peer nothing.
func (h *Host) recovered(_ context.Context, spec connect.Spec, _ http.Header, cause any) error {
	h.cfg.Logger.Error("panic in a service", keyProcedure, spec.Procedure, keyError, fmt.Sprint(cause))
	return connect.NewError(connect.CodeInternal, errors.New("internal error"))
}

// Validate returns an error that wraps [ErrInvalidConfig] and names the first
// field that is wrong and what to write instead. It changes nothing.
func (c *ServeConfig) Validate() error {
	if c == nil {
		return fieldError("ServeConfig", "is nil")
	}
	for _, check := range []func() error{
		c.validateMade, c.validateTransport, c.validatePlugins, c.validateVersions, c.validateDurations,
		c.Limits.validate, c.HealthProbe.validate, c.HandshakeAuth.validate, c.Admin.validate, c.validatePolicy,
		c.validateServices,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *ServeConfig) validatePolicy() error { return c.Policy.validateFor(c.AllowInsecure) }

func (c *ServeConfig) validateTransport() error {
	secure := c.TLS != nil || c.Authority != nil
	switch {
	case c.AllowInsecure && secure:
		return fieldError("AllowInsecure", "plaintext and TLS cannot both be served; remove AllowInsecure, or TLS and Authority")
	case !secure && !c.AllowInsecure:
		return fieldError("TLS", "is required; set TLS to a *tls.Config with a certificate, or Authority to one made by NewAuthority "+
			"(AllowInsecure: true serves plaintext, for development only)")
	case c.AllowInsecure && c.HandshakeAuth.RequireCertificate:
		return fieldError("HandshakeAuth.RequireCertificate", "there are no client certificates in plaintext; remove AllowInsecure")
	}
	if c.TLS != nil {
		if _, err := hardenServerTLS(c.TLS); err != nil {
			return err
		}
	}
	return errors.Join(c.validateHosts(), c.validateAddrs())
}

func (c *ServeConfig) validatePlugins() error {
	if len(c.Plugins) > 0 {
		if err := c.Plugins.Validate(); err != nil {
			return err
		}
	}
	for _, name := range c.Plugins.Keys() {
		if c.Impls[name] == nil {
			return fmt.Errorf("%w: %w: Impls[%q]: is missing; every entry of Plugins needs one", ErrInvalidConfig, ErrInvalidPluginImpl, name)
		}
	}
	for name := range c.Impls {
		if _, ok := c.Plugins.Get(name); !ok {
			return fieldError(fmt.Sprintf("Impls[%q]", name),
				"there is no entry of that name in Plugins, which has %q; write one of them, or remove it", c.Plugins.Keys())
		}
	}
	if err := ValidateMetadata(c.ServerMetadata); err != nil {
		return fieldError("ServerMetadata", "%v", err)
	}
	for i, name := range c.PassMetadata {
		if err := headers.CheckName(name); err != nil {
			return fieldError(fmt.Sprintf("PassMetadata[%d]", i), "%v; see docs/metadata.md for what can be added", err)
		}
	}
	return c.validateProviders()
}

func (c *ServeConfig) validateVersions() error {
	highest := cmp.Or(c.ProtocolVersion, defaultProtocolVersion)
	err := checkVersions(
		appVersion{"ProtocolVersion", c.ProtocolVersion}, appVersion{"MinProtocolVersion", c.MinProtocolVersion},
		appVersion{"DeprecatedBelow", c.DeprecatedBelow},
	)
	switch {
	case err != nil:
		return err
	case c.MinProtocolVersion > highest:
		return fieldError("MinProtocolVersion", "must lie between 1 and ProtocolVersion (%d)", highest)
	case c.DeprecatedBelow > highest:
		return fieldError("DeprecatedBelow", "must lie between 0 and ProtocolVersion (%d)", highest)
	}
	return checkCookie(c.MagicCookieKey, c.MagicCookieValue)
}

// leastTTL is the least life of what plugins have to renew: it has to reach them, and be used, before it ends.
const leastTTL = time.Second

func (c *ServeConfig) validateDurations() error {
	for _, err := range []error{
		checkDuration("GracefulShutdownTimeout", c.GracefulShutdownTimeout, leastDuration),
		checkDuration("RuntimeTokenTTL", c.RuntimeTokenTTL, leastTTL),
		checkDuration("CapabilityGrantTTL", c.CapabilityGrantTTL, leastTTL),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// validateServices refuses services that belong to different hosts, and a broker that
// holds what cannot be offered.
func (c *ServeConfig) validateServices() error {
	if c.RateLimiter != nil && isNil(c.RateLimiter) {
		return fieldError("RateLimiter", isTypedNil)
	}
	if c.Observer != nil && isNil(c.Observer) {
		return fieldError("Observer", isTypedNil)
	}
	if err := checkInterceptors(c.Interceptors); err != nil {
		return err
	}
	if c.CapabilityBroker != nil {
		if err := c.CapabilityBroker.check(); err != nil {
			return err
		}
	}
	if c.ServiceRouter == nil {
		return nil
	}
	if c.ServiceRegistry != nil && c.ServiceRegistry != c.ServiceRouter.registry {
		return fieldError("ServiceRegistry", "is not the one that ServiceRouter was made with")
	}
	if c.LifecycleService != nil && c.LifecycleService != c.ServiceRouter.lifecycle {
		return fieldError("LifecycleService", "is not the one that ServiceRouter was made with")
	}
	return nil
}

package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// ServiceRouter passes calls from plugin to plugin:
// /services/{type}/{provider}/… to the provider that registered the type. It is
// safe for concurrent use.
type ServiceRouter struct {
	// Fixed at creation.
	handshake *HandshakeServer
	registry  *ServiceRegistry
	lifecycle *LifecycleServer
	catalog   *catalog.Catalog
	guard     *guarded

	mu        sync.Mutex
	dialer    *pluginDialer
	providers map[string]*routedProvider // by runtime id
	closed    bool
}

// routedProvider is the pool of connections to one plugin.
type routedProvider struct {
	endpoint string
	pool     *proxy.Provider
}

// NewServiceRouter makes a router and binds the three services to one token
// store, that of the handshake server. Nil services are made.
func NewServiceRouter(handshake *HandshakeServer, registry *ServiceRegistry, lifecycle *LifecycleServer) *ServiceRouter {
	if handshake == nil {
		handshake = NewHandshakeServer(nil)
	}
	if registry == nil {
		registry = NewServiceRegistry(lifecycle)
	}
	if lifecycle == nil {
		lifecycle = registry.lifecycle
	}
	s := &ServiceRouter{
		handshake: handshake, registry: registry, lifecycle: lifecycle, catalog: registry.catalog,
		providers: map[string]*routedProvider{},
	}
	s.guard = &guarded{
		hub: func() *hub { return handshake.hub }, access: accessCaller, next: http.HandlerFunc(s.route),
	}
	// A service that belongs to another host already stays with it; NewHost
	// reports that as an error.
	_ = registry.bind(handshake.hub)
	_ = lifecycle.bind(handshake.hub)
	handshake.hub.store.Subscribe(func(e tokenstore.End) { s.forget(e.Identity.RuntimeID()) })
	return s
}

// RegisterPluginEndpoint sets where a plugin is dialled. It is the host's own
// decision: nothing is asked of policy, and an endpoint that is no base URL makes
// calls to the plugin fail.
func (s *ServiceRouter) RegisterPluginEndpoint(runtimeID string, endpoint string) {
	s.catalog.SetEndpoint(runtimeID, endpoint)
}

// ServeHTTP routes one call of an authenticated caller. It is for a server of
// your own; a host serves it at /services/.
func (s *ServiceRouter) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	s.guard.ServeHTTP(w, req)
}

// configure settles how plugins are dialled.
func (s *ServiceRouter) configure(d *pluginDialer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialer = d
}

// route routes one call whose caller the middleware identified.
func (s *ServiceRouter) route(w http.ResponseWriter, r *http.Request) {
	c, ok := callerFrom(r.Context())
	if !ok {
		refuse(w, r, connect.CodeUnauthenticated, errUnauthenticated)
		return
	}
	book := c.hub.rules.Load()
	target, reason := s.find(c, r)
	release, allowed := func() {}, false
	if reason == "" {
		reason = "policy changed"
		release, allowed = c.hub.hold(c.call, permission(book, c, target.reg))
	}
	if !allowed {
		c.hub.auditCall(r.Context(), AuditDenied, r.URL.Path, target.route.Type, reason)
		refuse(w, r, connect.CodeNotFound, errNotAvailable)
		return
	}
	defer release()
	pool, err := s.provider(c.hub, target.reg)
	if err != nil {
		c.hub.log().Warn("no connection to a provider", keyService, target.reg.Type,
			keyRuntimeID, target.reg.RuntimeID, keyError, err)
		refuse(w, r, connect.CodeUnavailable, errNotAvailable)
		return
	}
	result := pool.Forward(w, r, proxy.Call{Path: target.path, CallerID: c.id.RuntimeID(), Ending: ending})
	s.settle(w, r, c, target.reg, result)
}

// permission says until when policy lets a call go on that began under book: while
// its caller may make it and its provider may provide the type. A provider that the
// host registered itself, against the policy, may.
func permission(book *ruleBook, c *caller, reg catalog.Registration) func(*ruleBook) bool {
	provider, ok := c.hub.store.Lookup(reg.RuntimeID)
	bound := ok && book.mayProvide(provider, reg.Type)
	return func(b *ruleBook) bool {
		return b.mayRequire(c.id, reg.Type) && (!bound || b.mayProvide(provider, reg.Type))
	}
}

// routeTarget is where a call goes.
type routeTarget struct {
	route proxy.Route
	reg   catalog.Registration
	path  string
}

// find finds the target of a call. Unknown and forbidden targets look alike to
// the caller; the reason is for the log.
func (s *ServiceRouter) find(c *caller, r *http.Request) (routeTarget, string) {
	route, err := proxy.ParseRoute(r.URL)
	if err != nil {
		return routeTarget{}, err.Error()
	}
	t := routeTarget{route: route}
	if !c.hub.mayRequire(c.id, route.Type) {
		return t, "not declared or not allowed by policy"
	}
	reg, ok := s.catalog.Provider(route.Type, route.Provider)
	if !ok {
		return t, "no such provider of the type"
	}
	t.reg = reg
	if t.path, err = proxy.JoinPath(reg.Path, route.Rest); err != nil {
		return t, err.Error()
	}
	if strings.HasPrefix(t.path, pathControl) || strings.HasPrefix(t.path, pathIdentity) {
		return t, "only the host calls a plugin's control services"
	}
	return t, ""
}

var (
	errNoEndpoint = errors.New("no endpoint: set PluginPolicy.Endpoint, or AllowOwnAddress so that the plugin names it")
	errUnhealthy  = errors.New("the provider reported to be unhealthy")
	errNotServing = errors.New("the router belongs to no host, or the host is closed")
)

// provider returns the pool of a plugin, and makes it on the first call and when
// the plugin's endpoint changed.
func (s *ServiceRouter) provider(h *hub, reg catalog.Registration) (*proxy.Provider, error) {
	if !s.lifecycle.ShouldRouteTraffic(reg.RuntimeID) {
		return nil, errUnhealthy
	}
	return s.pool(h, reg.RuntimeID)
}

// pool returns the pool of a plugin, whatever its health.
func (s *ServiceRouter) pool(h *hub, runtimeID string) (*proxy.Provider, error) {
	endpoint, _ := s.catalog.Endpoint(runtimeID)
	if endpoint == "" {
		return nil, errNoEndpoint
	}
	s.mu.Lock()
	p, stale, err := s.providerLocked(h, runtimeID, endpoint)
	s.mu.Unlock()
	if stale != nil {
		stale.Close()
	}
	return p, err
}

func (s *ServiceRouter) providerLocked(h *hub, runtimeID, endpoint string) (p, stale *proxy.Provider, err error) {
	if s.closed || s.dialer == nil {
		return nil, nil, errNotServing
	}
	if rp := s.providers[runtimeID]; rp != nil {
		if rp.endpoint == endpoint {
			return rp.pool, nil, nil
		}
		stale = rp.pool
		delete(s.providers, runtimeID)
	}
	id, ok := h.store.Lookup(runtimeID)
	if !ok {
		return nil, stale, fmt.Errorf("runtime id %q has no identity", runtimeID)
	}
	pool, err := s.dialer.pool(h, id, endpoint)
	if err != nil {
		return nil, stale, err
	}
	s.providers[runtimeID] = &routedProvider{endpoint: endpoint, pool: pool}
	if id.Ended() { // while the pool was being made; nobody else will close it
		delete(s.providers, runtimeID)
		return nil, pool, errNoEndpoint
	}
	return pool, stale, nil
}

// forget ends what goes through to a plugin whose identity ended.
func (s *ServiceRouter) forget(runtimeID string) {
	s.mu.Lock()
	rp := s.providers[runtimeID]
	delete(s.providers, runtimeID)
	s.mu.Unlock()
	if rp != nil {
		rp.pool.Close()
	}
}

// close ends everything that goes through.
func (s *ServiceRouter) close() {
	s.mu.Lock()
	providers := s.providers
	s.providers, s.closed = map[string]*routedProvider{}, true
	s.mu.Unlock()
	for _, rp := range providers {
		rp.pool.Close()
	}
}

// settle answers a call that was not answered, and reports how the provider did.
func (s *ServiceRouter) settle(w http.ResponseWriter, r *http.Request, c *caller, reg catalog.Registration, result proxy.Result) {
	logCall(r, c, reg, result)
	switch result.Class {
	case proxy.ClassOK:
		s.catalog.Report(reg.Type, reg.RuntimeID, true, result.Latency)
	case proxy.ClassUnavailable, proxy.ClassReset, proxy.ClassResponse, proxy.ClassIdle:
		s.catalog.Report(reg.Type, reg.RuntimeID, false, result.Latency)
		c.hub.log().Warn("a routed call failed", keyService, reg.Type, keyRuntimeID, reg.RuntimeID,
			keyReason, result.Class.String(), keyError, result.Err)
	case proxy.ClassRefused:
		c.hub.auditCall(r.Context(), AuditDenied, r.URL.Path, reg.Type, result.Err.Error())
	case proxy.ClassCanceled:
	}
	switch {
	case result.Written:
	case errors.Is(result.Err, proxy.ErrMethod) && r.Method != http.MethodGet:
		// No protocol of RPCs has a form for it.
		w.Header().Set("Allow", "GET, POST")
		w.WriteHeader(http.StatusMethodNotAllowed)
	default:
		code, err := outcomeOf(r.Context(), result)
		refuse(w, r, code, err)
	}
}

// logCall records a call that was passed on, for whoever looks at single calls.
func logCall(r *http.Request, c *caller, reg catalog.Registration, result proxy.Result) {
	log := c.hub.log()
	if !log.Enabled(r.Context(), slog.LevelDebug) {
		return
	}
	log.LogAttrs(r.Context(), slog.LevelDebug, "routed call",
		slog.String(keyProcedure, r.URL.Path), slog.String(keyRuntimeID, c.id.RuntimeID()),
		slog.String(keyService, reg.Type), slog.String(keyProvider, reg.RuntimeID),
		slog.String(keyOutcome, result.Class.String()), slog.Int(keyStatus, result.Status),
		slog.Duration(keyLatency, result.Latency))
}

// ending states how a broken stream ends for the caller.
func ending(class proxy.Class, err error) (proxy.Status, bool) {
	code, text := classify(class, err)
	return proxy.Status{Code: uint32(code), Name: code.String(), Message: text.Error()}, true
}

func outcomeOf(ctx context.Context, result proxy.Result) (connect.Code, error) {
	if result.Class == proxy.ClassCanceled {
		return classify(result.Class, context.Cause(ctx))
	}
	return classify(result.Class, result.Err)
}

// classify says what the caller learns of a call that failed.
func classify(class proxy.Class, err error) (connect.Code, error) {
	switch class {
	case proxy.ClassRefused:
		return connect.CodeUnimplemented, errNotAvailable
	case proxy.ClassIdle:
		return connect.CodeDeadlineExceeded, errIdle
	case proxy.ClassCanceled:
		switch {
		case errors.Is(err, errIdentityEnded):
			return connect.CodeUnauthenticated, errIdentityEnded
		case errors.Is(err, errWithdrawn):
			return connect.CodeNotFound, errNotAvailable
		case errors.Is(err, errShuttingDown):
			return connect.CodeUnavailable, errShuttingDown
		case errors.Is(err, context.DeadlineExceeded):
			return connect.CodeDeadlineExceeded, context.DeadlineExceeded
		}
		return connect.CodeCanceled, context.Canceled
	case proxy.ClassOK, proxy.ClassUnavailable, proxy.ClassReset, proxy.ClassResponse:
	}
	return connect.CodeUnavailable, errNotAvailable
}

package connectplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// routes builds the host's route table of what each service brings.
func (h *Host) routes() (routeTable, error) {
	operators := h.handlerOptions()
	opts := append(slices.Clip(operators), h.cfg.Limits.fields(exceededField), counting(&messageFields))
	if len(h.cfg.Interceptors) == 0 {
		h.registry.rests(h.recovered, h.cfg.Limits.messages())
	}
	routes := slices.Concat(
		h.handshake.routes(opts...), h.lifecycle.routes(opts...), h.registry.routes(opts...), h.broker.routes(opts...),
		h.health.routes(opts...), h.router.routes(), h.adminRoutes(operators...),
	)
	for i := range routes {
		if rt := &routes[i]; rt.unary != nil {
			rt.bound = cmp.Or(rt.bound, tooLargeMessage)
		}
	}
	for _, name := range h.cfg.Plugins.Keys() {
		rt, err := hostPluginRoute(name, h.cfg.Plugins[name], h.cfg.Impls[name], h.cfg.Limits)
		if err != nil {
			return nil, err
		}
		routes = append(routes, rt)
	}
	return newRouteTable(func() *hub { return h.hub }, routes)
}

// handlerOptions bound every message of the host's services and put the
// configured interceptors around them.
func (h *Host) handlerOptions() []connect.HandlerOption {
	return []connect.HandlerOption{
		h.cfg.Limits.messages(),
		connect.WithInterceptors(arrivals{}),
		connect.WithInterceptors(h.cfg.Interceptors...),
		connect.WithRecover(h.recovered),
	}
}

// hostPlugin is the name of one of the host's own plugin services.
type hostPlugin string

// hostPluginRoute mounts an implementation of a plugin.
func hostPluginRoute(name string, p Plugin, impl any, l Limits) (route, error) {
	path, handler, err := p.ConnectServer(impl)
	field := fmt.Sprintf("Plugins[%q]", name)
	switch {
	case err != nil:
		return route{}, fmt.Errorf("%w: %w: %s: %w", ErrInvalidConfig, ErrInvalidPluginImpl, field, err)
	case isNil(handler):
		return route{}, fmt.Errorf("%w: %w: %s: ConnectServer returned no handler", ErrInvalidConfig, ErrInvalidPluginImpl, field)
	}
	path = servicePath(path)
	if err := ValidateEndpointPath(path); err != nil || !strings.HasSuffix(path, "/") || path == "/" {
		return route{}, fieldError(field,
			"ConnectServer returned path %q; it must be clean, start and end with a slash, and not be the root", path)
	}
	return route{
		prefix: path, subject: name, identify: observed(hostPlugin(name).identify), reads: true,
		next: http.MaxBytesHandler(swellBounded(handler, &l), l.MaxCallBytes),
	}, nil
}

// identify admits a plugin that policy lets call, whoever an auth provider knows,
// and everybody where the host's plugin is public.
func (n hostPlugin) identify(ctx context.Context, h *hub, p *peer, r *http.Request) (context.Context, admission, *denial) {
	setCallerHeader(r.Header, nil)
	if !claimsIdentity(r.Header) {
		return n.identifyStranger(ctx, h, p, r)
	}
	ctx, c, no := h.authenticate(ctx, p, r)
	if no != nil {
		return ctx, admission{}, no
	}
	if !h.mayCallHostPlugin(c.id, string(n)) {
		return ctx, admission{}, h.hide(c.id, RightHostPlugins, string(n))
	}
	setCallerHeader(r.Header, c.id)
	ctx = WithAuthContext(ctx, &AuthContext{
		Identity: c.id.SelfID(), Provider: "runtime-token",
		Claims: map[string]string{"runtime_id": c.id.RuntimeID()},
	})
	allowed := func(b *policy.Book) bool { return b.MayCallHostPlugin(subjectOf(c.id), string(n)) }
	return ctx, admission{caller: c, budget: h.requestBudget(c), allowed: allowed}, nil
}

// identifyStranger admits a caller without a runtime identity. A plugin is none, though
// it leaves its runtime identity out.
func (n hostPlugin) identifyStranger(ctx context.Context, h *hub, p *peer, r *http.Request) (context.Context, admission, *denial) {
	if h.rules.Load().Public.Has(string(n)) {
		public := func(b *policy.Book) bool { return b.Public.Has(string(n)) }
		return ctx, admission{budget: h.strangerBudget(ctx, p), allowed: public}, nil
	}
	ctx, no := askProviders(ctx, h, p, newHeaderRequest(connect.Spec{Procedure: r.URL.Path}, connect.Peer{Addr: r.RemoteAddr}, r.Header))
	if no != nil {
		return ctx, admission{}, no
	}
	allowed := func(b *policy.Book) bool { return !h.isPlugin(b, p.certificate) }
	return ctx, admission{budget: h.strangerBudget(ctx, p), allowed: allowed}, nil
}

// warnHostPlugins warns of names in a policy that no plugin of this host has.
func (h *Host) warnHostPlugins(p *Policy) {
	unknown := p.unknownHostPlugins(func(name string) bool {
		switch name {
		case AdminRead:
			return h.cfg.Admin != nil
		case AdminChange:
			return h.cfg.Admin != nil && !h.cfg.Admin.ReadOnly
		}
		return slices.Contains(h.cfg.Plugins.Keys(), name)
	})
	if p != nil {
		for i, name := range p.Public {
			if name != policy.Any && name != publicHealth && !slices.Contains(h.cfg.Plugins.Keys(), name) {
				unknown = append(unknown, fmt.Sprintf("Policy.Public[%d]: %q", i, name))
			}
		}
		for endpoint, names := range p.sharedEndpoints() {
			h.cfg.Logger.Warn("policy has one Endpoint for several plugins, of which one at most answers there: write one for each",
				keyEndpoint, endpoint, keySubject, names)
		}
	}
	if len(unknown) > 0 {
		h.cfg.Logger.Warn("policy names plugins of the host that it does not have: write keys of ServeConfig.Plugins, "+
			"or set ServeConfig.Admin for its services", keySubject, unknown)
	}
}

// sharedEndpoints are those that a policy names for several plugins, with their names.
func (p *Policy) sharedEndpoints() map[string][]string {
	shared := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(p.Plugins)) {
		if u, err := parseHostURL(p.Plugins[name].Endpoint, true); err == nil {
			shared[u.String()] = append(shared[u.String()], name)
		}
	}
	maps.DeleteFunc(shared, func(_ string, names []string) bool { return len(names) == 1 })
	return shared
}

// concerns reports whether the name of a service is that of one of the host's plugins that
// a plugin may call, or of a capability that it may be granted; where there is no plugin, of one that
// everybody may call. A plugin goes by its name or by that of the service that it serves.
func (h *Host) concerns(b *policy.Book, s *policy.Subject, service string) bool {
	if _, ok := h.broker.lookup(service); ok && s != nil && b.MayUse(*s, service) {
		return true
	}
	for _, name := range h.cfg.Plugins.Keys() {
		path := h.cfg.Plugins[name].Metadata().Path
		if (service == name || service == strings.Trim(path, "/")) && (b.Public.Has(name) || s != nil && b.MayCallHostPlugin(*s, name)) {
			return true
		}
	}
	return false
}

// noticed takes notice of a plugin in whose place another process answers, and returns how it answered.
func noticed(id *tokenstore.Identity, err error) error {
	switch known := declared(id).adopted; {
	case err == nil:
		known.met()
	case errors.Is(err, errElsewhere):
		known.miss()
	}
	return err
}

// nameless says why the names of the host are not known, empty where they are.
func (h *Host) nameless(ctx context.Context) (string, error) {
	if len(h.cfg.Hosts) > 0 {
		return "", nil
	}
	return askInTime(ctx, h.cfg.Logger, func() string { return namesMissing(h.serverTLS) })
}

// warn tells the operator what is dangerous or useless about the configuration.
func (h *Host) warn(nameless string) {
	warnConfig(h.hub.settings())
	h.warnHostPlugins(h.cfg.Policy)
	if len(h.cfg.AuthProviders) > 0 && len(h.cfg.Plugins) == 0 {
		h.cfg.Logger.Warn("AuthProviders let nobody call anything: they say who calls the host's own plugin services, and this host has none; " +
			"add services to ServeConfig.Plugins, or remove AuthProviders (plugins prove themselves as ServeConfig.Policy and HandshakeAuth say)")
	}
	if nameless != "" {
		h.cfg.Logger.Warn("the names of this host are not known: " + nameless +
			"; set ServeConfig.Hosts to the names and addresses under which plugins reach it")
	}
}

// Handler returns the host's handler, for a server of your own. That server must serve TLS 1.3 and HTTP/2, and ask for
// client certificates where policy needs them: the configuration of [Authority.HostTLS] does. [Host.Serve] does all that.
//
// It may be mounted below a path, with [http.StripPrefix]; the HostURL of plugins ends in that path. The host does not
// know where the server listens: [PluginConfig].HostURL and [PluginSpec].HostURL say it for plugins that the host adopts
// or launches, and Hosts where the names are not those of its TLS.
//
// To end it, call [Host.Shutdown] and then [http.Server.Shutdown], which by itself waits for the watches of all plugins
// until its context ends.
//
// The server has to bound as well what comes before a request, as no field of [Limits] does there: connections, frames
// and the time of a TLS handshake, and what a client shows in it. [Host.Serve] verifies no chain of more than 10
// certificates or 64 KiB; crypto/tls tries up to 100 signatures for one, which a stranger chooses, and asks
// VerifyPeerCertificate only after that.
//
// Nothing listens on HealthAddr and MetricsAddr where [Host.Serve] is not called, which the log warns of: answer probes
// with [HTTPHealthHandler], and scrapes with Metrics, at an address of your own.
func (h *Host) Handler() http.Handler {
	h = h.mustBeMade()
	if h.cfg.HealthAddr == "" && h.cfg.MetricsAddr == "" {
		return h.ingress
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.aside.Do(h.warnAside)
		h.ingress.ServeHTTP(w, r)
	})
}

// warnAside says which addresses a host is to answer on beside plugins though nobody has it listen there: a probe that
// finds nobody says no more than that the connection was refused.
func (h *Host) warnAside() {
	h.mu.Lock()
	probed, scraped := h.healthAddr, h.metricsAddr
	h.mu.Unlock()
	if h.cfg.HealthAddr != "" && probed == "" {
		h.cfg.Logger.Warn("HealthAddr: nobody listens there, since Host.Serve was not called, and the host is on a server of your own; " +
			"answer probes with HTTPHealthHandler(ServeConfig.HealthService) at an address of that program's own, and remove HealthAddr")
	}
	if h.cfg.MetricsAddr != "" && scraped == "" {
		h.cfg.Logger.Warn("MetricsAddr: nobody listens there, since Host.Serve was not called, and the host is on a server of your own; " +
			"serve the handler in ServeConfig.Metrics at an address of that program's own, and remove MetricsAddr and Metrics")
	}
}

// validateMade refuses zero values of what only their constructors make.
func (c *ServeConfig) validateMade() error {
	switch {
	case c.Authority != nil && c.Authority.ca == nil:
		return fieldError("Authority", aZeroValue, "NewAuthority or LoadAuthority")
	case c.ServiceRegistry != nil && c.ServiceRegistry.catalog == nil:
		return fieldError("ServiceRegistry", aZeroValue, "NewServiceRegistry")
	case c.ServiceRouter != nil && c.ServiceRouter.handshake == nil:
		return fieldError("ServiceRouter", aZeroValue, "NewServiceRouter")
	case c.LifecycleService != nil && c.LifecycleService.catalog == nil:
		return fieldError("LifecycleService", aZeroValue, "NewLifecycleServer")
	case c.HealthService != nil && c.HealthService.changed == nil:
		return fieldError("HealthService", aZeroValue, "NewHealthServer")
	case c.CapabilityBroker != nil && c.CapabilityBroker.own == nil:
		return fieldError("CapabilityBroker", aZeroValue, "NewCapabilityBroker")
	}
	return nil
}

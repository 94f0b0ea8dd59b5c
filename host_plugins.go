package connectplugin

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"connectrpc.com/connect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// routes builds the host's route table of what each service brings.
func (h *Host) routes() (routeTable, error) {
	opts := h.handlerOptions()
	routes := slices.Concat(
		h.handshake.routes(opts...), h.lifecycle.routes(opts...), h.registry.routes(opts...), h.broker.routes(opts...),
		h.health.routes(opts...), h.router.routes(), h.adminRoutes(opts...),
	)
	for _, name := range h.cfg.Plugins.Keys() {
		rt, err := hostPluginRoute(name, h.cfg.Plugins[name], h.cfg.Impls[name], h.cfg.Limits.MaxCallBytes)
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
		boundedMessages(h.cfg.Limits.MaxMessageBytes),
		connect.WithInterceptors(h.cfg.Interceptors...),
		connect.WithRecover(h.recovered),
	}
}

// hostPlugin is the name of one of the host's own plugin services.
type hostPlugin string

// hostPluginRoute mounts an implementation of a plugin.
func hostPluginRoute(name string, p Plugin, impl any, maxBody int64) (route, error) {
	path, handler, err := p.ConnectServer(impl)
	field := fmt.Sprintf("Plugins[%q]", name)
	switch {
	case err != nil:
		return route{}, fmt.Errorf("%w: %w: %s: %w", ErrInvalidConfig, ErrInvalidPluginImpl, field, err)
	case handler == nil:
		return route{}, fmt.Errorf("%w: %w: %s: ConnectServer returned no handler", ErrInvalidConfig, ErrInvalidPluginImpl, field)
	}
	path = servicePath(path)
	if err := ValidateEndpointPath(path); err != nil || !strings.HasSuffix(path, "/") || path == "/" {
		return route{}, fieldError(field,
			"ConnectServer returned path %q; it must be clean, start and end with a slash, and not be the root", path)
	}
	return route{
		prefix: path, subject: name, identify: observed(hostPlugin(name).identify), reads: true,
		next: http.MaxBytesHandler(handler, maxBody),
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
		return ctx, admission{}, &denial{AuditDenied, connect.CodePermissionDenied, errDenied, "", "host plugin not allowed by policy"}
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

// listing tells a plugin which of the host's plugins and capabilities are there
// for it: those that it asked for (all where it asked for none) and policy lets
// it use. Whoever is no plugin learns of what is public and, where an auth provider
// knows him, of what he may call.
func (h *Host) listing(ctx context.Context, id *tokenstore.Identity, requested []string) listing {
	l := listing{known: id != nil || GetAuthContext(ctx) != nil}
	for _, name := range h.cfg.Plugins.Keys() {
		if len(requested) > 0 && !slices.Contains(requested, name) {
			continue
		}
		if h.listsPlugin(id, l.known, name) {
			l.plugins = append(l.plugins, pluginInfo(name, h.cfg.Plugins[name].Metadata()))
		}
	}
	if id == nil {
		return l
	}
	for _, c := range h.broker.ListCapabilities() {
		if h.hub.mayUse(id, c.GetType()) {
			c.Endpoint = h.broker.base(ctx)
			l.capabilities = append(l.capabilities, c)
		}
	}
	return l
}

func (h *Host) listsPlugin(id *tokenstore.Identity, known bool, name string) bool {
	switch {
	case h.hub.rules.Load().Public.Has(name):
		return true
	case id != nil:
		return h.hub.mayCallHostPlugin(id, name)
	}
	return known
}

// concerns reports whether the name of a service is that of one of the host's plugins that
// a plugin may call, or of a capability that it may be granted. A plugin goes by its name
// or by that of the service that it serves.
func (h *Host) concerns(b *policy.Book, s policy.Subject, service string) bool {
	if _, ok := h.broker.lookup(service); ok && b.MayUse(s, service) {
		return true
	}
	for _, name := range h.cfg.Plugins.Keys() {
		path := h.cfg.Plugins[name].Metadata().Path
		if (service == name || service == strings.Trim(path, "/")) && (b.Public.Has(name) || b.MayCallHostPlugin(s, name)) {
			return true
		}
	}
	return false
}

func pluginInfo(name string, m PluginMetadata) *connectpluginv1.PluginInfo {
	info := &connectpluginv1.PluginInfo{Name: name, Version: m.Version, ServicePath: m.Path}
	info.Provides, info.Requires = wireDeclarations(m.Provides), wireDependencies(m.Requires)
	return info
}

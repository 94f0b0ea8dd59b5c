package connectplugin

import (
	"slices"

	"connectrpc.com/connect"
)

// routes builds the host's route table of what each service brings.
func (h *Host) routes() (routeTable, error) {
	opts := h.handlerOptions()
	routes := slices.Concat(
		h.handshake.routes(opts...), h.lifecycle.routes(opts...), h.registry.routes(opts...), h.broker.routes(opts...),
		h.health.routes(opts...), h.router.routes(),
	)
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
		connect.WithInterceptors(h.cfg.Interceptors...),
		connect.WithRecover(h.recovered),
	}
}

package connectplugin

import "github.com/masegraye/connect-plugin-go/internal/tokenstore"

// Usage counts what a host holds at one moment, for its operator's metrics. Most of
// the counts have a bound in [Limits]. On a host where nothing happens, a count that
// grows is a leak.
type Usage struct {
	// Identities that are alive, and the capability grants that they hold.
	Identities, Grants int
	// Registrations of services, and the types that somebody offers or watches.
	Registrations, ServiceTypes int
	// RememberedTypes are the types of which the last events are kept, so that
	// watches can resume, though nobody offers or watches them.
	RememberedTypes int
	// Plugins are the identities of which the host knows a registration, a health,
	// an endpoint or a watch.
	Plugins int
	// Endpoints are the plugins that the host can pass calls on to. Handlers are
	// those of them that live in the host's own process.
	Endpoints, Handlers int
	// Watches that are open.
	Watches int
	// Calls in flight that a change of policy may end, open watches among them.
	Calls int
}

// Usage returns the present counts. Each is right for itself; what happens meanwhile
// may be in one and not yet in another. It looks at every identity, so ask every few
// seconds rather than with every call. It is safe for concurrent use, also after the
// end of the host.
func (h *Host) Usage() Usage {
	stats := h.registry.catalog.Stats()
	u := Usage{
		Registrations: stats.Registrations, ServiceTypes: stats.Types, RememberedTypes: stats.Remembered,
		Plugins: stats.Runtimes, Watches: stats.Watches,
		Handlers: h.router.handlerCount(), Calls: h.hub.permitted.Len(),
	}
	h.hub.store.Each(func(id *tokenstore.Identity) bool {
		u.Identities++
		u.Grants += len(h.hub.store.Grants(id.RuntimeID()))
		if endpoint, _ := h.registry.catalog.Endpoint(id.RuntimeID()); endpoint != "" {
			u.Endpoints++
		}
		return true
	})
	return u
}

// handlerCount counts the plugins in the host's own process.
func (s *ServiceRouter) handlerCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.handlers)
}

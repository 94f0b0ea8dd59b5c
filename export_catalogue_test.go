package connectplugin

import (
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

// What tests of the package look at from outside.

// LiveGrants counts the live grants of an identity.
func LiveGrants(h *Host, runtimeID string) int { return len(h.hub.store.Grants(runtimeID)) }

// LiveIdentities counts the live identities.
func LiveIdentities(h *Host) int { return h.hub.store.Len() }

// ExpireUntil ends what has expired by the time at which an identity does, as if
// it were that time: those that were issued or renewed before it, and itself.
func ExpireUntil(h *Host, runtimeID string) int {
	id, ok := h.hub.store.Lookup(runtimeID)
	if !ok {
		return 0
	}
	return h.hub.store.Sweep(id.ExpiresAt())
}

// OpenWatches counts the open watches.
func OpenWatches(h *Host) int { return h.registry.catalog.Watches() }

// OpenCalls counts the calls in flight that a change of policy may end.
func OpenCalls(h *Host) int { return h.hub.permitted.Len() }

// CatalogueOf counts what the host's catalogue holds.
func CatalogueOf(h *Host) catalog.Stats { return h.registry.catalog.Stats() }

// DialledAt is where the host dials a plugin.
func DialledAt(h *Host, runtimeID string) string {
	endpoint, _ := h.registry.catalog.Endpoint(runtimeID)
	return endpoint
}

// WatchedBy returns what a watcher yields of streams, each after the one before
// broke.
func WatchedBy(streams [][]*connectpluginv1.WatchServiceEvent) []*ServiceEvent {
	var out []*ServiceEvent
	w := &serviceWatch{}
	for _, stream := range streams {
		for _, m := range stream {
			if w.isNew(m) {
				out = append(out, serviceEvent(m))
			}
		}
	}
	return out
}

// RoutedHandlers counts the handlers that a router knows.
func RoutedHandlers(s *ServiceRouter) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.handlers)
}

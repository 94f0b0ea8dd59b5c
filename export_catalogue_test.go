package connectplugin

// What tests of the package look at from outside.

// LiveGrants counts the live grants of an identity.
func LiveGrants(h *Host, runtimeID string) int { return len(h.hub.store.Grants(runtimeID)) }

// LiveIdentities counts the live identities.
func LiveIdentities(h *Host) int { return h.hub.store.Len() }

// OpenWatches counts the open watches.
func OpenWatches(h *Host) int { return h.registry.catalog.Watches() }

// DialledAt is where the host dials a plugin.
func DialledAt(h *Host, runtimeID string) string {
	endpoint, _ := h.registry.catalog.Endpoint(runtimeID)
	return endpoint
}

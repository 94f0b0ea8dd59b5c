package connectplugin

// What tests of the package look at from outside.

// LiveGrants counts the live grants of an identity.
func LiveGrants(h *Host, runtimeID string) int { return len(h.hub.store.Grants(runtimeID)) }

// DialledAt is where the host dials a plugin.
func DialledAt(h *Host, runtimeID string) string {
	endpoint, _ := h.registry.catalog.Endpoint(runtimeID)
	return endpoint
}

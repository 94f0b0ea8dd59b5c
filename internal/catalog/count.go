package catalog

// Providers returns the number of registrations of a type, of whatever health.
func (c *Catalog) Providers(serviceType string) int {
	c.mu.RLock()
	defer c.mu.RUnlock()

	if s := c.services[serviceType]; s != nil {
		return s.roster.live
	}

	return 0
}

package catalog

import "time"

// SetHealth takes a runtime's report, whether or not it offers anything. The
// report stays until the next one or until [Catalog.RemoveRuntime].
func (c *Catalog) SetHealth(runtimeID string, report HealthReport) {
	report = report.clone()

	_ = c.transition(func(t *transition) error {
		if report.At.IsZero() {
			report.At = t.now
		}

		rt := c.runtimeLocked(runtimeID)
		before := rt.currentHealth()
		rt.health = &report

		if before == report.Health {
			return nil
		}

		t.changes = append(t.changes, Change{Kind: ChangeHealth, RuntimeID: runtimeID, Health: report.Health})

		for _, e := range rt.entries {
			e.health = report.Health
			t.reseat(e)
		}

		return nil
	})
}

// SetEndpoint notes where the host reaches a runtime, until
// [Catalog.RemoveRuntime]. An empty endpoint is one, too: see [Catalog.Endpoint].
// Nobody owns an endpoint because of it, see [Catalog.ClaimEndpoint].
func (c *Catalog) SetEndpoint(runtimeID, endpoint string) {
	_ = c.transition(func(*transition) error {
		rt := c.runtimeLocked(runtimeID)
		rt.endpoint, rt.hasEndpoint = endpoint, true
		c.ledger.release(runtimeID)

		return nil
	})
}

// Report takes the result of one routed call: whether the provider served it and
// how long it took, of which failures and latencies make weights and outliers.
// Results of a provider that is gone are ignored.
func (c *Catalog) Report(serviceType, runtimeID string, ok bool, latency time.Duration) {
	if ok {
		c.succeeded(providerKey{serviceType, runtimeID}, latency)
		return
	}

	_ = c.transition(func(t *transition) error {
		e := c.providers[providerKey{serviceType, runtimeID}]
		if e == nil {
			return nil
		}

		s := e.service
		e.record.note(ok, latency)

		if e.record.failures >= maxFailures && e.tier < tierAside && s.mayEject(e.tier) {
			s.eject(e, t.now)
			t.record(ChangeEjected, e)
			t.touch(s, false)
		} else {
			s.set(e, e.tier)
		}

		return nil
	})
}

// succeeded records a call that did not fail, as nearly all do. Nobody who watches sees it.
func (c *Catalog) succeeded(key providerKey, latency time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()

	e := c.providers[key]
	if e == nil {
		return
	}

	e.record.note(true, latency)
	e.service.latency = follow(e.service.latency, latency)
	e.service.set(e, e.tier)
}

// Health returns a runtime's last report.
func (c *Catalog) Health(runtimeID string) (HealthReport, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()

	rt := c.runtimes[runtimeID]
	if rt == nil || rt.health == nil {
		return HealthReport{}, false
	}

	return rt.health.clone(), true
}

// Endpoint returns where the host reaches a runtime, and whether that was set.
func (c *Catalog) Endpoint(runtimeID string) (string, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()

	rt := c.runtimes[runtimeID]
	if rt == nil {
		return "", false
	}

	return rt.endpoint, rt.hasEndpoint
}

package catalog

import "time"

// SetStrategy sets how a type's provider is selected, also for a type that
// nobody offers yet. It is for the host: what it sets stays. The cost grows with
// the providers of the type.
func (c *Catalog) SetStrategy(serviceType string, strategy Strategy) {
	_ = c.transition(func(*transition) error {
		c.strategies[serviceType] = strategy

		if s := c.services[serviceType]; s != nil {
			s.strategy = strategy

			for _, e := range s.roster.entries {
				if e != nil {
					s.set(e, e.tier)
				}
			}
		}

		return nil
	})
}

// Select returns the provider of a type that a call should go to, and its
// health: healthy ones before degraded ones, among them as the type's strategy
// says, and unhealthy ones never. One that was set aside for its failures is
// taken only where the constraint leaves no other. The Metadata of the result is
// shared and must not be changed. Select allocates nothing; its cost does not
// grow with the registrations, and under a constraint it grows with the number of
// different versions of the type. Fails with [ErrNotFound].
func (c *Catalog) Select(serviceType string, constraint Constraint) (Registration, Health, error) {
	c.mu.RLock()

	s := c.services[serviceType]
	if s != nil && !s.returns.IsZero() {
		c.mu.RUnlock()
		c.settle(serviceType)
		c.mu.RLock()

		s = c.services[serviceType]
	}

	if s == nil {
		c.mu.RUnlock()

		return Registration{}, HealthUnknown, ErrNotFound
	}

	e := s.pick(constraint)
	if e == nil {
		c.mu.RUnlock()

		return Registration{}, HealthUnknown, ErrNotFound
	}

	reg, health := *e.reg, e.health
	c.mu.RUnlock()

	return reg, health, nil
}

// HasStrategy reports whether somebody set how a type's provider is selected.
func (c *Catalog) HasStrategy(serviceType string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()

	_, ok := c.strategies[serviceType]

	return ok
}

// settle takes back the providers of a type whose time aside is over.
func (c *Catalog) settle(serviceType string) {
	now := c.cfg.Load().Now()

	c.mu.RLock()
	s := c.services[serviceType]
	due := s.due(now)
	c.mu.RUnlock()

	if !due {
		return
	}

	_ = c.transition(func(t *transition) error {
		if s := c.services[serviceType]; s.due(now) {
			t.touch(s, false)
		}

		return nil
	})
}

// due reports whether a provider may return.
func (s *service) due(now time.Time) bool {
	return s != nil && !s.returns.IsZero() && !s.returns.After(now)
}

package connectplugin

import (
	"context"
	"errors"
	"maps"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

// maxSuccessors bounds what is remembered of plugins that were replaced.
const maxSuccessors = 4096

// succeed lets calls that name a plugin which was replaced, because their callers do not
// know yet, go to the one that took its place, as long as that lives.
func (s *ServiceRouter) succeed(old, next string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.succeeded == nil {
		s.succeeded = map[string]string{}
	}
	for from, to := range s.succeeded {
		if to == old {
			s.succeeded[from] = next
		}
	}
	if len(s.succeeded) >= maxSuccessors {
		clear(s.succeeded) // callers learn of a replacement within moments
	}
	s.succeeded[old] = next
}

// unsucceed forgets for whom a plugin stood in; its identity has ended.
func (s *ServiceRouter) unsucceed(runtimeID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.succeeded, func(_, to string) bool { return to == runtimeID })
}

// successor returns the registration of a type by the plugin that took another's place.
func (s *ServiceRouter) successor(serviceType, runtimeID string) (catalog.Registration, bool) {
	s.mu.Lock()
	next, ok := s.succeeded[runtimeID]
	s.mu.Unlock()
	if !ok {
		return catalog.Registration{}, false
	}
	return s.catalog.Provider(serviceType, next)
}

// replaced reports whether another plugin took the place of one.
func (s *ServiceRouter) replaced(runtimeID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.succeeded[runtimeID]
	return ok
}

// drainProvider refuses further calls to a plugin and waits for those in flight, at most
// until ctx ends.
func (s *ServiceRouter) drainProvider(ctx context.Context, runtimeID string) error {
	s.mu.Lock()
	var all pools
	if p := s.providers[runtimeID]; p != nil {
		all = pools{p.pool, p.previous}
	}
	s.mu.Unlock()
	var errs []error
	for _, pool := range all {
		if pool != nil {
			errs = append(errs, pool.Drain(ctx))
		}
	}
	return errors.Join(errs...)
}

// inFlight returns how many calls to a plugin are being passed on.
func (s *ServiceRouter) inFlight(runtimeID string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	if p := s.providers[runtimeID]; p != nil {
		for _, pool := range (pools{p.pool, p.previous}) {
			if pool != nil {
				n += pool.InFlight()
			}
		}
	}
	return n
}

// awaitQuiet waits until the calls in flight to a plugin are done, at most until ctx ends.
// Later calls to it get connections of their own.
func (s *ServiceRouter) awaitQuiet(ctx context.Context, runtimeID string) error {
	s.mu.Lock()
	if p := s.providers[runtimeID]; p != nil {
		// No endpoint is the empty one: the next call finds that the plugin has moved.
		s.providers[runtimeID] = &routedProvider{pool: p.pool, err: p.err, memory: p.memory, previous: p.previous}
	}
	s.mu.Unlock()
	return s.drainProvider(ctx, runtimeID)
}

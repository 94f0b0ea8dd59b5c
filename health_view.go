package connectplugin

import (
	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// healthView is what is known of the health of one plugin, by who said it.
type healthView struct {
	reported catalog.HealthReport // by the plugin
	probed   catalog.HealthReport // by the host, which asked or got no answer
	version  uint64
}

// worst is the view that counts. Where both are as bad, the plugin's own words
// tell people more.
func (v *healthView) worst() catalog.HealthReport {
	if v.probed.Health > v.reported.Health {
		return v.probed
	}
	return v.reported
}

// take changes what is known of a plugin and lets the catalogue know. The
// catalogue is told outside the lock; whoever finds that somebody else was
// quicker tells it again, so that the last word is the current one. The identity
// is nil for a plugin to which the host issued none.
func (s *LifecycleServer) take(runtimeID string, id *tokenstore.Identity, change func(*healthView)) error {
	s.mu.Lock()
	v := s.views[runtimeID]
	if v == nil {
		v = &healthView{}
		s.views[runtimeID] = v
	}
	change(v)
	v.version++
	report, version := v.worst(), v.version
	s.mu.Unlock()
	for told := false; !told; {
		s.catalog.SetHealth(runtimeID, report)
		s.mu.Lock()
		told = v.version == version
		report, version = v.worst(), v.version
		s.mu.Unlock()
	}
	if id == nil {
		return nil
	}
	if h := s.bound.Load(); h != nil {
		if launched := h.launchOf(id); launched != nil {
			launched.Poke()
		}
	}
	if !id.Ended() {
		return nil
	}
	// The identity ended while its health was being taken.
	s.forget(runtimeID)
	s.catalog.RemoveRuntime(runtimeID)
	return connect.NewError(connect.CodeUnauthenticated, errUnauthenticated)
}

// identity returns the live identity of a runtime id, nil where the host issued
// none.
func (s *LifecycleServer) identity(runtimeID string) *tokenstore.Identity {
	h := s.bound.Load()
	if h == nil {
		return nil
	}
	id, _ := h.store.Lookup(runtimeID)
	return id
}

func (s *LifecycleServer) reported(runtimeID string) (catalog.HealthReport, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.views[runtimeID]
	if v == nil || v.reported.Health == catalog.HealthUnknown {
		return catalog.HealthReport{}, false
	}
	return v.reported, true
}

func (s *LifecycleServer) forget(runtimeID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.views, runtimeID)
}

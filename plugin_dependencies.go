package connectplugin

import (
	"context"
	"errors"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// watch follows the service types that the plugin depends on.
func (s *pluginSession) watch(ctx context.Context) {
	for _, d := range s.cfg.Client.Metadata.Requires {
		if !d.WatchForChanges && !d.RequiredForStartup {
			continue
		}
		s.mu.Lock()
		s.dependencies[d.Type] = connectpluginv1.ServiceState_SERVICE_STATE_UNSPECIFIED
		s.mu.Unlock()
		s.watching.Go(func() { s.follow(ctx, d.Type) })
	}
}

func (s *pluginSession) follow(ctx context.Context, serviceType string) {
	for event, err := range s.client.WatchService(ctx, serviceType) {
		state := connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE
		switch {
		case err == nil:
			s.client.catchUp(ctx, event)
			state = event.State
		case ctx.Err() == nil && !errors.Is(err, ErrClientClosed):
			s.cfg.Client.Logger.Warn("a required service cannot be watched", keyService, serviceType, keyError, err)
		}
		s.mu.Lock()
		before := s.dependencies[serviceType]
		s.dependencies[serviceType] = state
		s.mu.Unlock()
		if before != state {
			s.cfg.Client.Logger.Info("a required service changed", keyService, serviceType, keyReason, state.String())
			s.poke()
		}
	}
}

// awaitRequired waits until every service that the plugin cannot start without
// is there.
func (s *pluginSession) awaitRequired(ctx context.Context) error {
	told := false
	for {
		missing := s.missingForStartup()
		if len(missing) == 0 {
			return nil
		}
		if !told {
			told = true
			s.cfg.Client.Logger.Info("waiting for required services", keyService, missing)
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *pluginSession) missingForStartup() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var missing []string
	for _, d := range s.cfg.Client.Metadata.Requires {
		if d.RequiredForStartup && !usable(s.dependencies[d.Type]) {
			missing = append(missing, d.Type)
		}
	}
	return missing
}

func usable(s connectpluginv1.ServiceState) bool {
	return s == connectpluginv1.ServiceState_SERVICE_STATE_AVAILABLE || s == connectpluginv1.ServiceState_SERVICE_STATE_DEGRADED
}

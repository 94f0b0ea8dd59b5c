package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/time/rate"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/backoff"
	"github.com/masegraye/connect-plugin-go/internal/guest"
)

// pluginSession keeps a plugin enrolled, registered and reported with its host.
type pluginSession struct {
	// Fixed at creation.
	cfg      *PluginServerConfig
	client   *Client
	baseURL  string
	wake     chan struct{}               // capacity one: something to report or to register
	assigned chan struct{}               // closed when the host assigned an identity
	enrolled func(context.Context) error // told of the first handshake; may be nil
	watching sync.WaitGroup
	asker    *healthAsker

	once sync.Once // closes assigned

	mu            sync.Mutex
	dependencies  map[requirement]connectpluginv1.ServiceState // of what is watched
	awaited       string                                       // why it cannot start yet, empty where it can
	registeredAs  string                                       // the runtime id that holds the registrations
	registrations []string

	// Used by run alone.
	woken    *rate.Limiter // by what the host says
	sent     sentReport
	waits    []string      // the types for which it stands by
	served   bool          // the host took the plugin into its service once
	refusals int           // since then, in a row
	parting  time.Duration // how long it took to tell the host that the plugin ends
}

// pluginHealth is the plugin's health as it reports it.
type pluginHealth struct {
	state   connectpluginv1.HealthState
	reason  string
	missing []string
}

// sentReport is the last report that the host took.
type sentReport struct {
	runtimeID string
	health    pluginHealth
	at        time.Time
}

func newPluginSession(cfg *PluginServerConfig, client *Client, baseURL string) *pluginSession {
	s := &pluginSession{
		cfg: cfg, client: client, baseURL: baseURL,
		wake: make(chan struct{}, 1), assigned: make(chan struct{}),
		dependencies: map[requirement]connectpluginv1.ServiceState{}, woken: rate.NewLimiter(wakesPerSecond, wakeBurst),
	}
	s.asker = &healthAsker{ask: cfg.Health, log: cfg.Client.Logger, returned: s.poke}
	client.changed = s.poke
	return s
}

// awaits reports whether the host assigns the identity.
func (s *pluginSession) awaits() bool { return s.cfg.awaitsHost() }

// awaitsHost reports whether the host calls first; c holds the defaults.
func (c *PluginServerConfig) awaitsHost() bool {
	return c.Client.HostURL == "" && c.Client.Discovery == nil
}

// assign takes over an identity from the host.
func (s *pluginSession) assign(m *connectpluginv1.SetRuntimeIdentityRequest) error {
	var expires time.Time
	if e := m.GetTokenExpiresAt(); e != nil {
		expires = e.AsTime()
	}
	if err := s.client.assign(m.GetRuntimeId(), m.GetRuntimeToken(), m.GetHostUrl(), expires); err != nil {
		return err
	}
	s.once.Do(func() { close(s.assigned) })
	s.poke()
	return nil
}

// poke wakes the session; a wake-up that is already due is enough.
func (s *pluginSession) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run keeps the plugin in the host's service until ctx ends, and takes it out
// then.
func (s *pluginSession) run(ctx context.Context) error {
	watched, unwatch := context.WithCancel(ctx)
	defer unwatch()
	err := s.begin(ctx, watched)
	if err == nil {
		err = s.keep(ctx)
	}
	s.leave(context.WithoutCancel(ctx))
	unwatch() // ctx goes on where the plugin ends by itself
	s.watching.Wait()
	if ctx.Err() != nil && !permanent(err) {
		return nil
	}
	return err
}

// begin enrols, and prepares what the plugin needs before it can serve. What it depends on is followed until watched ends.
func (s *pluginSession) begin(ctx, watched context.Context) error {
	if err := s.enrol(ctx); err != nil {
		return err
	}
	s.watch(watched)
	if s.cfg.OnConnected != nil {
		if err := s.onConnected(ctx); err != nil {
			return fmt.Errorf("OnConnected: %w", err)
		}
	}
	return s.awaitRequired(ctx)
}

// enrol obtains an identity, however long the host takes to come up.
func (s *pluginSession) enrol(ctx context.Context) error {
	log := s.cfg.Client.Logger
	if s.awaits() {
		log.Info("waiting for the host to assign an identity")
		select {
		case <-s.assigned:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for failures := 1; ; failures++ {
		var err error
		if s.client.RuntimeID() == "" { // a handshake may have ended after nobody waited for it any more
			err = s.client.connect(ctx)
		}
		switch {
		case err == nil:
			log.Info("connected to the host", keyHost, s.cfg.Client.HostURL, keyRuntimeID, s.client.RuntimeID())
			if s.enrolled != nil {
				return s.enrolled(ctx)
			}
			return nil
		case permanent(err):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
		s.unreached(failures, err)
		if err := s.client.pause(ctx); err != nil {
			return err
		}
	}
}

// unreached tells the operator of a host that does not answer, or has no room for the plugin: at the first failure, and
// then less and less often (at the second, the fourth, the eighth …).
func (s *pluginSession) unreached(failures int, err error) {
	if failures&(failures-1) != 0 {
		return
	}
	wait, _ := s.client.interrupted()
	what := "the host is not there yet; trying again"
	if connect.CodeOf(err) == connect.CodeResourceExhausted {
		what = notTakenYet
	}
	s.cfg.Client.Logger.Warn(what,
		keyHost, s.cfg.Client.HostURL, keyWait, max(wait, 0).Round(time.Millisecond).String(), keyError, err)
}

// keep registers and reports until ctx ends or the host refuses the plugin for good.
func (s *pluginSession) keep(ctx context.Context) error {
	failures := 0
	for rehearsed := false; ; {
		if err := s.client.pause(ctx); err != nil {
			return err
		}
		err := s.refresh(ctx)
		wait := s.cfg.HealthInterval
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case s.refusedForNow(err):
			wait = s.askAgain(err)
		case permanent(err):
			return err
		case err != nil:
			failures++
			wait = s.again(failures, err)
		default:
			failures = 0
			s.taken()
			if !rehearsed {
				rehearsed = true
				rehearseShutdown()
			}
		}
		if !s.waitOrWake(ctx, wait) {
			return ctx.Err()
		}
	}
}

// again returns how long to wait after so many failures in a row.
func (s *pluginSession) again(failures int, err error) time.Duration {
	wait, away := s.client.interrupted()
	if !away {
		wait = backoff.Reconnect.After(failures)
	}
	if failures&(failures-1) == 0 {
		what := "the host is not reachable; trying again"
		if isAnswer(err) {
			what = notTakenYet
		}
		s.cfg.Client.Logger.Warn(what,
			keyHost, s.client.Config().Endpoint, keyWait, max(wait, 0).Round(time.Millisecond).String(), keyError, err)
	}
	return wait
}

// waitOrWake waits for the interval or a reason to report earlier.
func (s *pluginSession) waitOrWake(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.wake:
		return s.mayWake(ctx)
	case <-ctx.Done():
		return false
	}
}

// refresh registers what is not registered under the current identity and reports
// health. The client replaces an identity that the host lost, and pokes the session.
func (s *pluginSession) refresh(ctx context.Context) error {
	ctx, _ = withBackground(ctx)
	runtimeID := s.client.RuntimeID()
	if err := s.register(ctx, runtimeID); err != nil {
		return err
	}
	s.served = true // the host has what it provides
	return s.report(ctx, runtimeID)
}

// report tells the host how the plugin is, unless it knows.
func (s *pluginSession) report(ctx context.Context, runtimeID string) error {
	h := s.health(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if s.isKnown(runtimeID, &h) {
		return nil
	}
	s.sent = sentReport{}
	err := s.client.ReportHealth(ctx, h.state, h.reason, h.missing)
	if connect.CodeOf(err) == connect.CodeInvalidArgument && h.reason+strings.Join(h.missing, "") != "" {
		// The host takes less than others do. How the plugin is matters more than why.
		s.cfg.Client.Logger.Debug("the host does not take the reason of a report", keyError, err)
		err = s.client.ReportHealth(ctx, h.state, "", nil)
	}
	if err == nil {
		s.sent = sentReport{runtimeID, h, time.Now()}
		if types, known := s.client.standsBy(); known {
			s.tellStandby(s.ofServices(types))
		}
	}
	return err
}

// isKnown reports whether the host knows how the plugin is and wants it repeated later.
func (s *pluginSession) isKnown(runtimeID string, h *pluginHealth) bool {
	last := &s.sent
	return last.runtimeID == runtimeID && last.health.state == h.state && last.health.reason == h.reason &&
		slices.Equal(last.health.missing, h.missing) &&
		time.Since(last.at)+s.cfg.HealthInterval/2 < s.client.reportAfter()
}

// register registers every service once for each identity.
func (s *pluginSession) register(ctx context.Context, runtimeID string) error {
	s.mu.Lock()
	done := s.registeredAs == runtimeID
	s.mu.Unlock()
	if done {
		return nil
	}
	var ids, waits []string
	for _, svc := range s.cfg.Services {
		resp, err := s.client.RegistryClient().RegisterService(ctx, connect.NewRequest(&connectpluginv1.RegisterServiceRequest{
			ServiceType: svc.Type, Version: svc.Version, EndpointPath: svc.Path, Metadata: s.metadata(&svc),
		}))
		if err != nil {
			return s.unregistered(svc.Type, err)
		}
		ids = append(ids, resp.Msg.GetRegistrationId())
		if resp.Header().Get(headerStandby) != "" {
			waits = append(waits, svc.Type)
		} else {
			s.cfg.Client.Logger.Info("service registered", keyService, svc.Type)
		}
	}
	s.waits = nil
	s.tellStandby(waits)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.registeredAs, s.registrations = runtimeID, ids
	return nil
}

// metadata is what a service is registered with.
func (s *pluginSession) metadata(svc *PluginService) map[string]string {
	metadata := maps.Clone(svc.Metadata)
	if metadata == nil {
		metadata = map[string]string{}
	}
	if s.baseURL != "" {
		metadata[metadataBaseURL] = s.baseURL
	}
	if s.cfg.Standby {
		metadata[metadataStandby] = metadataTrue
	}
	return metadata
}

// unregistered says what it means that a registration failed. A host that knows no
// standbys is asked again.
func (s *pluginSession) unregistered(serviceType string, err error) error {
	switch connect.CodeOf(err) {
	case connect.CodePermissionDenied:
		return &unregisteredError{fmt.Errorf("registration refused: service %q: the host's log says which right or endpoint is missing: %w",
			serviceType, err)}
	case connect.CodeAlreadyExists:
		if !s.cfg.Standby {
			return fmt.Errorf("%w: service %q: another plugin provides it; set PluginServerConfig.Standby to wait until that leaves, "+
				"or name the type in the host's Policy.AllowMultiple: %w", ErrServiceTaken, serviceType, err)
		}
	default:
	}
	return fmt.Errorf("register %q: %w", serviceType, err)
}

// unregisteredError is a refusal of a registration. It matches [ErrHandshakeRefused], since trying again is of no use.
type unregisteredError struct{ error }

func (e *unregisteredError) Is(target error) bool { return target == ErrHandshakeRefused }

func (e *unregisteredError) Unwrap() error { return e.error }

// leave withdraws the registrations, so that no new calls come, unless the host did.
func (s *pluginSession) leave(ctx context.Context) {
	if s.cfg.withdrawn.Load() {
		return
	}
	began := time.Now()
	defer func() { s.parting = time.Since(began) }()
	ctx, cancel := context.WithTimeout(ctx, min(s.cfg.Client.Timeout, leaveWait))
	defer cancel()
	s.mu.Lock()
	ids := s.registrations
	if s.registeredAs != s.client.RuntimeID() {
		ids = nil // they ended with the identity that had them
	}
	s.registrations, s.registeredAs = nil, ""
	s.mu.Unlock()
	for _, id := range ids {
		_, err := s.client.RegistryClient().UnregisterService(ctx, connect.NewRequest(
			&connectpluginv1.UnregisterServiceRequest{RegistrationId: id}))
		if err != nil {
			s.cfg.Client.Logger.Debug("unregister", keyError, err)
			return // the host is gone, or dropped the plugin already
		}
	}
}

// health is what the plugin says of itself, degraded where a watched service is
// not there.
func (s *pluginSession) health(ctx context.Context) pluginHealth {
	h := pluginHealth{state: connectpluginv1.HealthState_HEALTH_STATE_HEALTHY}
	if s.cfg.Health != nil {
		state, reason := s.asker.now(ctx)
		h.state, h.reason = state, fitReason(reason)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for r, state := range s.dependencies {
		if !usable(state) && !slices.Contains(h.missing, r.serviceType) {
			h.missing = append(h.missing, r.serviceType)
		}
	}
	slices.Sort(h.missing)
	h.missing = h.missing[:min(len(h.missing), maxUnavailableDependencies)]
	if s.awaited != "" {
		h.state, h.reason = connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY, s.awaited
	}
	if len(h.missing) > 0 && h.state == connectpluginv1.HealthState_HEALTH_STATE_HEALTHY {
		h.state = connectpluginv1.HealthState_HEALTH_STATE_DEGRADED
		if h.reason == "" {
			h.reason = reasonMissing
		}
	}
	return h
}

// slowStart is how long OnConnected may take until the log says that the plugin waits for it.
const slowStart = 10 * time.Second

// onConnected has the user's code do what the plugin needs first, for as long as that takes, but no longer than a moment
// after the end of ctx.
func (s *pluginSession) onConnected(ctx context.Context) error {
	const what = "PluginServerConfig.OnConnected"
	log := s.cfg.Client.Logger
	slow := time.AfterFunc(slowStart, func() {
		log.Warn(what + " has not returned for " + slowStart.String() + "; the plugin registers nothing until it does")
	})
	defer slow.Stop()
	_, err := guest.Within(ctx, what, func() (struct{}, error) { return struct{}{}, s.cfg.OnConnected(ctx, s.client) }, nil)
	if errors.Is(err, guest.ErrRuns) {
		log.Warn("the plugin ends without waiting for it", keyError, err)
	}
	return err
}

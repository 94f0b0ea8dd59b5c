package connectplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/backoff"
	"github.com/masegraye/connect-plugin-go/internal/guest"
	"github.com/masegraye/connect-plugin-go/internal/headers"
	"github.com/masegraye/connect-plugin-go/internal/semrange"
)

// pluginControl answers the host's control calls to a plugin. TLS has made sure
// that the host is the caller.
type pluginControl struct {
	server *pluginServer
	once   sync.Once
}

var (
	errSomebodyElse  = errors.New("the runtime id is that of somebody else, or was this plugin's before")
	errLongChallenge = errors.New("challenge: is too long")
)

// GetHealth answers how the plugin is now, for its own runtime id only, and proves that it
// is the one that answers.
func (c *pluginControl) GetHealth(ctx context.Context, req *connect.Request[connectpluginv1.GetHealthRequest]) (*connect.Response[connectpluginv1.GetHealthResponse], error) {
	challenge, id := req.Msg.GetChallenge(), c.server.client.currentIdentity()
	asked := cmp.Or(req.Msg.GetRuntimeId(), id.runtimeID)
	switch {
	case len(challenge) > maxChallenge:
		return nil, connect.NewError(connect.CodeInvalidArgument, errLongChallenge)
	case asked != id.runtimeID:
		return nil, connect.NewError(connect.CodeNotFound, errSomebodyElse)
	}
	h := c.server.session.health(ctx)
	return connect.NewResponse(&connectpluginv1.GetHealthResponse{
		State: h.state, Reason: h.reason, UnavailableDependencies: h.missing, Proof: id.prove(challenge),
	}), nil
}

var errNegativeGrace = errors.New("grace_period_seconds: is negative")

// Shutdown begins the end of the plugin and returns at once. The grace period may
// shorten the plugin's own; zero leaves that.
func (c *pluginControl) Shutdown(_ context.Context, req *connect.Request[connectpluginv1.ShutdownRequest]) (*connect.Response[connectpluginv1.ShutdownResponse], error) {
	grace := time.Duration(req.Msg.GetGracePeriodSeconds()) * time.Second
	if grace < 0 {
		return nil, connect.NewError(connect.CodeInvalidArgument, errNegativeGrace)
	}
	c.once.Do(func() {
		if grace > 0 && grace < c.server.cfg.GracefulShutdownTimeout {
			c.server.grace.Store(int64(grace))
		}
		c.server.cfg.Client.Logger.Info("the host asks the plugin to stop", keyReason, printable(req.Msg.GetReason()))
		// The host that launched the plugin has taken it out, and has nothing under way.
		last := c.server.cfg.launched && req.Header().Get(headers.LastCall) == headers.Yes
		if last {
			c.server.cfg.withdrawn.Store(true)
		}
		c.server.stop()
		if c.server.server != nil {
			c.server.server.Retire(last)
		}
	})
	return connect.NewResponse(&connectpluginv1.ShutdownResponse{Acknowledged: true}), nil
}

// How often in a second what happens at the host has a plugin look at its registrations and report, and how often at once.
const (
	wakesPerSecond = 10
	wakeBurst      = 50
)

// mayWake waits, where the plugin was woken often, and reports whether ctx is alive then.
func (s *pluginSession) mayWake(ctx context.Context) bool {
	late := s.woken.Reserve().Delay()
	return late <= 0 || backoff.Wait(ctx, late)
}

// tellStandby says for which types the plugin stands by from now on, and which it took over.
func (s *pluginSession) tellStandby(waits []string) {
	for _, t := range waits {
		if !slices.Contains(s.waits, t) {
			s.cfg.Client.Logger.Info("the plugin stands by: another provides the service", keyService, t)
		}
	}
	for _, t := range s.waits {
		if !slices.Contains(waits, t) {
			s.cfg.Client.Logger.Info("the plugin stands by no more and takes over", keyService, t)
		}
	}
	s.waits = waits
}

// ofServices returns those of some types that the plugin itself provides: of others a host says nothing to it.
func (s *pluginSession) ofServices(types []string) []string {
	var own []string
	for _, svc := range s.cfg.Services {
		if slices.Contains(types, svc.Type) {
			own = append(own, svc.Type)
		}
	}
	return own
}

// healthWait is how long Health may take: after that the plugin is unhealthy until an answer comes in time.
const healthWait = 5 * time.Second

// healthLate is the reason of a plugin whose Health takes longer.
const healthLate = "PluginServerConfig.Health does not return"

// healthPanics is the reason of a plugin whose Health panics, or ends its goroutine.
const healthPanics = "PluginServerConfig.Health panics"

// healthAsker asks the plugin's own code how the plugin is: once at a time, and so that one which blocks holds up nobody.
type healthAsker struct {
	// Fixed at creation.
	ask      func() (connectpluginv1.HealthState, string)
	log      *slog.Logger
	returned func() // told of an answer for which nobody waits any more

	mu    sync.Mutex
	asked *askedHealth  // under way; nil for none
	slow  time.Duration // what the log was told that answers take, since one came in time; zero for nothing
	ended bool
}

// askedHealth is one answer of the plugin's code.
type askedHealth struct {
	began time.Time
	done  chan struct{} // closed when it is there

	// Written before done is closed.
	state  connectpluginv1.HealthState
	reason string

	// Guarded by mu of the asker.
	late  bool
	first bool        // that is late, since one came in time
	timer *time.Timer // tells that it is late
}

// now returns how the plugin is: unhealthy where its code does not say within healthWait. An answer that comes later says nothing, so
// that a plugin whose answers always do is unhealthy, and not now and then. The end of ctx ends the wait.
func (a *healthAsker) now(ctx context.Context) (connectpluginv1.HealthState, string) {
	if h := a.begin(); h != nil {
		late := time.NewTimer(time.Until(h.began.Add(healthWait)))
		defer late.Stop()
		select {
		case <-h.done:
		case <-late.C:
		case <-ctx.Done():
		}
		if a.take(h) {
			return h.state, h.reason
		}
	}
	return connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY, healthLate
}

// begin asks, unless that is under way; nil where the plugin ended.
func (a *healthAsker) begin() *askedHealth {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asked != nil || a.ended {
		return a.asked
	}
	h := &askedHealth{began: time.Now(), done: make(chan struct{})}
	h.timer = time.AfterFunc(healthWait, func() { a.tell(h, healthWait) })
	a.asked = h
	go a.run(h)
	return h
}

// run waits for the plugin's code, which nothing can end; settle waits for it as long as the plugin may take to end.
func (a *healthAsker) run(h *askedHealth) {
	failed := error(&guest.PanicError{What: "PluginServerConfig.Health"}) // after a Goexit only what is deferred runs
	defer func() {
		if failed != nil {
			h.state, h.reason = connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY, healthPanics
			a.log.Error(healthPanics, logged(failed)...)
		}
		a.mu.Lock()
		h.timer.Stop()
		late, first, again := h.late, h.late && h.first, !h.late && a.slow > 0
		if a.asked = nil; !late {
			a.slow = 0
		}
		a.mu.Unlock()
		close(h.done)
		if again {
			a.log.Info("PluginServerConfig.Health answers in time again")
		}
		if first { // the next one is asked at once, those after it in their turn
			a.log.Info("PluginServerConfig.Health has returned after " + time.Since(h.began).Round(time.Second).String() + "; it is asked again")
			a.returned()
		}
	}()
	failed = guest.Contain("PluginServerConfig.Health", func() error {
		h.state, h.reason = a.ask()
		return nil
	})
}

// take reports whether the answer is there, and came in time.
func (a *healthAsker) take(h *askedHealth) bool {
	select {
	case <-h.done:
	default:
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return !h.late
}

// tell has the log say that an answer is late: after healthWait, and then whenever twice as
// much time has passed; of those after it, what takes longer still.
func (a *healthAsker) tell(h *askedHealth, waited time.Duration) {
	a.mu.Lock()
	due := a.asked == h && !a.ended
	says := due && waited > a.slow
	if due {
		h.late, h.first = true, h.first || a.slow == 0
		a.slow = max(a.slow, waited)
		h.timer = time.AfterFunc(waited, func() { a.tell(h, 2*waited) })
	}
	a.mu.Unlock()
	if says {
		a.log.Warn("PluginServerConfig.Health has not returned for " + waited.String() + "; the plugin is unhealthy until it answers in time")
	}
}

// settle asks no more, and waits until the plugin's code has returned or ctx ends.
func (a *healthAsker) settle(ctx context.Context) {
	a.mu.Lock()
	a.ended = true
	h := a.asked
	a.mu.Unlock()
	if h == nil {
		return
	}
	select {
	case <-h.done:
	case <-ctx.Done():
		a.log.Warn("the plugin ends, and PluginServerConfig.Health has not returned")
	}
}

// rehearseShutdown prepares, while nobody waits, what the messages of Shutdown need the first time: the
// end of a plugin is the only time that it is called.
func rehearseShutdown() {
	request, err := proto.Marshal(&connectpluginv1.ShutdownRequest{Reason: "rehearsal"})
	if err == nil {
		_ = proto.Unmarshal(request, new(connectpluginv1.ShutdownRequest)) // it was just marshalled
		_, _ = proto.Marshal(&connectpluginv1.ShutdownResponse{Acknowledged: true})
	}
}

// GetPluginInfo answers what the plugin is, provides and requires.
func (c *pluginControl) GetPluginInfo(context.Context, *connect.Request[connectpluginv1.GetPluginInfoRequest]) (*connect.Response[connectpluginv1.GetPluginInfoResponse], error) {
	cfg := c.server.cfg.Client
	return connect.NewResponse(&connectpluginv1.GetPluginInfoResponse{
		SelfId: cfg.SelfID, SelfVersion: cfg.SelfVersion,
		Provides: wireDeclarations(cfg.Metadata.Provides),
		Requires: wireDependencies(cfg.Metadata.Requires),
	}), nil
}

var errEnrolsItself = errors.New("this plugin enrols itself: its HostURL is set")

// SetRuntimeIdentity takes over the identity that the host assigns, where the
// plugin waits for one.
func (c *pluginControl) SetRuntimeIdentity(_ context.Context, req *connect.Request[connectpluginv1.SetRuntimeIdentityRequest]) (*connect.Response[connectpluginv1.SetRuntimeIdentityResponse], error) {
	if !c.server.session.awaits() {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errEnrolsItself)
	}
	m := req.Msg
	if err := c.server.session.assign(m); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	return connect.NewResponse(&connectpluginv1.SetRuntimeIdentityResponse{Acknowledged: true}), nil
}

type stoppingKey struct{}

// Stopping returns a channel that is closed when the plugin that serves the call of ctx is
// asked to stop: by its host, by the end of [ServePlugin]'s context, or because another
// instance takes its place; and, over TLS, when the host from which the call comes shuts down, which
// ends neither the plugin nor calls from elsewhere. Calls in flight may finish within the grace of whoever stops; a stream that could
// go on for ever ends itself with code unavailable then. Outside a call that ServePlugin
// serves the channel is nil, which is never closed.
func Stopping(ctx context.Context) <-chan struct{} {
	stopping, _ := ctx.Value(stoppingKey{}).(<-chan struct{})
	return stopping
}

// withStopping is the context of all that a plugin serves in plaintext: it tells handlers when the plugin
// is stopping.
func withStopping(stopping <-chan struct{}) context.Context {
	return context.WithValue(context.Background(), stoppingKey{}, stopping)
}

// requirement is what the plugin depends on: a service type, in a version that a constraint allows; empty allows any.
type requirement struct{ serviceType, constraint string }

func requirementOf(d ServiceDependency) requirement { return requirement{d.Type, d.MinVersion} }

func (r requirement) String() string { return strings.TrimSpace(r.serviceType + " " + r.constraint) }

// watch follows what the plugin depends on.
func (s *pluginSession) watch(ctx context.Context) {
	for _, d := range s.cfg.Client.Metadata.Requires {
		if !d.WatchForChanges && !d.RequiredForStartup {
			continue
		}
		r := requirementOf(d)
		s.mu.Lock()
		s.dependencies[r] = connectpluginv1.ServiceState_SERVICE_STATE_UNSPECIFIED
		s.mu.Unlock()
		s.watching.Go(func() { s.follow(ctx, r) })
	}
}

// follow keeps the state of what the plugin depends on, also where the host takes the
// right to it away and gives it back.
func (s *pluginSession) follow(ctx context.Context, r requirement) {
	stop := func() {} // of what the last event had looked up
	gone := func(err error) {
		stop()
		s.cfg.Client.Logger.Warn("a required service cannot be watched", keyService, r.serviceType, keyError, err)
		s.depend(r, connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE)
	}
	w := &serviceWatch{client: s.client, serviceType: r.serviceType, resumes: true, withdrawn: gone}
	w.run(ctx, func(event *ServiceEvent, err error) bool {
		switch {
		case err == nil:
			s.client.catchUp(ctx, r.serviceType, moment{w.epoch, event.Sequence})
			stop()
			stop = s.takeIn(ctx, event, r)
		case ctx.Err() == nil && !errors.Is(err, ErrClientClosed):
			gone(err)
		}
		return true
	})
	stop()
}

// takeIn takes in the state of a type. Where the provider that the event names does not satisfy the constraint, the host is
// asked for another, until the next event stops that.
func (s *pluginSession) takeIn(ctx context.Context, event *ServiceEvent, r requirement) (stop func()) {
	constraint, _ := semrange.ParseConstraint(r.constraint) // the configuration was validated
	if !usable(event.State) || constraint.Allows(event.Version) {
		s.depend(r, event.State)
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		s.lookFor(ctx, r, constraint, event)
	}()
	return func() {
		cancel()
		<-asked
	}
}

// lookFor asks the host for a provider that satisfies a constraint, until the host says whether there is one.
func (s *pluginSession) lookFor(ctx context.Context, r requirement, constraint semrange.Constraint, event *ServiceEvent) {
	for failures := 1; ; failures++ {
		_, err := s.client.providerFor(ctx, event, r, constraint)
		switch {
		case ctx.Err() != nil:
			return // another event has come
		case err == nil:
			s.depend(r, event.State)
			return
		case errors.Is(err, errNoProvider):
			if s.depend(r, connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE) {
				s.cfg.Client.Logger.Warn("no provider satisfies the constraint", keyService, r.serviceType, keyError, err)
			}
			return
		case connect.IsWireError(err): // there is one, and it is not well
			s.depend(r, connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE)
		}
		if !backoff.Wait(ctx, backoff.Reconnect.After(failures)) {
			return
		}
	}
}

// depend takes in the state of what the plugin depends on, and reports whether it was another before.
func (s *pluginSession) depend(r requirement, state connectpluginv1.ServiceState) bool {
	s.mu.Lock()
	before := s.dependencies[r]
	s.dependencies[r] = state
	s.mu.Unlock()
	if before == state {
		return false
	}
	s.cfg.Client.Logger.Info("a required service changed", keyService, r.String(),
		keyReason, strings.ToLower(strings.TrimPrefix(state.String(), "SERVICE_STATE_")))
	s.poke()
	return true
}

const (
	awaitsRequired = "waiting for required services"

	awaitsSoon = time.Second      // before the host is told
	mostLook   = 10 * time.Second // between two looks
	mostNamed  = 4                // of what a plugin waits for, in the reason that it gives
)

// awaitRequired waits until every service that the plugin cannot start without is there. The host is told if that takes
// longer than a moment, and the operator, less and less often.
func (s *pluginSession) awaitRequired(ctx context.Context) error {
	missing := s.missingForStartup()
	if len(missing) == 0 {
		return nil
	}
	s.cfg.Client.Logger.Info(awaitsRequired, keyService, missing)
	look, begun := time.NewTimer(awaitsSoon), time.Now()
	defer look.Stop()
	for looks := 0; ; missing = s.missingForStartup() {
		if looks > 0 { // also that it waits no more, before there is something to call
			s.tellAwaited(ctx, missing)
		}
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-s.wake:
			if !s.mayWake(ctx) {
				return ctx.Err()
			}
		case <-look.C:
			if looks++; looks > 1 && looks&(looks-1) == 0 {
				s.cfg.Client.Logger.Warn(awaitsRequired, keyService, missing, keyWait, time.Since(begun).Round(time.Second).String())
			}
			look.Reset(min(s.cfg.HealthInterval, mostLook))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tellAwaited tells the host for what the plugin waits before it starts, nothing for no more.
func (s *pluginSession) tellAwaited(ctx context.Context, missing []string) {
	awaited := ""
	if len(missing) > 0 {
		names := make([]string, 0, mostNamed)
		for _, name := range missing[:min(len(missing), mostNamed)] {
			names = append(names, clipped(name))
		}
		if awaited = awaitsRequired + ": " + strings.Join(names, ", "); len(missing) > mostNamed {
			awaited += fmt.Sprintf(" and %d more", len(missing)-mostNamed)
		}
	}
	s.mu.Lock()
	s.awaited = awaited
	s.mu.Unlock()
	ctx, _ = withBackground(ctx)
	if err := s.report(ctx, s.client.RuntimeID()); err != nil && ctx.Err() == nil {
		s.cfg.Client.Logger.Debug("the host was not told for what the plugin waits", keyError, err)
	}
}

func (s *pluginSession) missingForStartup() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var missing []string
	for _, d := range s.cfg.Client.Metadata.Requires {
		if r := requirementOf(d); d.RequiredForStartup && !usable(s.dependencies[r]) {
			missing = append(missing, r.String())
		}
	}
	return missing
}

func usable(s connectpluginv1.ServiceState) bool {
	return s == connectpluginv1.ServiceState_SERVICE_STATE_AVAILABLE || s == connectpluginv1.ServiceState_SERVICE_STATE_DEGRADED
}

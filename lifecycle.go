package connectplugin

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/guest"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// PluginHealthState is what a plugin last reported about itself.
type PluginHealthState struct {
	// State is the reported state.
	State connectpluginv1.HealthState
	// Reason is the plugin's explanation; untrusted text.
	Reason string
	// UnavailableDependencies lists the service types that it misses.
	UnavailableDependencies []string
}

// LifecycleServer knows the health of plugins: what they report, and what the
// host learns by asking them. The worse of both counts. It is safe for concurrent
// use.
type LifecycleServer struct {
	member

	catalog *catalog.Catalog // fixed at creation
	pace    atomic.Int64     // nanoseconds after which plugins report again at the earliest, zero where they please

	mu    sync.Mutex
	views map[string]*healthView // by runtime id
}

// NewLifecycleServer makes a lifecycle server with a catalogue of its own, which
// a registry made with it shares.
func NewLifecycleServer() *LifecycleServer {
	return &LifecycleServer{catalog: catalog.New(catalogConfig(defaultLimits)), views: map[string]*healthView{}}
}

// LifecycleServerHandler returns the path and the handler of the lifecycle
// service, for a server of your own. It serves authenticated callers of the host
// that the server belongs to.
func LifecycleServerHandler(server *LifecycleServer) (string, http.Handler) {
	server.mustBeMade("LifecycleServerHandler: the server")
	rt := server.routes(boundedMessages(defaultLimits.MaxMessageBytes))[0]
	return rt.prefix, server.serve(rt)
}

const theLifecycleServer = "the LifecycleServer"

// The reasons of an identity's end because its plugin did: it said so, or its process was seen to.
const (
	reasonLeft   tokenstore.Reason = "left"
	reasonExited tokenstore.Reason = "process ended"
)

// ReportHealth records what the calling plugin says about itself. A state that
// the wire does not define, or text beyond its bounds, is InvalidArgument. A report
// with leaving ends the plugin's identity.
func (s *LifecycleServer) ReportHealth(ctx context.Context, req *connect.Request[connectpluginv1.ReportHealthRequest]) (*connect.Response[connectpluginv1.ReportHealthResponse], error) {
	c, runtimeID, err := callOf(ctx, &s.member, req)
	if err != nil {
		return nil, err
	}
	if err := s.spendChange(ctx, c, AuditEvent{Procedure: req.Spec().Procedure}); err != nil {
		return nil, err
	}
	if runtimeID == "" {
		return nil, errorf(connect.CodeInvalidArgument, "header %s is empty", headerRuntimeID)
	}
	m := req.Msg
	if err := validateHealth(m.GetState(), m.GetReason(), m.GetUnavailableDependencies()); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	report := catalog.HealthReport{
		Health: healthOf(m.GetState()), Reason: m.GetReason(),
		Unavailable: slices.Clone(m.GetUnavailableDependencies()), At: time.Now(),
	}
	id := s.identity(runtimeID)
	if c != nil {
		id = c.id
	}
	if m.GetLeaving() && id != nil {
		s.bound.Load().store.Revoke(id.RuntimeID(), reasonLeft)
		return connect.NewResponse(&connectpluginv1.ReportHealthResponse{}), nil
	}
	if err := s.take(runtimeID, id, func(v *healthView) { v.reported = report }); err != nil {
		return nil, err
	}
	if c != nil && len(report.Unavailable) > 0 {
		c.hub.lacking()
	}
	resp := connect.NewResponse(&connectpluginv1.ReportHealthResponse{})
	if after := time.Duration(s.pace.Load()); after > 0 {
		resp.Header().Set(headerReportAfter, after.String())
	}
	sayStandby(resp.Header(), s.catalog, runtimeID)
	return resp, nil
}

// GetHealthState returns what a plugin last reported, as a copy, and nil where
// it reported nothing or is gone.
func (s *LifecycleServer) GetHealthState(runtimeID string) *PluginHealthState {
	s.mustBeMade(theLifecycleServer)
	report, ok := s.reported(runtimeID)
	if !ok {
		return nil
	}
	return &PluginHealthState{
		State:                   wireHealth(report.Health),
		Reason:                  report.Reason,
		UnavailableDependencies: slices.Clone(report.Unavailable),
	}
}

// ShouldRouteTraffic reports whether calls may go to a plugin: to every one that
// neither said nor showed that it is unhealthy.
func (s *LifecycleServer) ShouldRouteTraffic(runtimeID string) bool {
	s.mustBeMade(theLifecycleServer)
	report, ok := s.catalog.Health(runtimeID)
	return !ok || report.Health != catalog.HealthUnhealthy
}

// mustBeMade panics where NewLifecycleServer did not make it.
func (s *LifecycleServer) mustBeMade(what string) {
	mustBeMade(what, s != nil && s.catalog != nil, "NewLifecycleServer")
}

func (s *LifecycleServer) routes(opts ...connect.HandlerOption) []route {
	rt := callerRoute(connectpluginv1connect.NewPluginLifecycleHandler(s, opts...))
	rt.vital = true
	return []route{rt}
}

// bind ties the server to a hub: what is known of an identity ends with it.
func (s *LifecycleServer) bind(h *hub) error {
	first := s.bound.Load() == nil
	if err := s.member.bind(h); err != nil || !first {
		return err
	}
	h.store.Subscribe(func(e tokenstore.End) { s.forget(e.Identity.RuntimeID()) })
	return nil
}

func validateHealth(state connectpluginv1.HealthState, reason string, unavailable []string) error {
	if healthOf(state) == catalog.HealthUnknown {
		return fmt.Errorf("state: %d is not a health state", state)
	}
	if len(reason) > maxHealthReasonLen {
		return fmt.Errorf("reason: has more than %d bytes", maxHealthReasonLen)
	}
	if err := validateMetadataValue(reason); err != nil {
		return fmt.Errorf("reason: %w", err)
	}
	if len(unavailable) > maxUnavailableDependencies {
		return fmt.Errorf("unavailable_dependencies: has more than %d entries", maxUnavailableDependencies)
	}
	for _, d := range unavailable {
		if err := ValidateServiceType(d); err != nil {
			return fmt.Errorf("unavailable_dependencies: %w", err)
		}
	}
	return nil
}

// healthView is what is known of the health of one plugin, by who said it.
type healthView struct {
	reported catalog.HealthReport // by the plugin
	probed   catalog.HealthReport // by the host, which asked or got no answer
	barred   catalog.HealthReport // by the host, which does not reach it anywhere
	silent   bool                 // the host got no answer
	version  uint64
}

// worst is the view that counts. Where both are as bad, the plugin's own words
// tell people more.
func (v *healthView) worst() catalog.HealthReport {
	if v.barred.Health != catalog.HealthUnknown {
		return v.barred
	}
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
	s.mustBeMade(theLifecycleServer)
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
	if launched := declared(id).launch; launched != nil {
		launched.Poke()
	}
	if !id.Ended() {
		return nil
	}
	// The identity ended while its health was being taken.
	s.forget(runtimeID)
	s.catalog.RemoveRuntime(runtimeID)
	return connect.NewError(connect.CodeUnauthenticated, errUnauthenticated)
}

// moved takes account of a plugin that is reached elsewhere than before, unless it is
// not: what asking it showed there says nothing of it here.
func (s *LifecycleServer) moved(id *tokenstore.Identity, before string) {
	runtimeID := id.RuntimeID()
	now, _ := s.catalog.Endpoint(runtimeID)
	s.mu.Lock()
	v := s.views[runtimeID]
	elsewhere, free := v != nil && before != "" && now != before, v != nil && v.barred.Health != catalog.HealthUnknown && now != ""
	s.mu.Unlock()
	if !elsewhere && !free {
		return
	}
	// An error says that the identity ended, which says it all.
	_ = s.take(runtimeID, id, func(v *healthView) {
		if elsewhere {
			v.probed, v.silent = catalog.HealthReport{}, false
		}
		if free {
			v.barred = catalog.HealthReport{}
		}
	})
}

// bar has a plugin that is reached nowhere count as unhealthy, for a reason, until it is
// reached somewhere.
func (s *LifecycleServer) bar(id *tokenstore.Identity, reason string) {
	_ = s.take(id.RuntimeID(), id, func(v *healthView) {
		v.barred = catalog.HealthReport{Health: catalog.HealthUnhealthy, Reason: reason, At: time.Now()}
	})
	s.moved(id, "") // it may have got an endpoint meanwhile
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

// isSilent reports whether the host asked a plugin, and got no answer as often as makes it unhealthy.
func (s *LifecycleServer) isSilent(runtimeID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.views[runtimeID]
	return v != nil && v.silent
}

func (s *LifecycleServer) forget(runtimeID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.views, runtimeID)
}

// accepts reports whether policy would accept an identity again with what it
// proved when it enrolled or last renewed. One that was issued in the host's own
// process proved nothing and is always accepted.
func (h *hub) accepts(id *tokenstore.Identity) bool { return h.acceptsUnder(h.rules.Load(), id) }

// acceptsStill reports whether policy accepts a plugin. A HandshakeAuth.Secret that panics refuses it.
func (h *hub) acceptsStill(id *tokenstore.Identity) (accepted bool) {
	err := guest.Contain("HandshakeAuth.Secret", func() error {
		accepted = h.accepts(id)
		return nil
	})
	if err != nil {
		h.log().Error("a plugin is refused, since nothing says whether it may stay", keySelfID, id.SelfID(), keyError, err)
	}
	return accepted
}

// acceptsUnder reports whether a policy would.
func (h *hub) acceptsUnder(book *policy.Book, id *tokenstore.Identity) bool {
	return h.refusedUnder(book, id) == ""
}

// refusedUnder is why a policy would not accept a plugin, for operators; empty where it would.
func (h *hub) refusedUnder(book *policy.Book, id *tokenstore.Identity) string {
	if id.Peer() == "" {
		return ""
	}
	d := declared(id)
	known := book.Match(d.selfID, d.certIdentity)
	rules := known.Rules
	switch {
	case rules == nil:
		return "the policy does not name it"
	case known.Name != id.SelfID():
		return "the policy has another self id for it"
	case mayClaim(known, d.selfID) != nil:
		return "its certificate may not have this self id"
	}
	hs := &handshake{hub: h, cfg: h.settings()}
	secret := hs.secretOf(d.selfID, known)
	if len(d.secret) == 0 && h.launchOf(id) != nil {
		secret = nil
	}
	if why := secretDiffers(secret, d.secret); why != "" {
		return why
	}
	byKey, ok := hs.certificateStands(id, rules)
	switch {
	case !ok:
		return "its certificate does not prove it any more"
	case known.ByCertificate || byKey || len(secret) > 0 || rules.AllowUnproven:
		return ""
	}
	return "nothing proves it, and the policy does not allow that"
}

// secretDiffers says how the secret of a policy is not the one that a plugin came with, empty where it is.
func secretDiffers(secret, came Secret) string {
	switch {
	case len(secret) == 0 && len(came) == 0 || secret.Equal(came):
		return ""
	case len(secret) == 0:
		return "it came with a secret, and the policy has none for it"
	case len(came) == 0:
		return "it came without a secret, and the policy has one for it"
	}
	return "the policy has another secret for it"
}

// deadAfter is for how long one who is dead showed no life.
const deadAfter = 2 * time.Second

// isDead reports whether a plugin is dead as the host sees it: it has no connection open and makes no
// call, showed no life for a while, and did not answer as often as makes it unhealthy. That it says
// of itself that it is unhealthy does not count.
func (s *ServiceRegistry) isDead(h *hub, runtimeID string) bool {
	id, ok := h.store.Lookup(runtimeID)
	return ok && h.seemsDead(id) && s.lifecycle.isSilent(runtimeID) && time.Since(id.LastSeen()) >= deadAfter
}

// everyProvider reports whether all who provide a type are as is says. What the host itself
// registered is not.
func (s *ServiceRegistry) everyProvider(serviceType string, is func(runtimeID string) bool) bool {
	return !slices.ContainsFunc(s.catalog.ByType(serviceType), func(reg catalog.Registration) bool { return reg.ByHost || !is(reg.RuntimeID) })
}

// blocked returns the types for which others stand by, and of whose providers, this one among
// them, all seem to be dead.
func (s *ServiceRegistry) blocked(h *hub, id *tokenstore.Identity) []string {
	if !h.seemsDead(id) {
		return nil
	}
	return slices.DeleteFunc(s.catalog.Awaited(id.RuntimeID()), func(t string) bool {
		return !s.everyProvider(t, func(runtimeID string) bool {
			other, ok := h.store.Lookup(runtimeID)
			return ok && h.seemsDead(other)
		})
	})
}

// blocks reports whether a plugin that seems to be dead keeps a type from who stands by.
func (s *ServiceRegistry) blocks(id *tokenstore.Identity) bool {
	h := s.bound.Load()
	return h != nil && len(s.blocked(h, id)) > 0
}

// press has a plugin asked at once, where plugins are asked.
func (s *ServiceRegistry) press(id *tokenstore.Identity) { s.ask(id, false) }

// ask does the same, and says whether it is since a call did not reach the plugin.
func (s *ServiceRegistry) ask(id *tokenstore.Identity, missed bool) {
	if hurry := s.hurry.Load(); hurry != nil {
		(*hurry)(id, missed)
	}
}

// pressDead has a plugin that seems to be dead asked at once, where others stand by.
func (s *ServiceRegistry) pressDead(h *hub, id *tokenstore.Identity) {
	if len(s.blocked(h, id)) > 0 {
		s.press(id)
	}
}

// giveWay has who stands by take the place of the dead. What those registered is withheld until
// they answer and nobody else provides it. No provider that lives gives way.
func (s *ServiceRegistry) giveWay(id *tokenstore.Identity) {
	h := s.bound.Load()
	if h == nil {
		return
	}
	isDead := func(runtimeID string) bool { return s.isDead(h, runtimeID) }
	for _, t := range s.blocked(h, id) {
		if !s.everyProvider(t, isDead) {
			continue
		}
		of := func(reg catalog.Registration) bool { return reg.Type == t && !reg.ByHost && isDead(reg.RuntimeID) }
		for _, reg := range s.catalog.GiveWay(of) {
			h.log().Warn("a plugin that is dead gives way to one that stands by",
				keySelfID, reg.SelfID, keyRuntimeID, reg.RuntimeID, keyService, reg.Type)
		}
	}
}

// pressFor has the providers of a type asked at once where all seem to be dead.
func (s *ServiceRegistry) pressFor(h *hub, serviceType string) {
	regs := s.catalog.ByType(serviceType)
	for _, reg := range regs[:min(len(regs), maxPredecessors)] {
		if id, ok := h.store.Lookup(reg.RuntimeID); ok {
			s.pressDead(h, id)
		}
	}
}

// keepOwner leaves a type to the self id that provided it first and returns how
// many registrations of others it withheld. It looks again until there are none:
// the others may renew their registrations meanwhile.
func (s *ServiceRegistry) keepOwner(serviceType string) int {
	withheld := 0
	for {
		if h := s.bound.Load(); h == nil || h.rules.Load().AllowMultiple.Has(serviceType) {
			return withheld // by now: what is withheld would come back at once
		}
		regs := s.catalog.ByType(serviceType)
		others := map[string]struct{}{}
		for _, reg := range regs {
			if reg.SelfID != regs[0].SelfID {
				others[reg.ID] = struct{}{}
			}
		}
		if len(others) == 0 {
			return withheld
		}
		withheld += s.withhold(func(reg catalog.Registration) bool {
			_, other := others[reg.ID]
			return other
		})
	}
}

// sayStandby tells a plugin that may stand by for which types it does.
func sayStandby(h http.Header, c *catalog.Catalog, runtimeID string) {
	if types, may := c.Waiting(runtimeID); may {
		h.Set(headerStandby, cmp.Or(strings.Join(types, ","), noStandby))
	}
}

package connectplugin

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/herald"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/semrange"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
	"github.com/masegraye/connect-plugin-go/internal/wording"
)

// SelectionStrategy says which of several providers of a service type is chosen.
type SelectionStrategy int

// The selection strategies. Whatever the strategy, an unhealthy provider is
// never chosen and a degraded one only where there is no better.
const (
	// SelectionFirst chooses the provider that registered first.
	SelectionFirst SelectionStrategy = 0
	// SelectionRoundRobin takes turns.
	SelectionRoundRobin SelectionStrategy = 1
	// SelectionRandom chooses at random.
	SelectionRandom SelectionStrategy = 2
	// SelectionWeighted chooses by weight, success and latency. A provider's
	// weight is a number from 1 to 1000 in its metadata (key "weight"); without
	// one it is 1.
	SelectionWeighted SelectionStrategy = 3
)

// ServiceProvider is one registration, as a copy.
type ServiceProvider struct {
	// RegistrationID names the registration.
	RegistrationID string
	// RuntimeID names the plugin that registered.
	RuntimeID string
	// ServiceType is what it provides.
	ServiceType string
	// Version is the service's semantic version.
	Version string
	// EndpointPath is where the plugin serves it.
	EndpointPath string
	// Metadata is the plugin's own; nothing in it is trusted.
	Metadata map[string]string
	// RegisteredAt is when it registered.
	RegisteredAt time.Time
}

// ServiceRegistry registers, discovers and watches services. Its exported
// methods are safe for concurrent use and hand out copies only. Called from Go
// in the host's process it trusts its caller; over the wire it serves
// authenticated callers within their rights.
type ServiceRegistry struct {
	member

	// Fixed at creation.
	lifecycle *LifecycleServer
	catalog   *catalog.Catalog

	settling atomic.Bool // a change of policy takes, and gives back at its end

	allowedMu sync.Mutex
	allowed   map[string]policy.Set // what runtime ids without an identity may have registered

	words  atomic.Pointer[wordings] // of watches that rest; nil where all of them wait
	herald herald.Herald            // of those that rest

	ways  atomic.Pointer[ways]                                       // nil without a router, when nobody is dialled
	hurry atomic.Pointer[func(id *tokenstore.Identity, missed bool)] // asks a plugin at once how it is; nil where nobody is asked
}

// ways are what a router does about the endpoints of plugins.
type ways struct {
	cutOff   func(runtimeID string)                                                    // ends what goes through to a plugin
	unproven func(*tokenstore.Identity) bool                                           // nothing else shows that it is the plugin that answers
	prove    func(ctx context.Context, id *tokenstore.Identity, endpoint string) error // has it shown
}

// NewServiceRegistry makes a registry that shares the catalogue of a lifecycle
// server. Nil makes one.
func NewServiceRegistry(lifecycle *LifecycleServer) *ServiceRegistry {
	if lifecycle == nil {
		lifecycle = NewLifecycleServer()
	}
	lifecycle.mustBeMade("NewServiceRegistry: the lifecycle server")
	return &ServiceRegistry{lifecycle: lifecycle, catalog: lifecycle.catalog}
}

// ServiceRegistryHandler returns the path and the handler of the registry, for a
// server of your own. It serves authenticated callers of the host that the
// registry belongs to.
func ServiceRegistryHandler(server *ServiceRegistry) (string, http.Handler) {
	mustBeMade("ServiceRegistryHandler: the server", server != nil && server.catalog != nil, "NewServiceRegistry")
	rt := server.routes(boundedMessages(defaultLimits.MaxMessageBytes))[0]
	return rt.prefix, server.serve(rt)
}

func catalogConfig(l Limits) catalog.Config {
	return catalog.Config{
		MaxRegistrations:     l.MaxRegistrations,
		MaxPerRuntime:        l.MaxRegistrationsPerPlugin,
		MaxPerType:           l.MaxRegistrationsPerType,
		MaxWatches:           l.MaxWatches,
		MaxWatchesPerRuntime: l.MaxWatchesPerPlugin,
		RingSize:             l.WatchBuffer,
	}
}

// maxRegistrationIDLen is far more than a registration's id has.
const maxRegistrationIDLen = 128

// UnregisterService withdraws a registration of the calling plugin. That of
// another plugin and one that does not exist give the same NotFound.
func (s *ServiceRegistry) UnregisterService(ctx context.Context, req *connect.Request[connectpluginv1.UnregisterServiceRequest]) (*connect.Response[connectpluginv1.UnregisterServiceResponse], error) {
	c, runtimeID, err := callOf(ctx, &s.member, req)
	if err != nil {
		return nil, err
	}
	if len(req.Msg.GetRegistrationId()) > maxRegistrationIDLen {
		return nil, errorf(connect.CodeInvalidArgument, "registration_id: has more than %d bytes", maxRegistrationIDLen)
	}
	if err := s.spendChange(ctx, c, AuditEvent{Procedure: req.Spec().Procedure, Registration: req.Msg.GetRegistrationId()}); err != nil {
		return nil, err
	}
	if s.made().Unregister(req.Msg.GetRegistrationId(), runtimeID) != nil {
		// That its own has just passed to a new instance, or was taken out, is no attack.
		if !s.catalog.Ended(req.Msg.GetRegistrationId(), runtimeID) {
			denied := AuditEvent{Kind: AuditDenied, Procedure: req.Spec().Procedure, Reason: "the plugin has no such registration"}
			denied.Registration = req.Msg.GetRegistrationId()
			s.note(ctx, denied)
		}
		return nil, connect.NewError(connect.CodeNotFound, errNotAvailable)
	}
	event := AuditEvent{Kind: AuditUnregistered, RuntimeID: runtimeID, Procedure: req.Spec().Procedure}
	event.Registration = req.Msg.GetRegistrationId()
	if id := s.identity(runtimeID); id != nil {
		event.SelfID = id.SelfID()
	}
	s.note(ctx, event)
	return connect.NewResponse(&connectpluginv1.UnregisterServiceResponse{}), nil
}

// DiscoverService selects a provider of a type. A type that the caller may not use, or
// did not declare, is NotFound whether or not anybody provides it; so is one of which no
// provider satisfies min_version. A type that the caller may use and that nobody provides
// at the moment, or nobody who is well, is Unavailable.
func (s *ServiceRegistry) DiscoverService(ctx context.Context, req *connect.Request[connectpluginv1.DiscoverServiceRequest]) (*connect.Response[connectpluginv1.DiscoverServiceResponse], error) {
	c, _, err := callOf(ctx, &s.member, req)
	if err != nil {
		return nil, err
	}
	constraint, err := semrange.ParseConstraint(req.Msg.GetMinVersion())
	if err != nil {
		return nil, errorf(connect.CodeInvalidArgument, "min_version: %w", err)
	}
	serviceType := req.Msg.GetServiceType()
	if err := ValidateServiceType(serviceType); err != nil {
		return nil, errorf(connect.CodeInvalidArgument, "service_type: %w", err)
	}
	if err := s.mayWatch(ctx, c, serviceType, req.Spec().Procedure); err != nil {
		return nil, err
	}
	reg, _, err := s.made().Select(serviceType, constraint)
	if err != nil {
		return nil, absence(s.catalog.WhyNone(serviceType, constraint))
	}
	return connect.NewResponse(&connectpluginv1.DiscoverServiceResponse{
		Endpoint:       wireEndpoint(reg),
		SingleProvider: s.catalog.Providers(serviceType) == 1,
	}), nil
}

// absence is what a caller who may use a type learns where there is no provider.
func absence(why catalog.Absence) *connect.Error {
	code := connect.CodeNotFound
	if why == catalog.AbsentForNow {
		code = connect.CodeUnavailable
	}
	return connect.NewError(code, errNotAvailable)
}

// wireEndpoint is what other plugins learn of a registration: its route through
// the host, never where the plugin is.
func wireEndpoint(reg catalog.Registration) *connectpluginv1.ServiceEndpoint {
	metadata := maps.Clone(reg.Metadata)
	delete(metadata, metadataBaseURL)
	delete(metadata, metadataStandby)
	return &connectpluginv1.ServiceEndpoint{
		ProviderId:  reg.RuntimeID,
		Version:     reg.Version,
		EndpointUrl: pathServices + reg.Type + "/" + reg.RuntimeID,
		Metadata:    metadata,
	}
}

// GetProvider returns a registration, or an error where there is none.
func (s *ServiceRegistry) GetProvider(registrationID string) (*ServiceProvider, error) {
	reg, ok := s.made().Get(registrationID)
	if !ok {
		return nil, fmt.Errorf("registration %q: %w", registrationID, catalog.ErrNotFound)
	}
	return provider(reg), nil
}

// GetProviderByRuntimeID returns the first registration of a plugin, or an error
// where it has none.
func (s *ServiceRegistry) GetProviderByRuntimeID(runtimeID string) (*ServiceProvider, error) {
	regs := s.made().ByRuntime(runtimeID)
	if len(regs) == 0 {
		return nil, fmt.Errorf("runtime id %q: %w", runtimeID, catalog.ErrNotFound)
	}
	return provider(regs[0]), nil
}

// GetAllProviders returns every registration of a type, in the order in which
// they were made.
func (s *ServiceRegistry) GetAllProviders(serviceType string) []*ServiceProvider {
	return providers(s.made().ByType(serviceType))
}

// GetServicesBy returns every registration of a plugin.
func (s *ServiceRegistry) GetServicesBy(runtimeID string) []*ServiceProvider {
	return providers(s.made().ByRuntime(runtimeID))
}

// HasService reports whether a routable provider of a type satisfies minVersion, a
// constraint as in [ServiceDependency]. It changes no selection.
func (s *ServiceRegistry) HasService(serviceType string, minVersion string) bool {
	constraint, err := semrange.ParseConstraint(minVersion)
	return err == nil && s.made().Has(serviceType, constraint)
}

// SelectProvider chooses a provider that satisfies minVersion, a constraint as in
// [ServiceDependency], by the type's strategy.
func (s *ServiceRegistry) SelectProvider(serviceType string, minVersion string) (*ServiceProvider, error) {
	constraint, err := semrange.ParseConstraint(minVersion)
	if err != nil {
		return nil, fmt.Errorf("minVersion: %w", err)
	}
	reg, _, err := s.made().Select(serviceType, constraint)
	if err != nil {
		return nil, fmt.Errorf("service type %q: %w", serviceType, err)
	}
	return provider(reg), nil
}

// SetSelectionStrategy sets the strategy of a type, by which discovery selects, and the host
// where a call names no provider. Without one discovery names the first, as SelectionFirst
// does, and the host chooses by load.
func (s *ServiceRegistry) SetSelectionStrategy(serviceType string, strategy SelectionStrategy) {
	switch strategy {
	case SelectionFirst:
		s.made().SetStrategy(serviceType, catalog.StrategyFirst)
	case SelectionRoundRobin:
		s.made().SetStrategy(serviceType, catalog.StrategyRoundRobin)
	case SelectionRandom:
		s.made().SetStrategy(serviceType, catalog.StrategyRandom)
	case SelectionWeighted:
		s.made().SetStrategy(serviceType, catalog.StrategyWeighted)
	}
}

// SetAllowedServices narrows what a live plugin may register to the given types,
// until it is called again or the identity ends, whatever the plugin declares when it
// renews; policy still has to allow them. Registrations of other types are withheld, and come
// back when they are allowed again; calls in flight that go through them end. What shall hold for the plugin's next
// identity, too, belongs into policy; only a launched plugin keeps it when it enrols
// again. A list that names types also bounds what the host itself registers for the
// runtime id, with an identity or without.
func (s *ServiceRegistry) SetAllowedServices(runtimeID string, serviceTypes []string) {
	left := policy.NewSet(slices.DeleteFunc(slices.Clone(serviceTypes), func(t string) bool { return t == policy.Any }))
	if h := s.bound.Load(); h == nil || !narrow(h, runtimeID, left) {
		s.allow(runtimeID, left)
	}
	s.withhold(func(reg catalog.Registration) bool { return reg.RuntimeID == runtimeID && !left.Has(reg.Type) })
	s.giveBack(everything)
	if h := s.bound.Load(); h != nil {
		h.permitted.Enforce(h.rules.Load(), errWithdrawn)
	}
}

// narrow bounds what a live identity may register.
func narrow(h *hub, runtimeID string, left policy.Set) bool {
	id, ok := h.store.Lookup(runtimeID)
	if ok {
		declared(id).within.Store(&left)
	}
	return ok
}

// UnregisterPluginServices withdraws everything that a plugin registered.
func (s *ServiceRegistry) UnregisterPluginServices(runtimeID string) {
	s.made().RemoveWhere(func(reg catalog.Registration) bool { return reg.RuntimeID == runtimeID })
}

// made returns the catalogue of a registry that NewServiceRegistry made.
func (s *ServiceRegistry) made() *catalog.Catalog {
	mustBeMade("the ServiceRegistry", s != nil && s.catalog != nil, "NewServiceRegistry")
	return s.catalog
}

// withhold takes out what a plugin registered and may not provide any more, until it may
// again. It tells the operator, and returns how many registrations those were.
func (s *ServiceRegistry) withhold(match func(catalog.Registration) bool) int {
	out := s.made().Withhold(match)
	s.tellWithheld(out)
	return len(out)
}

// setAside withholds what was not offered yet.
func (s *ServiceRegistry) setAside(regs []catalog.Registration) {
	for _, reg := range regs {
		s.catalog.SetAside(reg)
	}
	s.tellWithheld(regs)
}

func (s *ServiceRegistry) tellWithheld(regs []catalog.Registration) {
	h := s.bound.Load()
	if h == nil {
		return
	}
	for _, reg := range regs {
		h.logOnce("withheld:"+reg.SelfID).Warn("a service that a plugin registered is withheld until the plugin may provide it again",
			keySelfID, reg.SelfID, keyRuntimeID, reg.RuntimeID, keyService, reg.Type)
	}
}

func everything(catalog.Registration) bool { return true }

// vacated gives back what another registration was in the way of. Who changes policy does so when all
// is taken that has to be.
func (s *ServiceRegistry) vacated(concerns func(catalog.Registration) bool) {
	if !s.settling.Load() {
		s.giveBack(concerns)
	}
}

// giveBack offers again what is withheld of what it concerns and its plugin may provide, and
// returns how many registrations those are.
func (s *ServiceRegistry) giveBack(concerns func(catalog.Registration) bool) int {
	h := s.bound.Load()
	may := func(reg catalog.Registration) bool {
		if !concerns(reg) {
			return false
		}
		if h != nil {
			if id, ok := h.store.Lookup(reg.RuntimeID); ok {
				return h.mayProvide(id, reg.Type) && !s.isDead(h, reg.RuntimeID)
			}
		}
		return reg.ByHost && s.allows(reg)
	}
	given := s.catalog.Restore(may)
	back := len(given)
	for _, reg := range given {
		if !may(reg) { // since a moment
			back -= len(s.catalog.Withhold(func(other catalog.Registration) bool { return other.ID == reg.ID }))
			continue
		}
		if h == nil {
			continue
		}
		h.log().Info("a service that was withheld is provided again", keySelfID, reg.SelfID, keyRuntimeID, reg.RuntimeID, keyService, reg.Type)
		h.audit(AuditEvent{
			Kind: AuditRegistered, RuntimeID: reg.RuntimeID, SelfID: reg.SelfID, Right: RightProvides, Subject: reg.Type,
			Reason: "it was withheld, and is allowed again",
		})
	}
	return back
}

// allows reports whether SetAllowedServices named a type for a runtime id that is no plugin's.
func (s *ServiceRegistry) allows(reg catalog.Registration) bool {
	s.allowedMu.Lock()
	defer s.allowedMu.Unlock()
	return s.allowed[reg.RuntimeID].Has(reg.Type)
}

func (s *ServiceRegistry) allow(runtimeID string, left policy.Set) {
	s.allowedMu.Lock()
	defer s.allowedMu.Unlock()
	if s.allowed == nil {
		s.allowed = map[string]policy.Set{}
	}
	s.allowed[runtimeID] = left
}

func (s *ServiceRegistry) routes(opts ...connect.HandlerOption) []route {
	return []route{callerRoute(connectpluginv1connect.NewServiceRegistryHandler(s, opts...))}
}

// bind ties the registry to a hub: what an identity registered ends with it.
func (s *ServiceRegistry) bind(h *hub) error {
	first := s.bound.Load() == nil
	if err := s.member.bind(h); err != nil || !first {
		return err
	}
	s.configure(h.settings().limits) // again by a Host, whose limits are the same
	h.store.Subscribe(func(e tokenstore.End) { s.catalog.RemoveRuntime(e.Identity.RuntimeID()) })
	trust := s.catalog.Trust
	h.trust.Store(&trust)
	return nil
}

// configure sets the bounds of the catalogue.
func (s *ServiceRegistry) configure(l Limits) {
	cfg := catalogConfig(l)
	cfg.AllowMultiple = func(serviceType string) bool {
		h := s.bound.Load()
		return h == nil || h.rules.Load().AllowMultiple.Has(serviceType)
	}
	cfg.Observe, cfg.Vacated = s.observe, s.vacated
	s.catalog.Configure(cfg)
}

func provider(reg catalog.Registration) *ServiceProvider {
	return &ServiceProvider{
		RegistrationID: reg.ID, RuntimeID: reg.RuntimeID, ServiceType: reg.Type, Version: reg.Version,
		EndpointPath: reg.Path, Metadata: maps.Clone(reg.Metadata), RegisteredAt: reg.RegisteredAt,
	}
}

func providers(regs []catalog.Registration) []*ServiceProvider {
	out := make([]*ServiceProvider, 0, len(regs))
	for _, reg := range regs {
		out = append(out, provider(reg))
	}
	return out
}

// wordings are how watches say what they have to say: as Connect does, once for all who hear the
// same.
type wordings struct {
	handler   http.Handler
	recovered func(context.Context, connect.Spec, http.Header, any) error
	said      wording.Memory[saying]
}

// saying is an event in one form.
type saying struct {
	form               wording.Form
	serviceType, epoch string
	sequence           uint64
	bare               bool // without metadata, which a registration that is gone has no more
}

// rests has the watches of the registry rest, whose handler has these options and no interceptors
// that would be around them.
func (s *ServiceRegistry) rests(recovered func(context.Context, connect.Spec, http.Header, any) error, opts ...connect.HandlerOption) {
	s.words.Store(&wordings{recovered: recovered, handler: connect.NewBidiStreamHandler(watchProcedure, say, opts...)})
}

// say says what is to be recorded, after the head of an answer.
func say(ctx context.Context, stream *connect.BidiStream[connectpluginv1.WatchServiceRequest, connectpluginv1.WatchServiceEvent]) error {
	rec := wording.RecordOf(ctx)
	if err := stream.Send(nil); err != nil {
		return err
	}
	rec.Begin()
	switch what := rec.What.(type) {
	case error:
		return what
	case *connectpluginv1.WatchServiceEvent:
		defer rec.Stop()
		return stream.Send(what)
	}
	return nil
}

// event is what is sent of an event. Those who fell behind are told so, each for itself.
func (w *wordings) event(f wording.Form, e *catalog.Event) []byte {
	now := func() []byte {
		said, _ := f.Say(w.handler, watchProcedure, wireEvent(*e))
		return said
	}
	if e.Resync {
		return now()
	}
	return w.said.Recall(saying{f, e.Type, e.Epoch, e.Sequence, len(e.Provider.Metadata) == 0}, now)
}

// end is what is sent of the end of a watch, and the header with the trailer.
func (w *wordings) end(f wording.Form, err error) (said []byte, header http.Header) {
	return f.Say(w.handler, watchProcedure, err)
}

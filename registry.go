package connectplugin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"connectrpc.com/connect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/semrange"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
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
}

// NewServiceRegistry makes a registry that shares the catalogue of a lifecycle
// server. Nil makes one.
func NewServiceRegistry(lifecycle *LifecycleServer) *ServiceRegistry {
	if lifecycle == nil {
		lifecycle = NewLifecycleServer()
	}
	return &ServiceRegistry{lifecycle: lifecycle, catalog: lifecycle.catalog}
}

// ServiceRegistryHandler returns the path and the handler of the registry, for a
// server of your own. It serves authenticated callers of the host that the
// registry belongs to.
func ServiceRegistryHandler(server *ServiceRegistry) (string, http.Handler) {
	path, h := connectpluginv1connect.NewServiceRegistryHandler(server)
	return path, server.guard(unaryProcedure, h)
}

// bind ties the registry to a hub: what an identity registered ends with it.
func (s *ServiceRegistry) bind(h *hub) error {
	first := s.bound.Load() == nil
	if err := s.member.bind(h); err != nil || !first {
		return err
	}
	h.store.Subscribe(func(e tokenstore.End) { s.catalog.RemoveRuntime(e.Identity.RuntimeID()) })
	return nil
}

// configure sets the bounds of the catalogue.
func (s *ServiceRegistry) configure(c *ServeConfig) {
	cfg := catalogConfig(c.Limits)
	cfg.AllowMultiple = func(serviceType string) bool {
		h := s.bound.Load()
		return h == nil || h.rules.Load().allowMultiple.has(serviceType)
	}
	cfg.Observe = s.observe
	s.catalog.Configure(cfg)
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

// RegisterService registers a service of the calling plugin. A plugin that
// registers a type again replaces its registration.
func (s *ServiceRegistry) RegisterService(ctx context.Context, req *connect.Request[connectpluginv1.RegisterServiceRequest]) (*connect.Response[connectpluginv1.RegisterServiceResponse], error) {
	c, runtimeID, err := s.caller(ctx, req.Spec(), req.Header())
	if err != nil {
		return nil, err
	}
	m, procedure := req.Msg, req.Spec().Procedure
	if err := validateRegistration(runtimeID, m); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	reg := catalog.Registration{
		ID: "reg-" + rand.Text(), RuntimeID: runtimeID, SelfID: runtimeID,
		Type: m.GetServiceType(), Version: m.GetVersion(), Path: m.GetEndpointPath(),
		Metadata: m.GetMetadata(), Weight: declaredWeight(m.GetMetadata()), RegisteredAt: time.Now(),
	}
	if c != nil {
		err = s.registerFor(ctx, c, reg, procedure)
	} else {
		err = s.registerOwn(ctx, reg)
	}
	if err != nil {
		return nil, err
	}
	s.note(ctx, AuditRegistered, procedure, reg.Type, "")
	return connect.NewResponse(&connectpluginv1.RegisterServiceResponse{RegistrationId: reg.ID}), nil
}

// registerOwn registers what the host itself asks for. A plugin that the host
// knows is registered under its self id.
func (s *ServiceRegistry) registerOwn(ctx context.Context, reg catalog.Registration) error {
	var id *tokenstore.Identity
	if h := s.bound.Load(); h != nil {
		if known, ok := h.store.Lookup(reg.RuntimeID); ok {
			id, reg.SelfID = known, known.SelfID()
		}
	}
	if err := s.catalog.Register(reg); err != nil {
		return s.registerError(ctx, err, reg.Type, "")
	}
	return s.unlessEnded(id)
}

// registerFor registers for a caller what its rights allow, before and after.
func (s *ServiceRegistry) registerFor(ctx context.Context, c *caller, reg catalog.Registration, procedure string) error {
	if err := s.spend(ctx, c, procedure, reg.Type); err != nil {
		return err
	}
	reg.SelfID = c.id.SelfID()
	book := c.hub.rules.Load()
	if err := s.approve(ctx, c, reg, procedure); err != nil {
		return err
	}
	if err := s.catalog.Register(reg); err != nil {
		return s.registerError(ctx, err, reg.Type, procedure)
	}
	if err := s.unlessEnded(c.id); err != nil {
		return err
	}
	if now := c.hub.rules.Load(); now != book {
		return s.reapprove(ctx, c, reg, book, now, procedure)
	}
	return nil
}

// unlessEnded takes everything back where the identity, nil for none, ended while
// something was being done for it.
func (s *ServiceRegistry) unlessEnded(id *tokenstore.Identity) error {
	if id == nil || !id.Ended() {
		return nil
	}
	s.catalog.RemoveRuntime(id.RuntimeID())
	return connect.NewError(connect.CodeUnauthenticated, errUnauthenticated)
}

// spend takes one change of the caller's budget.
func (m *member) spend(ctx context.Context, c *caller, procedure, subject string) error {
	if c == nil {
		return nil
	}
	l := c.hub.config().Limits
	if c.hub.allow("change:"+c.id.RuntimeID(), Rate{RequestsPerSecond: l.ChangesPerSecond, Burst: l.ChangeBurst}) {
		return nil
	}
	m.note(ctx, AuditLimited, procedure, subject, "rate of changes")
	return connect.NewError(connect.CodeResourceExhausted, errTooMany)
}

// declaredWeight is the share of the calls that a provider asks for, with
// [SelectionWeighted]. What is no number counts as 1.
func declaredWeight(metadata map[string]string) int {
	n, err := strconv.Atoi(metadata[metadataWeight])
	if err != nil {
		return 1
	}
	return n
}

func validateRegistration(runtimeID string, m *connectpluginv1.RegisterServiceRequest) error {
	if runtimeID == "" {
		return fmt.Errorf("header %s is empty", headerRuntimeID)
	}
	if err := ValidateServiceType(m.GetServiceType()); err != nil {
		return fmt.Errorf("service_type: %w", err)
	}
	if err := ValidateVersion(m.GetVersion()); err != nil {
		return fmt.Errorf("version: %w", err)
	}
	if m.GetEndpointPath() != "" {
		if err := ValidateEndpointPath(m.GetEndpointPath()); err != nil {
			return fmt.Errorf("endpoint_path: %w", err)
		}
	}
	if err := ValidateMetadata(m.GetMetadata()); err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	return nil
}

// approve checks a plugin's right to register and settles where the plugin is
// dialled.
func (s *ServiceRegistry) approve(ctx context.Context, c *caller, reg catalog.Registration, procedure string) error {
	denied := connect.NewError(connect.CodePermissionDenied, errDenied)
	if !c.hub.mayProvide(c.id, reg.Type) {
		s.note(ctx, AuditDenied, procedure, reg.Type, "not declared or not allowed by policy")
		return denied
	}
	endpoint, own, err := c.hub.endpointFor(ctx, c.id, reg.Metadata[metadataBaseURL])
	if err != nil {
		s.note(ctx, AuditDenied, procedure, reg.Type, err.Error())
		return denied
	}
	if endpoint == "" {
		return nil
	}
	if own {
		rememberEndpoint(c.id, endpoint)
	}
	s.catalog.SetEndpoint(c.id.RuntimeID(), endpoint)
	return nil
}

// reapprove takes back what policy stopped allowing while it was being done.
func (s *ServiceRegistry) reapprove(ctx context.Context, c *caller, reg catalog.Registration, book, now *ruleBook, procedure string) error {
	if before, after := book.of(c.id), now.of(c.id); before != nil && after != nil {
		s.settleEndpoint(c.id, before, after)
	}
	if !now.mayProvide(c.id, reg.Type) {
		_ = s.catalog.Unregister(reg.ID, "")
	}
	if !now.allowMultiple.has(reg.Type) {
		s.keepOwner(reg.Type)
	}
	if _, ok := s.catalog.Get(reg.ID); ok {
		return nil
	}
	s.note(ctx, AuditDenied, procedure, reg.Type, "policy changed during the registration")
	return connect.NewError(connect.CodePermissionDenied, errDenied)
}

// keepOwner leaves a type to the self id that provided it first and returns how
// many registrations of others it removed.
func (s *ServiceRegistry) keepOwner(serviceType string) int {
	removed := 0
	regs := s.catalog.ByType(serviceType)
	for _, reg := range regs {
		if reg.SelfID != regs[0].SelfID && s.catalog.Unregister(reg.ID, "") == nil {
			removed++
		}
	}
	return removed
}

// settleEndpoint brings a plugin's endpoint in line with its changed rules and
// reports whether it took away the one that the plugin had. An endpoint that the
// host set itself stays unless policy names one.
func (s *ServiceRegistry) settleEndpoint(id *tokenstore.Identity, before, now *pluginRules) bool {
	current, _ := s.catalog.Endpoint(id.RuntimeID())
	next := now.endpointText()
	if next == "" {
		own := declared(id).endpoint.text()
		byPolicy := current != "" && current == before.endpointText()
		byPlugin := current != "" && current == own
		if !byPolicy && (!byPlugin || now.allowOwnAddress) {
			return false
		}
	}
	s.catalog.SetEndpoint(id.RuntimeID(), next)
	return current != "" && current != next
}

func (s *ServiceRegistry) registerError(ctx context.Context, err error, serviceType, procedure string) error {
	switch {
	case errors.Is(err, catalog.ErrConflict):
		s.note(ctx, AuditConflict, procedure, serviceType, "the type belongs to another plugin")
		return connect.NewError(connect.CodePermissionDenied, errDenied)
	case errors.Is(err, catalog.ErrLimit):
		s.note(ctx, AuditLimited, procedure, serviceType, err.Error())
		return connect.NewError(connect.CodeResourceExhausted, errTooMany)
	}
	return connect.NewError(connect.CodeInternal, errNotAvailable)
}

// UnregisterService withdraws a registration of the calling plugin. That of
// another plugin and one that does not exist give the same NotFound.
func (s *ServiceRegistry) UnregisterService(ctx context.Context, req *connect.Request[connectpluginv1.UnregisterServiceRequest]) (*connect.Response[connectpluginv1.UnregisterServiceResponse], error) {
	c, runtimeID, err := s.caller(ctx, req.Spec(), req.Header())
	if err != nil {
		return nil, err
	}
	if err := s.spend(ctx, c, req.Spec().Procedure, req.Msg.GetRegistrationId()); err != nil {
		return nil, err
	}
	if err := s.catalog.Unregister(req.Msg.GetRegistrationId(), runtimeID); err != nil {
		s.note(ctx, AuditDenied, req.Spec().Procedure, req.Msg.GetRegistrationId(), err.Error())
		return nil, connect.NewError(connect.CodeNotFound, errNotAvailable)
	}
	s.note(ctx, AuditUnregistered, req.Spec().Procedure, req.Msg.GetRegistrationId(), "")
	return connect.NewResponse(&connectpluginv1.UnregisterServiceResponse{}), nil
}

// DiscoverService selects a provider of a type. A type that the caller may not
// use and one that nobody provides give the same NotFound.
func (s *ServiceRegistry) DiscoverService(ctx context.Context, req *connect.Request[connectpluginv1.DiscoverServiceRequest]) (*connect.Response[connectpluginv1.DiscoverServiceResponse], error) {
	c, _, err := s.caller(ctx, req.Spec(), req.Header())
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
	if err := s.mayUse(ctx, c, serviceType, req.Spec().Procedure); err != nil {
		return nil, err
	}
	reg, _, err := s.catalog.Select(serviceType, constraint)
	if err != nil {
		return nil, connect.NewError(connect.CodeNotFound, errNotAvailable)
	}
	return connect.NewResponse(&connectpluginv1.DiscoverServiceResponse{
		Endpoint:       wireEndpoint(reg),
		SingleProvider: s.catalog.Providers(serviceType) == 1,
	}), nil
}

// wireEndpoint is what other plugins learn of a registration: its route through
// the host, never where the plugin is.
func wireEndpoint(reg catalog.Registration) *connectpluginv1.ServiceEndpoint {
	metadata := maps.Clone(reg.Metadata)
	delete(metadata, metadataBaseURL)
	return &connectpluginv1.ServiceEndpoint{
		ProviderId:  reg.RuntimeID,
		Version:     reg.Version,
		EndpointUrl: pathServices + reg.Type + "/" + reg.RuntimeID,
		Metadata:    metadata,
	}
}

// GetProvider returns a registration, or an error where there is none.
func (s *ServiceRegistry) GetProvider(registrationID string) (*ServiceProvider, error) {
	reg, ok := s.catalog.Get(registrationID)
	if !ok {
		return nil, fmt.Errorf("registration %q: %w", registrationID, catalog.ErrNotFound)
	}
	return provider(reg), nil
}

// GetProviderByRuntimeID returns the first registration of a plugin, or an error
// where it has none.
func (s *ServiceRegistry) GetProviderByRuntimeID(runtimeID string) (*ServiceProvider, error) {
	regs := s.catalog.ByRuntime(runtimeID)
	if len(regs) == 0 {
		return nil, fmt.Errorf("runtime id %q: %w", runtimeID, catalog.ErrNotFound)
	}
	return provider(regs[0]), nil
}

// GetAllProviders returns every registration of a type, in the order in which
// they were made.
func (s *ServiceRegistry) GetAllProviders(serviceType string) []*ServiceProvider {
	return providers(s.catalog.ByType(serviceType))
}

// GetServicesBy returns every registration of a plugin.
func (s *ServiceRegistry) GetServicesBy(runtimeID string) []*ServiceProvider {
	return providers(s.catalog.ByRuntime(runtimeID))
}

// HasService reports whether a routable provider of a type satisfies minVersion.
// It changes no selection.
func (s *ServiceRegistry) HasService(serviceType string, minVersion string) bool {
	constraint, err := semrange.ParseConstraint(minVersion)
	return err == nil && s.catalog.Has(serviceType, constraint)
}

// SelectProvider chooses a provider by the type's strategy.
func (s *ServiceRegistry) SelectProvider(serviceType string, minVersion string) (*ServiceProvider, error) {
	constraint, err := semrange.ParseConstraint(minVersion)
	if err != nil {
		return nil, fmt.Errorf("minVersion: %w", err)
	}
	reg, _, err := s.catalog.Select(serviceType, constraint)
	if err != nil {
		return nil, fmt.Errorf("service type %q: %w", serviceType, err)
	}
	return provider(reg), nil
}

// SetSelectionStrategy sets the strategy of a type. The default is
// SelectionFirst.
func (s *ServiceRegistry) SetSelectionStrategy(serviceType string, strategy SelectionStrategy) {
	switch strategy {
	case SelectionFirst:
		s.catalog.SetStrategy(serviceType, catalog.StrategyFirst)
	case SelectionRoundRobin:
		s.catalog.SetStrategy(serviceType, catalog.StrategyRoundRobin)
	case SelectionRandom:
		s.catalog.SetStrategy(serviceType, catalog.StrategyRandom)
	case SelectionWeighted:
		s.catalog.SetStrategy(serviceType, catalog.StrategyWeighted)
	}
}

// SetAllowedServices narrows what a live plugin may register to the given types;
// policy still has to allow them. It has no effect on an unknown runtime id, nor
// on a registry without a host.
func (s *ServiceRegistry) SetAllowedServices(runtimeID string, serviceTypes []string) {
	h := s.bound.Load()
	if h == nil {
		return
	}
	id, ok := h.store.Lookup(runtimeID)
	if !ok {
		return
	}
	d := *declared(id)
	d.provides = newNameSet(slices.DeleteFunc(slices.Clone(serviceTypes), func(t string) bool { return t == anything }))
	id.SetAttributes(&d)
	s.catalog.RemoveWhere(func(reg catalog.Registration) bool {
		return reg.RuntimeID == runtimeID && !d.provides.has(reg.Type)
	})
}

// UnregisterPluginServices withdraws everything that a plugin registered.
func (s *ServiceRegistry) UnregisterPluginServices(runtimeID string) {
	s.catalog.RemoveWhere(func(reg catalog.Registration) bool { return reg.RuntimeID == runtimeID })
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

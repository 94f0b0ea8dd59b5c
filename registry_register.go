package connectplugin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"connectrpc.com/connect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/lookup"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// RegisterService registers a service of the calling plugin. A plugin that
// registers a type again replaces its registration. A type that another plugin provides
// is AlreadyExists, unless policy lets several provide it. With the metadata "standby" set
// to "true" the registration is accepted and waits: it takes over when the last provider
// of the type has left or is dead, and nobody discovers it or is routed to it before.
func (s *ServiceRegistry) RegisterService(ctx context.Context, req *connect.Request[connectpluginv1.RegisterServiceRequest]) (*connect.Response[connectpluginv1.RegisterServiceResponse], error) {
	c, runtimeID, err := callOf(ctx, &s.member, req)
	if err != nil {
		return nil, err
	}
	m, procedure := req.Msg, req.Spec().Procedure
	if err := validateRegistration(runtimeID, m); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	reg := catalog.Registration{
		ID: "reg-" + rand.Text(), RuntimeID: runtimeID, SelfID: hostsOwn + runtimeID,
		Type: m.GetServiceType(), Version: m.GetVersion(), Path: servicePath(m.GetEndpointPath()),
		Metadata: m.GetMetadata(), Weight: declaredWeight(m.GetMetadata()), RegisteredAt: time.Now(),
		Standby: m.GetMetadata()[metadataStandby] == metadataTrue,
	}
	if c != nil {
		err = s.registerFor(ctx, c, reg, procedure)
	} else {
		err = s.registerOwn(ctx, reg)
	}
	if err != nil {
		return nil, err
	}
	event := RightProvides.event(AuditRegistered, procedure, reg.Type, "")
	event.RuntimeID, event.SelfID = runtimeID, reg.SelfID
	resp := connect.NewResponse(&connectpluginv1.RegisterServiceResponse{RegistrationId: reg.ID})
	if s.catalog.StandsBy(reg.ID) {
		event.Reason = "it stands by: another provides the type"
		resp.Header().Set(headerStandby, reg.Type)
	}
	if id := s.identity(runtimeID); id != nil {
		event.SelfID = id.SelfID()
	}
	s.note(ctx, event)
	return resp, nil
}

// hostsOwn begins the name of what the host itself provides under a runtime id that is no
// plugin's. No self id begins like that.
const hostsOwn = "host/"

// registerOwn registers what the host itself asks for. A plugin that the host
// knows is registered under its self id.
func (s *ServiceRegistry) registerOwn(ctx context.Context, reg catalog.Registration) error {
	var id *tokenstore.Identity
	if h := s.bound.Load(); h != nil {
		if known, ok := h.store.Lookup(reg.RuntimeID); ok {
			id, reg.SelfID = known, known.SelfID()
		}
	}
	if !s.mayRegister(id, reg) {
		return connect.NewError(connect.CodePermissionDenied, errDenied)
	}
	reg.ByHost = true
	if err := s.catalog.Register(reg); err != nil {
		return s.registerError(ctx, err, reg.Type, "")
	}
	return s.unlessEnded(id)
}

// mayRegister reports whether SetAllowedServices lets the host register a type for a
// plugin, nil where it has no identity. A list without types says nothing of the host.
func (s *ServiceRegistry) mayRegister(id *tokenstore.Identity, reg catalog.Registration) bool {
	if id != nil {
		within := declared(id).within.Load()
		return within == nil || !within.NamesAny() || within.Has(reg.Type)
	}
	s.allowedMu.Lock()
	defer s.allowedMu.Unlock()
	allowed, ok := s.allowed[reg.RuntimeID]
	return !ok || !allowed.NamesAny() || allowed.Has(reg.Type)
}

// registerFor registers for a caller what its rights allow, before and after.
func (s *ServiceRegistry) registerFor(ctx context.Context, c *caller, reg catalog.Registration, procedure string) error {
	if err := s.spendChange(ctx, c, AuditEvent{Procedure: procedure, Right: RightProvides, Subject: reg.Type}); err != nil {
		return err
	}
	reg.SelfID, reg.Fleet = c.id.SelfID(), &c.hub.shareOf(c.id).holds.listed
	book := c.hub.rules.Load()
	if err := s.approve(ctx, c, reg, procedure); err != nil {
		return err
	}
	if launched := c.hub.launchOf(c.id); launched != nil {
		defer launched.Poke()
		if launched.Keep(reg) {
			return s.unlessEnded(c.id) // until it takes the place of the instance before
		}
	}
	if reg.Standby { // its own dead are in nobody's way
		c.hub.succeed(ctx, reg.SelfID, c.hub.proofOf(c.id), maxPredecessors, func(id *tokenstore.Identity) bool {
			return id != c.id && s.catalog.Claims(reg.Type, id.RuntimeID())
		})
	}
	if err := s.catalog.Register(reg); err != nil {
		return s.registerError(ctx, err, reg.Type, procedure)
	}
	if s.catalog.StandsBy(reg.ID) {
		s.pressFor(c.hub, reg.Type)
	} else {
		s.doubtSiblings(c.hub, reg)
	}
	if err := s.unlessEnded(c.id); err != nil {
		return err
	}
	if now := c.hub.rules.Load(); now != book || !now.MayProvide(subjectOf(c.id), reg.Type) {
		return s.reapprove(ctx, c, reg, book, now, procedure)
	}
	return nil
}

// doubtSiblings prefers a new registration over earlier ones of the same self id that may
// be those of its dead predecessors: one that has no connection to the host comes last until
// it shows life, and the others are asked at once.
func (s *ServiceRegistry) doubtSiblings(h *hub, reg catalog.Registration) {
	told := false
	for _, runtimeID := range s.catalog.Siblings(reg.Type, reg.RuntimeID, reg.SelfID) {
		id, ok := h.store.Lookup(runtimeID)
		if ok && !told && !h.seemsDead(id) {
			told = true
			h.logOnce("sibling:"+reg.SelfID).Info("a further instance of a plugin provides a type and shares its calls; "+
				"PluginPolicy.MaxInstances: 1 forbids that",
				keySelfID, reg.SelfID, keyService, reg.Type, keyRuntimeID, reg.RuntimeID)
		}
		if !ok || id.Busy() || id.Peer() == "" {
			continue
		}
		if h.seemsDead(id) {
			s.doubt(id)
		}
		s.press(id)
	}
}

// doubtLost does the same for one whose last connection has ended: its successor may have registered before.
func (s *ServiceRegistry) doubtLost(h *hub, id *tokenstore.Identity) {
	for _, reg := range s.catalog.ByRuntime(id.RuntimeID()) {
		if h.seemsDead(id) && len(s.catalog.Siblings(reg.Type, reg.RuntimeID, reg.SelfID)) > 0 {
			s.doubt(id)
			s.press(id)
		}
	}
}

// doubt lets a provider come last until it shows life.
func (s *ServiceRegistry) doubt(id *tokenstore.Identity) {
	id.Doubt()
	s.catalog.Doubt(id.RuntimeID())
	if !id.Doubted() { // it showed life meanwhile
		s.catalog.Trust(id.RuntimeID())
	}
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
		if err := ValidateEndpointPath(servicePath(m.GetEndpointPath())); err != nil {
			return fmt.Errorf("endpoint_path: %w", err)
		}
	}
	if err := ValidateMetadata(m.GetMetadata()); err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	return nil
}

// lookupWait is when a plugin is asked to come again whose base_url could not be looked up.
const lookupWait = time.Second

// approve checks a plugin's right to register and settles where the plugin is
// dialled.
func (s *ServiceRegistry) approve(ctx context.Context, c *caller, reg catalog.Registration, procedure string) error {
	denied := connect.NewError(connect.CodePermissionDenied, errDenied)
	if !c.hub.mayProvide(c.id, reg.Type) {
		s.note(ctx, RightProvides.event(AuditDenied, procedure, reg.Type, c.hub.notAllowed(c.id, RightProvides, reg.Type)))
		return denied
	}
	endpoint, own, err := c.hub.endpointFor(ctx, c.id, reg.Metadata[metadataBaseURL])
	if errors.Is(err, lookup.ErrBusy) {
		bound := map[bool]string{false: tooManyLookups, true: tooManyLookupsInAll}[errors.Is(err, lookup.ErrAllBusy)]
		s.note(ctx, RightProvides.event(AuditLimited, procedure, reg.Type, bound))
		return busyFor(errTooManyLookups, lookupWait)
	}
	if err != nil {
		s.note(ctx, AuditEvent{Kind: AuditDenied, Procedure: procedure, Subject: reg.Type, Reason: err.Error()}) // no matter of Provides
		return denied
	}
	if endpoint == "" {
		return nil
	}
	byHost := !own && c.hub.launchOf(c.id) == nil
	if err := s.claim(ctx, c, endpoint, byHost); err != nil {
		s.note(ctx, RightProvides.event(AuditConflict, procedure, reg.Type, "base_url: "+err.Error()))
		return denied
	}
	if byHost {
		endpoint = c.hub.mightName(ctx, reg.Metadata[metadataBaseURL])
	}
	if (own || byHost) && endpoint != "" {
		rememberEndpoint(c.id, endpoint)
	}
	return nil
}

// claim gives a caller its endpoint, unless that is somebody else's. The error is for the
// log.
func (s *ServiceRegistry) claim(ctx context.Context, c *caller, endpoint string, byHost bool) error {
	claim := c.hub.claimOf(c.id, endpoint)
	if claim.ByHost = byHost; !byHost {
		if owner, ok := reserved(c.hub.rules.Load(), c.id, endpoint, c.hub.namesAddress(ctx)); ok {
			return fmt.Errorf("the endpoint is that of %q, as policy says", owner)
		}
		var err error
		if claim.Proven, err = s.prove(ctx, c.id, claim); err != nil {
			return err
		}
	}
	if err := s.occupy(c.hub, claim); err != nil {
		return err
	}
	if c.id.Ended() { // meanwhile; nobody else will take it back
		s.catalog.RemoveRuntime(c.id.RuntimeID())
	}
	return nil
}

// prove has a plugin show that it answers at the endpoint that it names, where nothing else
// would: nothing that is its alone is demanded of who answers there, or another has the
// endpoint. It reports whether the plugin showed it now, and an error where another answers.
// The same is asked on each connection, before any call goes over it.
func (s *ServiceRegistry) prove(ctx context.Context, id *tokenstore.Identity, claim catalog.Claim) (proven bool, err error) {
	w := s.ways.Load()
	if w == nil {
		return false, nil
	}
	owner, taken := s.catalog.Owner(claim)
	current, _ := s.catalog.Endpoint(claim.RuntimeID)
	has := current == claim.Endpoint && s.catalog.NamedItself(claim.RuntimeID)
	if !taken && (has || !w.unproven(id)) {
		return false, nil
	}
	err = w.prove(ctx, id, claim.Endpoint)
	switch {
	case err == nil:
		return true, nil
	case taken:
		return false, fmt.Errorf("%w: %q, and the plugin does not show that it answers there: %w", catalog.ErrTaken, owner, err)
	case errors.Is(err, errNotTheOne):
		return false, fmt.Errorf("nothing shows that it is the plugin that answers at its endpoint; give it a certificate or keys of its own "+
			"in Policy.Plugins[%q], or name its Endpoint there: %w", clipped(id.SelfID()), err)
	}
	// Whoever comes there later has to show it before any call goes there.
	s.bound.Load().logOnce("silent:"+claim.SelfID).Warn("a plugin does not answer yet where it says that it is",
		keyRuntimeID, claim.RuntimeID, keyError, err)
	return false, nil
}

// claimOf is the claim of a plugin to an endpoint.
func (h *hub) claimOf(id *tokenstore.Identity, endpoint string) catalog.Claim {
	return catalog.Claim{RuntimeID: id.RuntimeID(), SelfID: id.SelfID(), Proof: h.proofOf(id), Endpoint: endpoint}
}

// occupy gives an endpoint to a plugin.
func (s *ServiceRegistry) occupy(h *hub, claim catalog.Claim) error {
	before, _ := s.catalog.Endpoint(claim.RuntimeID)
	vacated, err := s.catalog.ClaimEndpoint(claim)
	if err == nil {
		s.vacate(h, claim.SelfID, vacated)
		if id, ok := h.store.Lookup(claim.RuntimeID); ok {
			s.lifecycle.moved(id, before)
		}
	}
	return err
}

// vacate ends what others had at an endpoint that a plugin got: an earlier identity of the
// same process, and what goes through to those who had named it themselves.
func (s *ServiceRegistry) vacate(h *hub, owner string, vacated catalog.Vacated) {
	for _, runtimeID := range vacated.Replaced {
		h.store.Revoke(runtimeID, reasonSucceeded)
		warnShared(h, owner)
	}
	for _, runtimeID := range vacated.Ousted {
		s.oust(h, runtimeID, owner)
	}
}

// replaceRate is how often a plugin may replace its earlier life until it looks like several
// instances that replace each other.
var replaceRate = Rate{RequestsPerSecond: 1 / (10 * time.Second).Seconds(), Burst: 3} //nolint:mnd // explained

// warnShared takes notice that a plugin replaced its earlier life at an endpoint.
func warnShared(h *hub, selfID string) {
	if h.spend(budget{key: "replaced:" + selfID, rate: replaceRate}) {
		return
	}
	h.logOnce("shared:"+selfID).Warn("a plugin replaces its earlier life at its endpoint again and again: "+
		"where several instances run, give each an endpoint "+
		"of its own, also behind a balancer, which has one answer for another", keySelfID, selfID)
}

// oust ends what goes through to a plugin that lost its endpoint to another.
func (s *ServiceRegistry) oust(h *hub, runtimeID, owner string) {
	if w := s.ways.Load(); w != nil {
		w.cutOff(runtimeID)
	}
	e := AuditEvent{
		Kind: AuditConflict, RuntimeID: runtimeID,
		Reason: fmt.Sprintf("the endpoint that it named is that of %q, as the host says or that plugin showed", owner),
	}
	if id, ok := h.store.Lookup(runtimeID); ok {
		e.SelfID, e.Peer = id.SelfID(), addrOf(id)
		s.bar(h, id, reasonOusted)
	}
	h.audit(e)
}

// reapprove takes back what policy stopped allowing while it was being done. Where a plugin
// is that the host launched or adopted is no matter of policy.
func (s *ServiceRegistry) reapprove(ctx context.Context, c *caller, reg catalog.Registration, book, now *policy.Book, procedure string) error {
	before, after := book.Of(subjectOf(c.id)), now.Of(subjectOf(c.id))
	if c.hub.launchOf(c.id) == nil && before != nil && after != nil {
		s.settleEndpoint(c.hub, c.id, before, after)
	}
	if !now.MayProvide(subjectOf(c.id), reg.Type) {
		_ = s.catalog.Unregister(reg.ID, "")
	}
	if !now.AllowMultiple.Has(reg.Type) {
		s.keepOwner(reg.Type)
	}
	if _, ok := s.catalog.Get(reg.ID); ok || s.catalog.StandsBy(reg.ID) {
		return nil
	}
	s.note(ctx, RightProvides.event(AuditDenied, procedure, reg.Type, "what the plugin may provide changed during the registration"))
	return connect.NewError(connect.CodePermissionDenied, errDenied)
}

// settleEndpoint brings a plugin's endpoint in line with its rules and reports whether calls
// that go through now may not. An endpoint that the host set itself stays unless policy
// names one.
func (s *ServiceRegistry) settleEndpoint(h *hub, id *tokenstore.Identity, before, now *policy.Rules) bool {
	current, _ := s.catalog.Endpoint(id.RuntimeID())
	next, settles := s.endpointUnder(h.rules.Load(), id, before, now)
	if !settles {
		return false
	}
	claim := h.claimOf(id, next)
	claim.ByHost, claim.Beside = now.Endpoint != "", true // nobody enrolled anew
	if next == "" || s.occupy(h, claim) != nil {
		if next = now.Endpoint; current == next {
			return false // another has it, as before
		}
		s.catalog.SetEndpoint(id.RuntimeID(), next)
		s.lifecycle.moved(id, current)
	}
	if next == "" {
		s.bar(h, id, unplaced(id))
	}
	return current != "" && (current != next || !claim.ByHost)
}

// endpointUnder returns where a plugin is dialled if its rules change under a book, empty for
// nowhere, and whether that takes anything to be done. Where policy names no endpoint, and
// lets the plugin, that is what the plugin named when it registered.
func (s *ServiceRegistry) endpointUnder(book *policy.Book, id *tokenstore.Identity, before, now *policy.Rules) (next string, settles bool) {
	current, _ := s.catalog.Endpoint(id.RuntimeID())
	if next = now.Endpoint; next != "" {
		if current == "" && !s.catalog.Offers(id.RuntimeID()) {
			return "", false // it gets it when it registers: another instance may be there
		}
		return next, next != current || s.catalog.NamedItself(id.RuntimeID())
	}
	own := declared(id).endpoint.text()
	if current != "" && current != own && current != before.Endpoint {
		return current, false
	}
	if now.AllowOwnAddress && !outbid(book, id) {
		next = own
	}
	return next, next != current || current != "" && current == before.Endpoint
}

// reasonOusted and unplaced say why nobody is to call a plugin.
const reasonOusted = "not routable: its endpoint is that of another plugin, as the host says or that plugin showed"

func unplaced(id *tokenstore.Identity) string {
	return "not routable: policy gives it no endpoint; set " + placing(id) + ", or take the Endpoint from who else has it"
}

// placing names what of a policy says where a plugin is.
func placing(id *tokenstore.Identity) string {
	return fmt.Sprintf("Policy.Plugins[%q].Endpoint or .AllowOwnAddress", clipped(id.SelfID()))
}

// bar keeps a plugin from being called until it has an endpoint again, and tells the operator.
func (s *ServiceRegistry) bar(h *hub, id *tokenstore.Identity, reason string) {
	s.lifecycle.bar(id, reason)
	h.logOnce("barred:"+id.SelfID()).Warn("a plugin gets no calls", keySelfID, id.SelfID(), keyRuntimeID, id.RuntimeID(), keyReason, reason)
}

func (s *ServiceRegistry) registerError(ctx context.Context, err error, serviceType, procedure string) error {
	switch {
	case errors.Is(err, catalog.ErrConflict):
		s.note(ctx, RightProvides.event(AuditConflict, procedure, serviceType, "the type belongs to another plugin"))
		return connect.NewError(connect.CodeAlreadyExists, errTypeTaken)
	case errors.Is(err, catalog.ErrOverlap):
		s.note(ctx, RightProvides.event(AuditConflict, procedure, serviceType, "the path overlaps that of another type of the plugin"))
		return connect.NewError(connect.CodeInvalidArgument, errPathOverlaps)
	case errors.Is(err, catalog.ErrLimit):
		what := met(err, tooManyServices, tooManyServicesOfFleet, tooManyOfType, tooManyServicesInAll)
		s.note(ctx, RightProvides.event(AuditLimited, procedure, serviceType, what))
		return connect.NewError(connect.CodeResourceExhausted, errTooManyRegistered[what])
	}
	return connect.NewError(connect.CodeInternal, errNotAvailable)
}

// endpointFor settles where a registering plugin is dialled: where policy says,
// or where the plugin says if policy lets it and the address is the one that it
// registers from; own says that it is the latter. Empty means nowhere yet. The
// error is for the log.
func (h *hub) endpointFor(ctx context.Context, id *tokenstore.Identity, baseURL string) (endpoint string, own bool, err error) {
	rules := h.rulesOf(id)
	switch {
	case rules == nil:
		return "", false, errors.New("policy does not know the plugin")
	case h.launchOf(id) != nil:
		// The host started it: where it listens is no matter of policy, and nobody else
		// has the certificate with which it has to answer there.
		if baseURL == "" || h.launchOf(id).Identity == "" { // adopted: the operator says where it is
			return "", false, nil
		}
		if err := h.launchOf(id).Elsewhere(baseURL); err != nil {
			h.launchOf(id).Refuse(err.Error())
			return "", false, err
		}
		endpoint, err = h.pinToCaller(ctx, id, baseURL)
		return endpoint, false, err
	case rules.Endpoint != "":
		return rules.Endpoint, false, h.otherThanItself(id, rules.Endpoint)
	case baseURL == "":
		return "", false, nil
	case !rules.AllowOwnAddress:
		return "", false, errors.New("the plugin names its own base_url and policy does not allow it: set " + placing(id))
	}
	endpoint, err = h.pinToCaller(ctx, id, baseURL)
	return endpoint, true, err
}

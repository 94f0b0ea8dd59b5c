package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/guest"
	"github.com/masegraye/connect-plugin-go/internal/held"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/stack"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// SetPolicy replaces the host's policy. What the new one withdraws has ended when
// SetPolicy returns: identities that it does not know or whose proof it does not
// accept, registrations, watches, capability grants and calls in flight that it
// does not allow, and endpoints that it does not approve. A service type that it
// no longer opens to several plugins stays with the first of them. What goes on
// being allowed goes on undisturbed. A lower MaxInstances holds for new instances
// and ends none. Registrations and endpoints that a later policy gives back are there again then, without the plugin's doing.
//
// Nil grants nothing and ends every plugin. The policy is copied. An error wraps [ErrInvalidConfig] and names the
// field, or [ErrHostClosed] after [Host.Shutdown]; nothing has changed then. It may be called concurrently, also with all that plugins
// do, by [ServeConfig.Audit], and by the handler of [ServeConfig.Logger]. Audit was told, in order, what it brought about when it
// returns; but to Audit itself it returns before, and where Audit is that slow, after five seconds.
func (h *Host) SetPolicy(p *Policy) error {
	if err := p.validateFor(h.mustBeMade().cfg.AllowInsecure); err != nil {
		return err
	} else if h.draining.Load() {
		return fmt.Errorf("set policy: %w", ErrHostClosed)
	}
	h.warnHostPlugins(p)
	next := compilePolicy(p, h.cfg.Authority != nil)
	judged, err := h.judge(next)
	if err != nil {
		return err
	}
	change := &policyChange{host: h, now: next, judged: judged}
	for _, id := range h.changePolicy(change) {
		if !h.hub.acceptsStill(id) {
			h.hub.store.Revoke(id.RuntimeID(), tokenstore.ReasonPolicy)
		}
	}
	if d := change.before.Default; d == nil || !d.AllowUnproven {
		warnOpen(danger(h.hub.settings().configured), next, h.cfg.AllowInsecure)
	}
	h.hub.settings().lines.Tell(held.Line.Write)
	h.hub.unheard.Tell(h.hub.record)
	return nil
}

// changePolicy makes a change, and returns who enrolled since it was judged who may stay. What log and
// audit are to hear of it waits until nothing is locked, since they may change the policy again.
func (h *Host) changePolicy(c *policyChange) (late []*tokenstore.Identity) {
	h.policyMu.Lock()
	defer h.policyMu.Unlock()
	h.hub.settings().lines.Hold()
	defer h.hub.settings().lines.Release()
	h.hub.unheard.Hold()
	defer h.hub.unheard.Release()
	h.hub.rules.Load().Certificates(func(identity string, key certs.Pin) { h.hub.shown.Add(identity, key) })
	c.before = h.hub.rules.Swap(c.now)
	h.hub.launches.UnbarAll()
	c.apply()
	h.hub.audit(AuditEvent{Kind: AuditPolicyChanged, Reason: c.summary()})
	return c.late
}

// How many changes of policy are judged at a time, and how long another one waits while HandshakeAuth.Secret returns for none of them.
const (
	maxChanges   = 64
	secretIsHeld = 5 * time.Second
)

const asksItself = "HandshakeAuth.Secret, which SetPolicy calls, must not call SetPolicy itself"

// judge asks HandshakeAuth.Secret, where there is one, which plugins may stay under a policy, with
// nothing locked. Nil means that nobody has to be asked.
func (h *Host) judge(next *policy.Book) (judged map[*tokenstore.Identity]bool, err error) {
	if h.cfg.HandshakeAuth.Secret == nil {
		return nil, nil //nolint:nilnil // documented
	}
	if stack.Below(".(*Host).judge.func") {
		return nil, errors.New(asksItself)
	}
	if !h.judging.Sit() {
		return nil, fmt.Errorf("HandshakeAuth.Secret has not returned for any of %d changes of policy for %v: %s",
			maxChanges, secretIsHeld, asksItself)
	}
	defer h.judging.Rise()
	judged = map[*tokenstore.Identity]bool{}
	return judged, guest.Contain("HandshakeAuth.Secret", func() error {
		h.hub.store.Each(func(id *tokenstore.Identity) bool {
			judged[id] = h.hub.acceptsUnder(next, id)
			h.judging.Answered()
			return true
		})
		return nil
	})
}

// policyChange is one replacement of the policy. Whoever acts on a right while
// policy changes checks it again afterwards: so either the change sees what was
// done, or the doer sees the change.
type policyChange struct {
	host        *Host
	before, now *policy.Book
	judged      map[*tokenstore.Identity]bool // nil where nobody was asked who may stay
	late        []*tokenstore.Identity        // who enrolled after that

	identities, registrations, endpoints, grants, calls int
	givenBack                                           int // registrations and endpoints
}

func (c *policyChange) apply() {
	hub := c.host.hub
	c.host.registry.settling.Store(true)
	hub.store.Each(func(id *tokenstore.Identity) bool {
		forgotten := c.before.Of(subjectOf(id)) != nil && c.now.Of(subjectOf(id)) == nil
		if (forgotten || !c.accepts(id)) && hub.store.Revoke(id.RuntimeID(), tokenstore.ReasonPolicy) {
			c.identities++
		}
		return true
	})
	c.withdrawRegistrations()
	hub.store.Each(func(id *tokenstore.Identity) bool {
		c.withdrawEndpoint(id)
		c.withdrawGrants(id)
		return true
	})
	c.giveBack()
	c.calls = hub.permitted.Enforce(c.now, errWithdrawn)
}

// accepts reports whether a plugin may stay, as far as that is known.
func (c *policyChange) accepts(id *tokenstore.Identity) bool {
	if c.judged == nil {
		return c.host.hub.acceptsUnder(c.now, id)
	}
	accepted, known := c.judged[id]
	if !known {
		c.late = append(c.late, id)
	}
	return accepted || !known
}

// giveBack lets plugins have again what an earlier policy took from them.
func (c *policyChange) giveBack() {
	c.host.hub.store.Each(func(id *tokenstore.Identity) bool {
		rules := c.now.Of(subjectOf(id))
		if at, _ := c.host.registry.catalog.Endpoint(id.RuntimeID()); at == "" && rules != nil && c.host.hub.launchOf(id) == nil {
			c.settle(id, rules, rules)
		}
		return true
	})
	c.host.registry.settling.Store(false)
	c.givenBack += c.host.registry.giveBack(everything)
}

// settle brings a plugin's endpoint in line with its rules.
func (c *policyChange) settle(id *tokenstore.Identity, before, now *policy.Rules) {
	cat := c.host.registry.catalog
	had, _ := cat.Endpoint(id.RuntimeID())
	if c.host.registry.settleEndpoint(c.host.hub, id, before, now) {
		c.host.router.forget(id.RuntimeID())
		c.endpoints++
	}
	if now.Endpoint != "" && cat.Shares(id.RuntimeID()) {
		c.host.hub.logOnce("together:"+id.SelfID()).Warn("policy has one Endpoint for several live instances of a plugin, "+
			"which answer for each other there; with AllowOwnAddress each has its own", keySelfID, id.SelfID(), keyEndpoint, now.Endpoint)
	}
	if has, _ := cat.Endpoint(id.RuntimeID()); had == "" && has != "" {
		c.givenBack++
		c.host.hub.log().Info("a plugin is reached again", keySelfID, id.SelfID(), keyRuntimeID, id.RuntimeID())
	}
}

func (c *policyChange) summary() string {
	return fmt.Sprintf("ended: %d identities, %d registrations, %d endpoints, %d grants, %d calls; given back: %d",
		c.identities, c.registrations, c.endpoints, c.grants, c.calls, c.givenBack)
}

// withdrawRegistrations withholds what was allowed and is not any more. What the
// host registered in its own process, against the policy, stays.
func (c *policyChange) withdrawRegistrations() {
	store := c.host.hub.store
	types := map[string]struct{}{}
	c.registrations = c.host.registry.withhold(func(reg catalog.Registration) bool {
		types[reg.Type] = struct{}{}
		id, ok := store.Lookup(reg.RuntimeID)
		return ok && c.before.MayProvide(subjectOf(id), reg.Type) && !c.now.MayProvide(subjectOf(id), reg.Type)
	})
	for _, t := range slices.Sorted(maps.Keys(types)) {
		if c.before.AllowMultiple.Has(t) && !c.now.AllowMultiple.Has(t) {
			c.registrations += c.host.registry.keepOwner(t)
		}
	}
}

// withdrawEndpoint settles where a plugin is dialled. Where nothing that was said
// about it changed, it stays as it is.
func (c *policyChange) withdrawEndpoint(id *tokenstore.Identity) {
	router := c.host.router
	before, now := c.before.Of(subjectOf(id)), c.now.Of(subjectOf(id))
	if before == nil || now == nil {
		return // just enrolled, or about to end
	}
	launch, adopted := c.host.hub.launchOf(id) != nil, declared(id).adopted != nil
	if adopted && !before.SameCertificates(now) {
		router.forget(id.RuntimeID()) // the next call dials and looks at the certificate
	}
	if launch {
		return // the launcher knows where it is
	}
	d := router.currentDialer()
	if !before.SameCertificates(now) || d.mustProve(c.host.hub, c.before, id) != d.mustProve(c.host.hub, c.now, id) {
		router.forget(id.RuntimeID())
	}
	if !before.SameAddress(now) || outbid(c.now, id) {
		c.settle(id, before, now)
	}
}

func (c *policyChange) withdrawGrants(id *tokenstore.Identity) {
	store := c.host.hub.store
	for _, g := range store.Grants(id.RuntimeID()) {
		if !c.now.MayUse(subjectOf(id), g.Type) && store.RevokeGrant(g.ID) {
			c.grants++
		}
	}
}

// RevokeSelf ends every identity of a plugin at once, as [Host.Revoke] does, and refuses new
// ones with permission denied, which tells the plugin to stop trying, until [Host.Readmit] or
// [Host.SetPolicy]. selfID is the plugin's name, which is the identity of its certificate where
// policy is written for that; then a self id means those that claim it, and keeps nobody out who
// may claim another. It returns how many identities ended.
func (h *Host) RevokeSelf(selfID string) int {
	h.mustBeMade().hub.launches.Bar(selfID)
	n := 0
	named := func(id *tokenstore.Identity) bool { return id.SelfID() == selfID || declared(id).selfID == selfID }
	h.hub.store.Each(func(id *tokenstore.Identity) bool {
		if named(id) && h.Revoke(id.RuntimeID()) {
			n++
		}
		return true
	})
	h.router.cutParting(named)
	return n
}

// Readmit admits a self id again that [Host.RevokeSelf] refused, and reports whether it was
// refused. Policy decides as ever.
func (h *Host) Readmit(selfID string) bool { return h.mustBeMade().hub.launches.Unbar(selfID) }

// lifeWait bounds how long a newcomer waits for the answer of one whose place it could take.
const lifeWait = time.Second

// answers reports whether a plugin answers where it is reached. One that is reached nowhere
// does not.
func (h *Host) answers(ctx context.Context, id *tokenstore.Identity) bool {
	if h.reached(id) == "" {
		return false
	}
	p, err := h.router.providerAt(h.hub, id.RuntimeID())
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, lifeWait)
	defer cancel()
	_, err = p.ask(ctx, id)
	return err == nil
}

// reached returns where a plugin is dialled, empty for nowhere.
func (h *Host) reached(id *tokenstore.Identity) string {
	endpoint, _ := h.registry.catalog.Endpoint(id.RuntimeID())
	return endpoint
}

// healthReason is the reason to the health of a plugin that provides so many services.
func (s *ServiceRegistry) healthReason(id *tokenstore.Identity, said string, services int) string {
	if isDrained(id, services) {
		return drainedReason
	}
	if withheld := s.catalog.Withheld(id.RuntimeID()); len(withheld) > 0 && said == "" {
		return "not provided, since it may not or another plugin does: " + strings.Join(withheld, ", ")
	}
	if waits, _ := s.catalog.Waiting(id.RuntimeID()); len(waits) > 0 && said == "" {
		return "stands by: " + strings.Join(waits, ", ")
	}
	return said
}

// ofRuntime matches the registrations of one plugin.
func ofRuntime(runtimeID string) func(catalog.Registration) bool {
	return func(reg catalog.Registration) bool { return reg.RuntimeID == runtimeID }
}

// maxPolicyChanges bounds what is told of the changes that a policy would make.
const maxPolicyChanges = 1_000

// foresight is what would end, and which rights change, if the host took over a policy.
type foresight struct {
	host      *Host
	now, next *policy.Book
	owners    map[string]string // by type: to whom it would belong
	crowds    map[spot]int      // nil until somebody asks
	changes   []*adminv1.PolicyChange
	omitted   int
}

// spot is where live instances of a plugin would be reached, as policy says.
type spot struct{ selfID, endpoint string }

// foresee looks at everybody who is there. Nothing changes.
func (h *Host) foresee(next *policy.Book) (changes []*adminv1.PolicyChange, omitted int) {
	f := &foresight{host: h, now: h.hub.rules.Load(), next: next, owners: map[string]string{}}
	h.hub.store.Each(func(id *tokenstore.Identity) bool {
		if why := f.refusal(id); why != "" {
			f.ends(id, why)
			return true
		}
		s := subjectOf(id)
		f.rights(id, s)
		f.holdings(id, s)
		return true
	})
	return f.changes, f.omitted
}

// refusal says why an identity would end, empty where it would not.
func (f *foresight) refusal(id *tokenstore.Identity) string {
	why, s := f.host.hub.refusedUnder(f.next, id), subjectOf(id)
	if why == "" && f.now.Of(s) != nil && f.next.Of(s) == nil { // in the host's own process it proved nothing
		why = "the policy does not name it"
	}
	return why
}

func (f *foresight) add(id *tokenstore.Identity, kind adminv1.PolicyChange_Kind, right AuditRight, subject string) {
	f.note(id, &adminv1.PolicyChange{Kind: kind, Right: string(right), Subject: valid(subject)})
}

// ends says that an identity would, and why.
func (f *foresight) ends(id *tokenstore.Identity, why string) {
	f.note(id, &adminv1.PolicyChange{Kind: adminv1.PolicyChange_KIND_IDENTITY_ENDS, Reason: why})
}

func (f *foresight) note(id *tokenstore.Identity, c *adminv1.PolicyChange) {
	if len(f.changes) >= maxPolicyChanges {
		f.omitted++
		return
	}
	c.RuntimeId, c.SelfId = id.RuntimeID(), valid(id.SelfID())
	f.changes = append(f.changes, c)
}

// rights says which rights an identity would lose and gain.
func (f *foresight) rights(id *tokenstore.Identity, s policy.Subject) {
	before, after := f.now.Rights(s), f.next.Rights(s)
	for _, r := range []struct {
		right         AuditRight
		before, after []string
	}{
		{RightProvides, before.Provides, after.Provides},
		{RightRequires, before.Requires, after.Requires},
		{RightCapabilities, before.Capabilities, after.Capabilities},
		{RightHostPlugins, hostPluginsOf(f.now, s), hostPluginsOf(f.next, s)},
	} {
		for _, name := range without(r.before, r.after) {
			f.add(id, adminv1.PolicyChange_KIND_RIGHT_LOST, r.right, name)
		}
		for _, name := range without(r.after, r.before) {
			f.add(id, adminv1.PolicyChange_KIND_RIGHT_GAINED, r.right, name)
		}
	}
}

// holdings says what an identity would lose of what it has, and get back.
func (f *foresight) holdings(id *tokenstore.Identity, s policy.Subject) {
	f.endpoint(id, f.now.Of(s), f.next.Of(s))
	for _, serviceType := range f.host.registry.catalog.Withheld(id.RuntimeID()) {
		if f.next.MayProvide(s, serviceType) && !f.mayOffer(id, s, serviceType) && f.isOpen(id, serviceType) {
			f.add(id, adminv1.PolicyChange_KIND_REGISTRATION_RETURNS, RightProvides, serviceType)
		}
	}
	for _, reg := range f.host.registry.catalog.ByRuntime(id.RuntimeID()) {
		narrowed := f.now.AllowMultiple.Has(reg.Type) && !f.isOpen(id, reg.Type)
		if f.loses(s, reg.Type) || narrowed {
			f.add(id, adminv1.PolicyChange_KIND_REGISTRATION_ENDS, RightProvides, reg.Type)
		}
	}
	for _, g := range f.host.hub.store.Grants(id.RuntimeID()) {
		if !f.next.MayUse(s, g.Type) {
			f.add(id, adminv1.PolicyChange_KIND_GRANT_ENDS, RightCapabilities, g.Type)
		}
	}
}

// loses reports whether a plugin may provide a type, and could not any more.
func (f *foresight) loses(s policy.Subject, serviceType string) bool {
	return f.now.MayProvide(s, serviceType) && !f.next.MayProvide(s, serviceType)
}

// mayOffer reports whether policy lets a plugin offer a type today, as far as others do not have it.
func (f *foresight) mayOffer(id *tokenstore.Identity, s policy.Subject, serviceType string) bool {
	regs := f.host.registry.catalog.ByType(serviceType)
	return f.now.MayProvide(s, serviceType) &&
		(f.now.AllowMultiple.Has(serviceType) || len(regs) == 0 || regs[0].SelfID == id.SelfID())
}

// isOpen reports whether a type would not belong to another plugin.
func (f *foresight) isOpen(id *tokenstore.Identity, serviceType string) bool {
	if f.next.AllowMultiple.Has(serviceType) {
		return true
	}
	owner, known := f.owners[serviceType]
	if !known {
		owner = f.owner(serviceType)
		f.owners[serviceType] = owner
	}
	return owner == id.SelfID()
}

// owner is the self id that would be left with a type: that of the first who offers it and goes
// on, else of the first of whom it is withheld and who may offer it then.
func (f *foresight) owner(serviceType string) string {
	stays := func(reg catalog.Registration) bool {
		id, ok := f.host.hub.store.Lookup(reg.RuntimeID)
		return !ok || f.refusal(id) == "" && !f.loses(subjectOf(id), serviceType)
	}
	may := func(reg catalog.Registration) bool {
		id, ok := f.host.hub.store.Lookup(reg.RuntimeID)
		return reg.Type == serviceType && ok && f.refusal(id) == "" && f.next.MayProvide(subjectOf(id), serviceType)
	}
	cat := f.host.registry.catalog
	if regs := cat.ByType(serviceType); slices.ContainsFunc(regs, stays) {
		return regs[slices.IndexFunc(regs, stays)].SelfID
	}
	if regs := cat.Shelved(may); len(regs) > 0 {
		return regs[0].SelfID
	}
	return ""
}

// endpoint says whether an identity would be reached elsewhere, or nowhere.
func (f *foresight) endpoint(id *tokenstore.Identity, before, after *policy.Rules) {
	if before == nil || after == nil || f.host.hub.launchOf(id) != nil {
		return
	}
	at, _ := f.host.registry.catalog.Endpoint(id.RuntimeID())
	switch next, settles := f.host.registry.endpointUnder(f.next, id, before, after); {
	case !settles || next == at:
	case next == "":
		f.add(id, adminv1.PolicyChange_KIND_ENDPOINT_ENDS, "", valid(at))
	default:
		f.note(id, &adminv1.PolicyChange{Kind: adminv1.PolicyChange_KIND_ENDPOINT_SET, Subject: valid(next), Reason: f.together(id, next)})
	}
}

// together warns of an Endpoint that would stand for several live instances, and is empty for any other.
func (f *foresight) together(id *tokenstore.Identity, endpoint string) string {
	if f.crowds == nil {
		f.crowds = f.gather()
	}
	n := f.crowds[spot{id.SelfID(), endpoint}]
	if n < 2 {
		return ""
	}
	return fmt.Sprintf("one Endpoint for %d live instances, which answer for each other there; with AllowOwnAddress each has its own", n)
}

// gather counts who would be reached at an Endpoint of policy's.
func (f *foresight) gather() map[spot]int {
	crowds := map[spot]int{}
	f.host.hub.store.Each(func(id *tokenstore.Identity) bool {
		before, after := f.now.Of(subjectOf(id)), f.next.Of(subjectOf(id))
		if before == nil || after == nil || after.Endpoint == "" || f.host.hub.launchOf(id) != nil || f.refusal(id) != "" {
			return true
		}
		if next, _ := f.host.registry.endpointUnder(f.next, id, before, after); next != "" {
			crowds[spot{id.SelfID(), next}]++
		}
		return true
	})
	return crowds
}

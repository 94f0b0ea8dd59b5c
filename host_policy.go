package connectplugin

import (
	"fmt"
	"slices"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// SetPolicy replaces the host's policy. What the new one withdraws has ended when
// SetPolicy returns: identities that it does not know or whose proof it does not
// accept, registrations, watches, capability grants and calls in flight that it
// does not allow, and endpoints that it does not approve. A service type that it
// no longer opens to several plugins stays with the first of them. What goes on
// being allowed goes on undisturbed. A lower MaxInstances holds for new instances
// and ends none.
//
// Nil grants nothing and ends every plugin. The policy is copied. An error wraps
// [ErrInvalidConfig] and names the field; nothing has changed then. SetPolicy may
// be called concurrently, also with everything that plugins do.
func (h *Host) SetPolicy(p *Policy) error {
	if err := p.validate(); err != nil {
		return err
	}
	if err := p.validateNames(); err != nil {
		return err
	}
	next := compilePolicy(p, h.cfg.Authority != nil)
	h.policyMu.Lock()
	defer h.policyMu.Unlock()
	h.hub.rules.Load().Certificates(func(identity string, key certs.Pin) { h.hub.shown.Add(identity, key) })
	before := h.hub.rules.Swap(next)
	h.hub.launches.UnbarAll()
	c := &policyChange{host: h, before: before, now: next}
	c.apply()
	h.hub.audit(AuditEvent{Kind: AuditPolicyChanged, Reason: c.summary()})
	return nil
}

// policyChange is one replacement of the policy. Whoever acts on a right while
// policy changes checks it again afterwards: so either the change sees what was
// done, or the doer sees the change.
type policyChange struct {
	host        *Host
	before, now *policy.Book

	identities, registrations, endpoints, grants, calls int
}

func (c *policyChange) apply() {
	hub := c.host.hub
	hub.store.Each(func(id *tokenstore.Identity) bool {
		forgotten := c.before.Of(subjectOf(id)) != nil && c.now.Of(subjectOf(id)) == nil
		if (forgotten || !hub.accepts(id)) && hub.store.Revoke(id.RuntimeID(), tokenstore.ReasonPolicy) {
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
	c.calls = hub.permitted.Enforce(c.now, errWithdrawn)
}

func (c *policyChange) summary() string {
	return fmt.Sprintf("ended: %d identities, %d registrations, %d endpoints, %d grants, %d calls",
		c.identities, c.registrations, c.endpoints, c.grants, c.calls)
}

// withdrawRegistrations removes what was allowed and is not any more. What the
// host registered in its own process, against the policy, stays.
func (c *policyChange) withdrawRegistrations() {
	store, cat := c.host.hub.store, c.host.registry.catalog
	types := map[string]struct{}{}
	c.registrations = cat.RemoveWhere(func(reg catalog.Registration) bool {
		types[reg.Type] = struct{}{}
		id, ok := store.Lookup(reg.RuntimeID)
		return ok && c.before.MayProvide(subjectOf(id), reg.Type) && !c.now.MayProvide(subjectOf(id), reg.Type)
	})
	for t := range types {
		if c.before.AllowMultiple.Has(t) && !c.now.AllowMultiple.Has(t) {
			c.registrations += c.host.registry.keepOwner(t)
		}
	}
}

// withdrawEndpoint settles where a plugin is dialled. Where nothing that was said
// about it changed, it stays as it is.
func (c *policyChange) withdrawEndpoint(id *tokenstore.Identity) {
	if c.host.hub.launchOf(id) != nil {
		return // the launcher knows where it is
	}
	router := c.host.router
	before, now := c.before.Of(subjectOf(id)), c.now.Of(subjectOf(id))
	if before == nil || now == nil {
		return // just enrolled, or about to end
	}
	d := router.currentDialer()
	if !slices.Equal(before.Pins, now.Pins) || d.mustProve(c.host.hub, c.before, id) != d.mustProve(c.host.hub, c.now, id) {
		router.forget(id.RuntimeID()) // the next call dials and looks at the key
	}
	if before.SameAddress(now) && !c.host.hub.outbid(id) {
		return
	}
	if c.host.registry.settleEndpoint(c.host.hub, id, before, now) {
		router.forget(id.RuntimeID())
		c.endpoints++
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

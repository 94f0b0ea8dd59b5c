package connectplugin

import (
	"context"
	"encoding/hex"
	"slices"
	"sync/atomic"

	"github.com/masegraye/connect-plugin-go/internal/launches"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// Rights are what a caller may do: what it declared and what policy allows.
// "*" in a list is everything.
type Rights struct {
	// Provides lists the service types that it may register.
	Provides []string
	// Requires lists the service types that it may discover, watch and call.
	Requires []string
	// Capabilities lists the capabilities that it may be granted.
	Capabilities []string
}

// Caller is the authenticated plugin behind a request.
type Caller struct {
	// RuntimeID is the identity that the host issued.
	RuntimeID string
	// SelfID is the name that policy is written for.
	SelfID string
	// SelfVersion is the version that the plugin gave.
	SelfVersion string
	// Fingerprint is the SHA-256 of the public key (SPKI) in its client
	// certificate, in hex; empty without mutual TLS.
	Fingerprint string
	// Rights are its rights at the time of the call of [CallerFromContext].
	Rights Rights
}

// CallerFromContext returns the authenticated caller of the request that ctx
// belongs to, as a copy. It reports false where the request carried no runtime
// identity. It is how capability handlers and the host's own plugin services
// learn who calls.
func CallerFromContext(ctx context.Context) (Caller, bool) {
	c, ok := callerFrom(ctx)
	if !ok {
		return Caller{}, false
	}
	out := Caller{RuntimeID: c.id.RuntimeID(), SelfID: c.id.SelfID(), SelfVersion: c.id.SelfVersion()}
	if fp := c.id.Fingerprint(); fp != (tokenstore.Fingerprint{}) {
		out.Fingerprint = hex.EncodeToString(fp[:])
	}
	out.Rights = c.hub.rightsOf(c.id)
	return out, true
}

// caller is the authenticated caller as the services see it.
type caller struct {
	id    *tokenstore.Identity
	hub   *hub
	token string // as presented, for renewal
	call  *call  // the request
}

type callerKey struct{}

func withCaller(ctx context.Context, c *caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

func callerFrom(ctx context.Context) (*caller, bool) {
	c, ok := ctx.Value(callerKey{}).(*caller)
	return c, ok
}

// rateKeyFromContext returns the key under which a request's identity is rate
// limited.
func rateKeyFromContext(ctx context.Context) (string, bool) {
	if c, ok := callerFrom(ctx); ok {
		return "runtime:" + c.id.RuntimeID(), true
	}
	if a := GetAuthContext(ctx); a != nil && a.Identity != "" {
		return "identity:" + a.Provider + ":" + a.Identity, true
	}
	return "", false
}

// declaration is what a plugin declared in its handshake, and how it proved
// itself. It is immutable.
type declaration struct {
	provides, requires nameSet
	certIdentity       string           // of the certificate that it showed
	secret             Secret           // that it proved, nil for none
	endpoint           *ownEndpoint     // survives renewals; nil where it cannot name any
	launch             *launches.Launch // nil unless the host started it or was told of it; survives renewals
	dependencies       []ServiceDependency
}

// ownEndpoint is where a plugin asked to be dialled, nil for nowhere, when
// policy let it.
type ownEndpoint struct{ atomic.Pointer[string] }

// text returns the endpoint, empty for none.
func (e *ownEndpoint) text() string {
	if e == nil {
		return ""
	}
	if at := e.Load(); at != nil {
		return *at
	}
	return ""
}

// rememberEndpoint notes that the plugin named its endpoint itself.
func rememberEndpoint(id *tokenstore.Identity, endpoint string) {
	d := declared(id)
	if d.endpoint == nil {
		own := *d
		own.endpoint = new(ownEndpoint)
		id.SetAttributes(&own)
		d = &own
	}
	d.endpoint.Store(&endpoint)
}

// of returns the rules of an identity, nil where policy does not know it.
func (b *ruleBook) of(id *tokenstore.Identity) *pluginRules {
	r, _ := b.rules(id.SelfID(), declared(id).certIdentity)
	return r
}

func (b *ruleBook) mayProvide(id *tokenstore.Identity, serviceType string) bool {
	d, r := declared(id), b.of(id)
	return r != nil && d.provides.has(serviceType) && r.provides.has(serviceType)
}

func (b *ruleBook) mayRequire(id *tokenstore.Identity, serviceType string) bool {
	d, r := declared(id), b.of(id)
	return r != nil && d.requires.has(serviceType) && r.requires.has(serviceType)
}

func (b *ruleBook) mayUse(id *tokenstore.Identity, capabilityType string) bool {
	r := b.of(id)
	return r != nil && r.capabilities.has(capabilityType)
}

func (b *ruleBook) mayCallHostPlugin(id *tokenstore.Identity, name string) bool {
	r := b.of(id)
	return r != nil && r.hostPlugins.has(name)
}

// rulesOf returns the current rules of an identity, nil where policy no longer
// knows it.
func (h *hub) rulesOf(id *tokenstore.Identity) *pluginRules { return h.rules.Load().of(id) }

func (h *hub) mayProvide(id *tokenstore.Identity, serviceType string) bool {
	return h.rules.Load().mayProvide(id, serviceType)
}

func (h *hub) mayRequire(id *tokenstore.Identity, serviceType string) bool {
	return h.rules.Load().mayRequire(id, serviceType)
}

func (h *hub) mayUse(id *tokenstore.Identity, capabilityType string) bool {
	return h.rules.Load().mayUse(id, capabilityType)
}

func (h *hub) mayCallHostPlugin(id *tokenstore.Identity, name string) bool {
	return h.rules.Load().mayCallHostPlugin(id, name)
}

// everything is the declaration of a plugin that could not declare anything (the
// first wire version): policy alone decides.
var everything = declaration{provides: nameSet{all: true}, requires: nameSet{all: true}}

func declared(id *tokenstore.Identity) *declaration {
	if d, ok := id.Attributes().(*declaration); ok && d != nil {
		return d
	}
	return &everything
}

// rightsOf lists the effective rights of an identity.
func (h *hub) rightsOf(id *tokenstore.Identity) Rights {
	d, r := declared(id), h.rulesOf(id)
	if r == nil {
		return Rights{}
	}
	return Rights{
		Provides:     intersect(d.provides, r.provides),
		Requires:     intersect(d.requires, r.requires),
		Capabilities: r.capabilities.list(),
	}
}

func intersect(a, b nameSet) []string {
	if a.all {
		return b.list()
	}
	return slices.DeleteFunc(a.list(), func(n string) bool { return !b.has(n) })
}

package connectplugin

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/semrange"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// maxGrantReasonLen bounds the reason of a capability request.
const maxGrantReasonLen = 1024

// CapabilityHandler is one capability of the host. ServeHTTP sees the path below
// the grant, the caller in the context ([CallerFromContext]) and never the
// caller's token. It is called concurrently.
type CapabilityHandler interface {
	http.Handler
	// CapabilityType names the capability, for example "logger".
	CapabilityType() string
	// Version is the capability's semantic version.
	Version() string
}

// CapabilityBroker grants the host's capabilities to plugins and serves the calls
// that come with a grant. It is safe for concurrent use.
type CapabilityBroker struct {
	member

	baseURL *url.URL          // fixed at creation; nil: as the caller reached the host
	own     *tokenstore.Store // grants made before the broker was bound

	mu       sync.RWMutex
	handlers map[string]CapabilityHandler
}

// NewCapabilityBroker makes a broker. baseURL is the host's base URL as plugins
// see it, for hosts behind a proxy; empty, and plaintext on a host that serves
// TLS, mean the name under which each plugin reached the host.
func NewCapabilityBroker(baseURL string) *CapabilityBroker {
	b := &CapabilityBroker{
		own:      tokenstore.New(storeConfig((&ServeConfig{}).withDefaults())),
		handlers: map[string]CapabilityHandler{},
	}
	if u, err := parseHostURL(baseURL, true); err == nil {
		b.baseURL = u
	}
	return b
}

// RegisterCapability offers a capability, in place of an earlier one of the same
// type. A nil handler, and one whose type or version is not valid, is a
// programming error and panics.
func (b *CapabilityBroker) RegisterCapability(handler CapabilityHandler) {
	if handler == nil {
		panic("connectplugin: RegisterCapability: handler is nil")
	}
	if err := ValidateServiceType(handler.CapabilityType()); err != nil {
		panic("connectplugin: RegisterCapability: CapabilityType: " + err.Error())
	}
	if err := ValidateVersion(handler.Version()); err != nil {
		panic("connectplugin: RegisterCapability: Version: " + err.Error())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.handlers[handler.CapabilityType()] = handler
}

// ListCapabilities returns what the host offers, sorted by type, as copies.
func (b *CapabilityBroker) ListCapabilities() []*connectpluginv1.Capability {
	b.mu.RLock()
	defer b.mu.RUnlock()
	out := make([]*connectpluginv1.Capability, 0, len(b.handlers))
	for _, t := range slices.Sorted(maps.Keys(b.handlers)) {
		out = append(out, &connectpluginv1.Capability{
			Type: t, Version: b.handlers[t].Version(), Endpoint: b.base(context.Background()),
		})
	}
	return out
}

// Handler returns a handler for the broker's RPC and for the granted
// capabilities, for a server of your own. It serves authenticated callers of the
// host that the broker belongs to.
func (b *CapabilityBroker) Handler() http.Handler {
	path, rpc := connectpluginv1connect.NewCapabilityBrokerHandler(b)
	guardedRPC := b.guard(unaryProcedure, rpc)
	calls := &guarded{hub: b.bound.Load, access: accessGrant, next: http.HandlerFunc(b.serveCapability)}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !cleanRequestPath(r):
			refuse(w, r, connect.CodeNotFound, errNotAvailable)
		case strings.HasPrefix(r.URL.Path, path):
			guardedRPC.ServeHTTP(w, r)
		default:
			calls.ServeHTTP(w, r)
		}
	})
}

// RequestCapability grants a capability to the calling plugin: for a time, for
// one type and version, and bound to its identity. A capability that the caller
// may not have and one that the host does not offer give the same NotFound.
func (b *CapabilityBroker) RequestCapability(ctx context.Context, req *connect.Request[connectpluginv1.RequestCapabilityRequest]) (*connect.Response[connectpluginv1.RequestCapabilityResponse], error) {
	c, _, err := b.caller(ctx, req.Spec(), req.Header())
	if err != nil {
		return nil, err
	}
	capType := req.Msg.GetCapabilityType()
	if err := ValidateServiceType(capType); err != nil {
		return nil, errorf(connect.CodeInvalidArgument, "capability_type: %w", err)
	}
	constraint, err := semrange.ParseConstraint(req.Msg.GetMinVersion())
	if err != nil {
		return nil, errorf(connect.CodeInvalidArgument, "min_version: %w", err)
	}
	if len(req.Msg.GetReason()) > maxGrantReasonLen {
		return nil, errorf(connect.CodeInvalidArgument, "reason: has more than %d bytes", maxGrantReasonLen)
	}
	handler, ok := b.lookup(capType)
	if c != nil && !c.hub.mayUse(c.id, capType) {
		b.note(ctx, AuditDenied, req.Spec().Procedure, capType, "not allowed by policy")
		ok = false
	}
	if !ok || !constraint.Allows(handler.Version()) {
		return nil, connect.NewError(connect.CodeNotFound, errNotAvailable)
	}
	var owner *tokenstore.Identity
	if c != nil {
		owner = c.id
	}
	return b.grant(ctx, owner, handler, req)
}

func (b *CapabilityBroker) lookup(capabilityType string) (CapabilityHandler, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	h, ok := b.handlers[capabilityType]
	return h, ok
}

// store returns where grants live: with the host's identities once bound.
func (b *CapabilityBroker) store() *tokenstore.Store {
	if h := b.bound.Load(); h != nil {
		return h.store
	}
	return b.own
}

func (b *CapabilityBroker) grant(ctx context.Context, owner *tokenstore.Identity, handler CapabilityHandler, req *connect.Request[connectpluginv1.RequestCapabilityRequest]) (*connect.Response[connectpluginv1.RequestCapabilityResponse], error) {
	capType, version := handler.CapabilityType(), handler.Version()
	grant, token, err := b.store().IssueGrant(owner, capType, version, b.ttl())
	if err != nil {
		b.note(ctx, AuditLimited, req.Spec().Procedure, capType, err.Error())
		return nil, connect.NewError(connect.CodeResourceExhausted, errTooMany)
	}
	if h := b.bound.Load(); owner != nil && !h.mayUse(owner, capType) {
		// Policy changed while the grant was being made.
		h.store.RevokeGrant(grant.ID)
		return nil, connect.NewError(connect.CodeNotFound, errNotAvailable)
	}
	b.note(ctx, AuditGranted, req.Spec().Procedure, capType, req.Msg.GetReason())
	return connect.NewResponse(&connectpluginv1.RequestCapabilityResponse{Grant: &connectpluginv1.CapabilityGrant{
		GrantId:        grant.ID,
		EndpointUrl:    b.base(ctx) + pathCapabilities + capType + "/" + grant.ID,
		BearerToken:    token,
		CapabilityType: capType,
		Version:        version,
		ExpiresAt:      timestamppb.New(grant.ExpiresAt),
	}}), nil
}

func (b *CapabilityBroker) ttl() time.Duration {
	if h := b.bound.Load(); h != nil {
		return h.config().CapabilityGrantTTL
	}
	return DefaultCapabilityGrantTTL
}

// base returns the host's base URL for the caller of ctx.
func (b *CapabilityBroker) base(ctx context.Context) string {
	h := b.bound.Load()
	insecure := h == nil || h.config().AllowInsecure
	if b.baseURL != nil && (b.baseURL.Scheme == "https" || insecure) {
		return b.baseURL.String()
	}
	p, ok := peerFrom(ctx)
	if !ok {
		return ""
	}
	scheme := "https"
	if !p.secure {
		scheme = "http"
	}
	return scheme + "://" + p.authority
}

// serveCapability serves a call that comes with a grant:
// /capabilities/{type}/{grant}/… on the wire.
func (b *CapabilityBroker) serveCapability(w http.ResponseWriter, r *http.Request) {
	capType, grantID, rest := splitCapabilityPath(r.URL.Path)
	grant, err := b.verifyGrant(r, capType, grantID)
	if err != nil {
		b.note(r.Context(), AuditAuthFailed, r.URL.Path, capType, err.Error())
		refuse(w, r, connect.CodeUnauthenticated, errUnauthenticated)
		return
	}
	handler, ok := b.lookup(capType)
	ctx := r.Context()
	h := b.bound.Load()
	if ok && grant.Owner != nil {
		ok = h.mayUse(grant.Owner, capType)
		ctx = withCaller(ctx, &caller{id: grant.Owner, hub: h})
	}
	if !ok || handler.Version() != grant.Version {
		refuse(w, r, connect.CodeNotFound, errNotAvailable)
		return
	}
	if p, ok := peerFrom(ctx); ok && !h.allowRate(ctx, p, grant.Owner, accessGrant) {
		refuse(w, r, connect.CodeResourceExhausted, errTooMany)
		return
	}
	b.dispatch(ctx, grant, handler, rest, w, r)
}

// dispatch runs the capability in a context that ends with the grant's owner.
func (b *CapabilityBroker) dispatch(ctx context.Context, grant *tokenstore.Grant, handler http.Handler, rest string, w http.ResponseWriter, r *http.Request) {
	ctx, running := newCall(ctx, w)
	defer running.done()
	if grant.Owner != nil {
		defer grant.Owner.OnEnd(func() { running.end(errIdentityEnded) })()
		release, ok := b.bound.Load().hold(running, func(book *ruleBook) bool { return book.mayUse(grant.Owner, grant.Type) })
		if !ok {
			refuse(w, r, connect.CodeNotFound, errNotAvailable)
			return
		}
		defer release()
	}
	out := r.WithContext(ctx)
	out.URL = new(url.URL)
	*out.URL = *r.URL
	out.URL.Path = cmp.Or(rest, "/")
	out.RequestURI = out.URL.RequestURI()
	out.Header = r.Header.Clone()
	for _, name := range []string{headerAuthorization, headerRuntimeID, "Cookie", "Proxy-Authorization"} {
		out.Header.Del(name)
	}
	out.Body = http.MaxBytesReader(w, r.Body, b.bound.Load().config().Limits.MaxCallBytes)
	handler.ServeHTTP(w, out)
}

// splitCapabilityPath splits /capabilities/{type}/{grant}/rest.
func splitCapabilityPath(path string) (capType, grantID, rest string) {
	path = strings.TrimPrefix(path, pathCapabilities)
	capType, path, _ = strings.Cut(path, "/")
	grantID, rest, ok := strings.Cut(path, "/")
	if ok {
		rest = "/" + rest
	}
	return capType, grantID, rest
}

// errGrantElsewhere says that a grant was used for what it was not given.
const errGrantElsewhere = refused("the grant is for another capability or another caller")

// verifyGrant proves the grant that the request claims.
func (b *CapabilityBroker) verifyGrant(r *http.Request, capType, grantID string) (*tokenstore.Grant, error) {
	var token string
	if auth := r.Header[headerAuthorization]; len(auth) == 1 {
		token, _ = bearer(auth[0])
	}
	var fp tokenstore.Fingerprint
	if p, ok := peerFrom(r.Context()); ok {
		fp = p.fingerprint()
	}
	grant, err := b.store().VerifyGrant(grantID, token, fp)
	if err != nil {
		return nil, err
	}
	if grant.Type != capType {
		return nil, errGrantElsewhere
	}
	if ids := r.Header[headerRuntimeID]; len(ids) > 0 {
		if len(ids) != 1 || grant.Owner == nil || ids[0] != grant.Owner.RuntimeID() {
			return nil, errGrantElsewhere
		}
	}
	return grant, nil
}

package connectplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/semrange"
	"github.com/masegraye/connect-plugin-go/internal/target"
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
	badURL  error             // fixed at creation: why the base URL is not used, nil where it is, or where there is none
	own     *tokenstore.Store // grants made before the broker was bound

	mu       sync.RWMutex
	alone    *hub // nil unless it is needed
	handlers map[string]CapabilityHandler
	invalid  map[string]error // those that were not taken, by type
}

// NewCapabilityBroker makes a broker. baseURL is the host's base URL as plugins
// see it, for hosts behind a proxy; empty, and plaintext on a host that serves
// TLS, mean the name under which each plugin reached the host. One that is no such URL is
// not used: that is logged, and [NewHost] refuses the broker.
func NewCapabilityBroker(baseURL string) *CapabilityBroker {
	b := &CapabilityBroker{
		own:      tokenstore.New((&settings{tokenTTL: DefaultRuntimeTokenTTL, limits: defaultLimits}).storeConfig()),
		handlers: map[string]CapabilityHandler{}, invalid: map[string]error{},
	}
	if baseURL == "" {
		return b
	}
	u, err := parseHostURL(baseURL, true)
	if err != nil {
		b.badURL = fmt.Errorf(`the base URL of NewCapabilityBroker %w; or write "" for the name under which each plugin reaches the host`, err)
		slog.Default().Error("the base URL of capabilities is not used", keyError, b.badURL)
		return b
	}
	b.baseURL = u
	return b
}

// RegisterCapability offers a capability, in place of an earlier one of the same
// type. One whose type or version is not valid is not offered: that is logged, and
// [NewHost] refuses the broker until a valid one of the type takes its place. A nil
// handler is a programming error and panics.
func (b *CapabilityBroker) RegisterCapability(handler CapabilityHandler) {
	b.mustBeMade()
	if isNil(handler) {
		panic("connectplugin: RegisterCapability: handler is nil")
	}
	capType := handler.CapabilityType()
	err := ValidateServiceType(capType)
	if err == nil {
		err = ValidateVersion(handler.Version())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.handlers[capType] = handler
		delete(b.invalid, capType)
		return
	}
	if len(b.invalid) < maxInvalidCapabilities {
		b.invalid[capType] = err
	}
	log := slog.Default()
	if h := b.bound.Load(); h != nil {
		log = h.settings().log
	}
	log.Error("capability not offered", keySubject, printable(capType), keyError, err)
}

// maxInvalidCapabilities is more than an operator will correct at a time.
const maxInvalidCapabilities = 100

// ListCapabilities returns what the host offers, sorted by type, as copies.
func (b *CapabilityBroker) ListCapabilities() []*connectpluginv1.Capability {
	b.mustBeMade()
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
// host that the broker belongs to. Where it belongs to none, whoever holds a grant that
// RequestCapability made in this process is served, over TLS or not.
func (b *CapabilityBroker) Handler() http.Handler {
	b.mustBeMade()
	routes := b.routes(boundedMessages(defaultLimits.MaxMessageBytes))
	rpc, calls := b.serve(routes[0]), &middleware{hub: b.home, route: routes[1]}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !target.CleanPathBelow(r):
			refuse(w, r, connect.CodeNotFound, errNotAvailable)
		case strings.HasPrefix(r.URL.Path, routes[0].prefix):
			rpc.ServeHTTP(w, r)
		default:
			calls.ServeHTTP(w, r)
		}
	})
}

// RequestCapability grants a capability to the calling plugin: for a time, for
// one type and version, and bound to its identity. A capability that the caller
// may not have and one that the host does not offer give the same NotFound.
func (b *CapabilityBroker) RequestCapability(ctx context.Context, req *connect.Request[connectpluginv1.RequestCapabilityRequest]) (*connect.Response[connectpluginv1.RequestCapabilityResponse], error) {
	c, _, err := callOf(ctx, &b.member, req)
	if err != nil {
		return nil, err
	}
	b.mustBeMade()
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
		b.note(ctx, RightCapabilities.event(AuditDenied, req.Spec().Procedure, capType, c.hub.notAllowed(c.id, RightCapabilities, capType)))
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

// RevokeGrant ends one grant at once, and the calls in flight that came with it, also where
// its time is over meanwhile: that keeps new calls out, and ends none.
// The id is in the audit event of the grant; in the proto message it is grant_id.
// It reports whether the grant, or a call of it, lived. The plugin may ask for another one as long
// as policy allows it the capability.
func (b *CapabilityBroker) RevokeGrant(grantID string) bool {
	b.mustBeMade()
	ok := b.store().RevokeGrant(grantID)
	if ok {
		b.note(context.Background(), AuditEvent{Kind: AuditRevoked, Grant: grantID, Reason: "by the host"})
	}
	return ok
}

// check returns an error that names a capability, or the base URL, that was not taken.
func (b *CapabilityBroker) check() error {
	if b.badURL != nil {
		return fieldError("CapabilityBroker", "%v", b.badURL)
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, capType := range slices.Sorted(maps.Keys(b.invalid)) {
		return fieldError("CapabilityBroker", "the capability of type %s was not taken: %v", quoted(capType), b.invalid[capType])
	}
	return nil
}

// routes are those of the RPC service and of the capabilities.
func (b *CapabilityBroker) routes(opts ...connect.HandlerOption) []route {
	path, rpc := connectpluginv1connect.NewCapabilityBrokerHandler(b, opts...)
	return []route{callerRoute(path, rpc), {
		prefix: pathCapabilities, identify: identifyGrant, reads: true, next: http.HandlerFunc(b.serveCapability),
	}}
}

// home is the hub that grants belong to: that of the host, or the broker's own before
// there is one.
func (b *CapabilityBroker) home() *hub {
	if h := b.bound.Load(); h != nil {
		return h
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.alone == nil {
		quiet := slog.New(slog.DiscardHandler)
		b.alone = newHub(&settings{
			tokenTTL: DefaultRuntimeTokenTTL, grantTTL: DefaultCapabilityGrantTTL, limits: defaultLimits, allowInsecure: true,
			rules: &policy.Book{}, audit: &auditor{log: quiet}, log: quiet,
		})
		b.alone.store = b.own
	}
	return b.alone
}

// mustBeMade panics where NewCapabilityBroker did not make it.
func (b *CapabilityBroker) mustBeMade() {
	mustBeMade("the CapabilityBroker", b != nil && b.own != nil, "NewCapabilityBroker")
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
		return nil, b.grantError(ctx, err, capType, req.Spec().Procedure)
	}
	if h := b.bound.Load(); owner != nil && !h.mayUse(owner, capType) {
		// Policy changed while the grant was being made.
		h.store.RevokeGrant(grant.ID)
		return nil, connect.NewError(connect.CodeNotFound, errNotAvailable)
	}
	granted := RightCapabilities.event(AuditGranted, req.Spec().Procedure, capType, req.Msg.GetReason())
	granted.Grant = grant.ID
	b.note(ctx, granted)
	return connect.NewResponse(&connectpluginv1.RequestCapabilityResponse{Grant: &connectpluginv1.CapabilityGrant{
		GrantId:        grant.ID,
		EndpointUrl:    b.base(ctx) + pathCapabilities + capType + "/" + grant.ID,
		BearerToken:    token,
		CapabilityType: capType,
		Version:        version,
		ExpiresAt:      timestamppb.New(grant.ExpiresAt),
	}}), nil
}

func (b *CapabilityBroker) grantError(ctx context.Context, err error, capType, procedure string) error {
	switch {
	case errors.Is(err, tokenstore.ErrTooManyGrants):
		bound := map[bool]string{false: tooManyGrants, true: tooManyGrantsOfFleet}[errors.Is(err, tokenstore.ErrTooManyGrantsOfKin)]
		b.note(ctx, RightCapabilities.event(AuditLimited, procedure, capType, bound))
		return connect.NewError(connect.CodeResourceExhausted, errTooManyGrants)
	case errors.Is(err, tokenstore.ErrEnded):
		return connect.NewError(connect.CodeUnauthenticated, errUnauthenticated)
	}
	return connect.NewError(connect.CodeInternal, errNotAvailable)
}

func (b *CapabilityBroker) ttl() time.Duration {
	if h := b.bound.Load(); h != nil {
		return h.settings().grantTTL
	}
	return DefaultCapabilityGrantTTL
}

// base returns the host's base URL for the caller of ctx.
func (b *CapabilityBroker) base(ctx context.Context) string {
	h := b.bound.Load()
	insecure := h == nil || h.settings().allowInsecure
	if b.baseURL != nil && (b.baseURL.Scheme == "https" || insecure) {
		return b.baseURL.String()
	}
	p, ok := peerFrom(ctx)
	if !ok || p.authority == "" {
		return ""
	}
	scheme := "https"
	if !p.secure {
		scheme = "http"
	}
	return scheme + "://" + p.authority
}

// Why a grant is refused, for the audit.
const (
	errGrantOfAnotherKind  = refused("the grant is for another capability")
	errGrantOfAnother      = refused("the grant is of another plugin, or of an identity that its plugin had before")
	errGrantElsewhere      = refused("the grant is of a plugin with another client certificate")
	errGrantExpired        = refused("the grant has expired; its plugin asks for another")
	errGrantTaken          = refused("the grant was revoked; its plugin may ask for another as long as policy allows it the capability")
	errGrantOver           = refused("the grant ended with its plugin's identity")
	errGrantUnknown        = refused("the host knows no such grant: it is over, or is of the host before; its plugin asks for another")
	errNoGrantToken        = refused("no bearer: a call below a capability's endpoint shows the bearer_token of its grant")
	errGrantOfRuntimeToken = refused("the bearer is a runtime token; a call below a capability's endpoint shows the bearer_token of its grant")
	errNotGrantToken       = refused("the bearer is not the token of this grant")
)

// identifyGrant demands a capability grant. Its owner is the caller, and the call
// ends with the grant, too.
func identifyGrant(ctx context.Context, h *hub, p *peer, r *http.Request) (context.Context, admission, *denial) {
	grant, no := h.authenticateGrant(p, r)
	if no != nil {
		return ctx, admission{}, no
	}
	setCallerHeader(r.Header, grant.Owner)
	a := admission{lease: lease{onEnd: grant.OnRevoke, cause: errGrantRevoked}}
	if grant.Owner != nil {
		a.caller = &caller{Context: ctx, id: grant.Owner, hub: h}
		a.budget = h.requestBudget(a.caller)
		ctx = a.caller
	} else {
		a.budget = h.strangerBudget(ctx, p)
	}
	return context.WithValue(ctx, grantKey{}, grant), a, nil
}

// authenticateGrant proves the grant that a request claims.
func (h *hub) authenticateGrant(p *peer, r *http.Request) (*tokenstore.Grant, *denial) {
	capType, grantID, _ := splitCapabilityPath(r.URL.Path)
	var token string
	if auth := r.Header[headerAuthorization]; len(auth) == 1 {
		token, _ = bearer(auth[0])
	}
	claimed := r.Header[headerRuntimeID]
	grant, err := h.store.VerifyGrant(grantID, token, p.fingerprint())
	switch {
	case err != nil:
		return nil, h.grantDenial(grantID, strings.Join(claimed, " "), token, err)
	case grant.Type != capType:
		return nil, unauthenticated(strings.Join(claimed, " "), errGrantOfAnotherKind.Error())
	case !claimsOwner(claimed, grant):
		return nil, unauthenticated(strings.Join(claimed, " "), errGrantOfAnother.Error())
	}
	return grant, nil
}

// grantDenial is the denial of a grant that the store did not find right. One that is over is no attack.
func (h *hub) grantDenial(grantID, runtimeID, token string, err error) *denial {
	no := unverified(runtimeID, token, err)
	over := map[error]error{tokenstore.ErrExpired: errGrantExpired, tokenstore.ErrRevoked: errGrantTaken, tokenstore.ErrEnded: errGrantOver}
	said, ended := over[cmp.Or(h.store.PastGrant(grantID), err)]
	switch {
	case token == "":
		no.kind, said = AuditAuthFailed, errNoGrantToken
	case ended:
		no.kind = AuditUnknownIdentity
	default:
		said = h.grantFault(token, err)
	}
	no.reason = said.Error()
	return no
}

// grantFault says what is wrong with a grant that lives, or that nobody knows.
func (h *hub) grantFault(token string, err error) error {
	switch {
	case h.store.Gave(token):
		return errGrantOfRuntimeToken
	case errors.Is(err, tokenstore.ErrMismatch):
		return errNotGrantToken
	case errors.Is(err, tokenstore.ErrFingerprint):
		return errGrantElsewhere
	}
	return errGrantUnknown
}

// claimsOwner reports whether the runtime id that a request claims, if it claims
// any, is that of the grant's owner.
func claimsOwner(claimed []string, grant *tokenstore.Grant) bool {
	switch len(claimed) {
	case 0:
		return true
	case 1:
		return grant.Owner != nil && claimed[0] == grant.Owner.RuntimeID()
	}
	return false
}

type grantKey struct{}

func grantFrom(ctx context.Context) (*tokenstore.Grant, bool) {
	grant, ok := ctx.Value(grantKey{}).(*tokenstore.Grant)
	return grant, ok
}

// serveCapability serves a call that came with a grant, which the middleware
// proved: /capabilities/{type}/{grant}/… on the wire.
func (b *CapabilityBroker) serveCapability(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	grant, ok := grantFrom(ctx)
	if !ok {
		refuse(w, r, connect.CodeUnauthenticated, errUnauthenticated)
		return
	}
	handler, ok := b.lookup(grant.Type)
	if !ok || handler.Version() != grant.Version {
		b.note(ctx, RightCapabilities.event(AuditDenied, r.URL.Path, grant.Type, "the capability of the grant is not offered any more"))
		refuse(w, r, connect.CodeNotFound, errNotAvailable)
		return
	}
	if c, ok := callerFrom(ctx); ok {
		release, ok := c.hub.permit(c.call, func(book *policy.Book) bool { return book.MayUse(subjectOf(c.id), grant.Type) })
		if !ok {
			b.note(ctx, RightCapabilities.event(AuditDenied, r.URL.Path, grant.Type, c.hub.notAllowed(c.id, RightCapabilities, grant.Type)))
			refuse(w, r, connect.CodeNotFound, errNotAvailable)
			return
		}
		defer release()
	}
	swellBounded(handler, &b.home().settings().limits).ServeHTTP(w, b.capabilityRequest(w, r))
}

// capabilityRequest is the request as the capability sees it: without what
// belongs to the grant.
func (b *CapabilityBroker) capabilityRequest(w http.ResponseWriter, r *http.Request) *http.Request {
	_, _, rest := splitCapabilityPath(r.URL.Path)
	out := r.WithContext(r.Context())
	out.URL = new(url.URL)
	*out.URL = *r.URL
	out.URL.Path = cmp.Or(rest, "/")
	out.RequestURI = out.URL.RequestURI()
	out.Header = r.Header.Clone()
	for _, name := range []string{headerAuthorization, headerRuntimeID, "Cookie", "Proxy-Authorization"} {
		out.Header.Del(name)
	}
	out.Body = http.MaxBytesReader(w, r.Body, b.home().settings().limits.MaxCallBytes)
	return out
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

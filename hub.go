package connectplugin

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/launches"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// hub is what the services of one host share: who is who, what policy allows,
// and where decisions are recorded. The handshake server makes it; the other
// services are bound to it.
type hub struct {
	// Fixed at creation.
	store *tokenstore.Store
	decoy Secret // checked where a self id has no secret, so that both take the same time
	// Two limiters, so that a flood of strangers cannot use up the room that
	// the identities' budgets need.
	callers, strangers RateLimiter

	settings atomic.Pointer[settings]
	rules    atomic.Pointer[ruleBook]

	launches launches.Book          // of plugins that the host started
	address  atomic.Pointer[string] // the host's base URL for programs on this machine, nil before it serves

	permitted calls // that a change of policy may end
	streams   calls // of the host's own services, which end before it shuts down
}

// settings is what the host's configuration says to every service. Immutable.
type settings struct {
	cfg   *ServeConfig // with defaults
	audit *auditor
	log   *slog.Logger
	chain *authChain // nil without auth providers
}

func newHub(cfg *ServeConfig) *hub {
	h := &hub{decoy: make(Secret, nonceBytes), callers: NewTokenBucketLimiter(), strangers: NewTokenBucketLimiter()}
	_, _ = rand.Read(h.decoy)
	c := cfg.withDefaults()
	h.store = tokenstore.New(storeConfig(c))
	h.configure(c)
	h.store.Subscribe(func(e tokenstore.End) {
		h.audit(AuditEvent{
			Kind: AuditEnded, Peer: e.Identity.Peer(), RuntimeID: e.Identity.RuntimeID(),
			SelfID: e.Identity.SelfID(), Reason: string(e.Reason),
		})
	})
	return h
}

func storeConfig(c *ServeConfig) tokenstore.Config {
	return tokenstore.Config{
		TTL:                  c.RuntimeTokenTTL,
		Grace:                c.Limits.TokenGrace,
		MaxTotal:             c.Limits.MaxIdentities,
		MaxPerSelf:           c.Limits.MaxIdentitiesPerSelfID,
		MaxPerPeer:           c.Limits.MaxIdentitiesPerPeer,
		MaxGrantsPerIdentity: c.Limits.MaxGrantsPerIdentity,
	}
}

// configure replaces what the services read; cfg holds the defaults.
func (h *hub) configure(cfg *ServeConfig) {
	next := &settings{
		cfg:   cfg,
		log:   cfg.Logger,
		audit: &auditor{sink: cfg.Audit, log: cfg.Logger},
	}
	if len(cfg.AuthProviders) > 0 {
		next.chain = newAuthChain(cfg.AuthProviders)
	}
	h.settings.Store(next)
	h.rules.Store(compilePolicy(cfg.Policy))
}

func (h *hub) config() *ServeConfig   { return h.settings.Load().cfg }
func (h *hub) log() *slog.Logger      { return h.settings.Load().log }
func (h *hub) audit(event AuditEvent) { h.settings.Load().audit.record(event) }

// launchOf returns the launch of a plugin that the host started or adopted, nil for any
// other.
func (h *hub) launchOf(id *tokenstore.Identity) *launches.Launch {
	return declared(id).launch
}

// allow spends one request of a caller's budget.
func (h *hub) allow(key string, rate Rate) bool {
	return cmp.Or(h.config().RateLimiter, h.callers).Allow(key, rate)
}

// allowStranger spends one request of the budget of an address.
func (h *hub) allowStranger(kind string, p *peer, rate Rate) bool {
	return cmp.Or(h.config().RateLimiter, h.strangers).Allow(kind+addressKey(p.addr), rate)
}

// auditCall records a decision about a request that is being served. Of a peer or
// a caller that is refused again and again only the first refusals are recorded.
func (h *hub) auditCall(ctx context.Context, kind AuditKind, procedure, subject, reason string) {
	e := AuditEvent{Kind: kind, Procedure: procedure, Subject: subject, Reason: reason}
	p, remote := peerFrom(ctx)
	if remote {
		e.Peer = p.addr
	}
	c, known := callerFrom(ctx)
	if known {
		e.RuntimeID, e.SelfID = c.id.RuntimeID(), c.id.SelfID()
	}
	if remote && kind.isRefusal() && !h.mayRecord(p, c) {
		return
	}
	h.audit(e)
}

// refusalRate is how many refusals of one peer are answered in detail and
// recorded.
func (h *hub) refusalRate() Rate {
	limits := h.config().Limits
	return Rate{RequestsPerSecond: limits.HandshakesPerSecond, Burst: limits.HandshakeBurst}
}

// mayRecord reports whether the log has room for one more refusal of a caller, or
// of a peer that is none.
func (h *hub) mayRecord(p *peer, c *caller) bool {
	if c != nil {
		return h.allow("recorded:"+c.id.RuntimeID(), h.refusalRate())
	}
	return h.allowStranger("recorded:", p, h.refusalRate())
}

// errBoundElsewhere says that a service was given to two hosts.
var errBoundElsewhere = errors.New("belongs to another host already; make one for each host")

// member is a service of a host. Until it is bound it serves nobody over the
// wire.
type member struct {
	bound atomic.Pointer[hub]
}

// bind ties the service to a hub, once.
func (m *member) bind(h *hub) error {
	if m.bound.CompareAndSwap(nil, h) || m.bound.Load() == h {
		return nil
	}
	return errBoundElsewhere
}

// caller returns who makes a call. Over the wire that is the authenticated
// caller or an error. In the host's own process (no procedure) it is the host
// itself: a nil caller, and the runtime id that the call was made for.
func (m *member) caller(ctx context.Context, spec connect.Spec, header http.Header) (*caller, string, error) {
	if spec.Procedure == "" {
		return nil, header.Get(headerRuntimeID), nil
	}
	c, ok := callerFrom(ctx)
	if h := m.bound.Load(); !ok || h == nil || c.hub != h {
		return nil, "", connect.NewError(connect.CodeUnauthenticated, errUnauthenticated)
	}
	return c, c.id.RuntimeID(), nil
}

// note records a decision where the service is bound; unbound it is the host's
// own doing.
func (m *member) note(ctx context.Context, kind AuditKind, procedure, subject, reason string) {
	if h := m.bound.Load(); h != nil {
		h.auditCall(ctx, kind, procedure, subject, reason)
	}
}

// guard puts the middleware in front of a service that the user mounts.
func (m *member) guard(unary func(string) bool, next http.Handler) http.Handler {
	return &guarded{hub: m.bound.Load, access: accessCaller, unary: unary, next: next}
}

// endOfStream is the error of a stream whose context ended: why it did, where
// that is the host's doing.
func endOfStream(ctx context.Context) error {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errIdentityEnded), errors.Is(cause, errGrantRevoked):
		return connect.NewError(connect.CodeUnauthenticated, cause)
	case errors.Is(cause, errWithdrawn):
		return connect.NewError(connect.CodeNotFound, errNotAvailable)
	case errors.Is(cause, errShuttingDown):
		return connect.NewError(connect.CodeUnavailable, errShuttingDown)
	case errors.Is(cause, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, cause)
	}
	return connect.NewError(connect.CodeCanceled, ctx.Err())
}

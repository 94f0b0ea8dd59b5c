package connectplugin

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/crowd"
	"github.com/masegraye/connect-plugin-go/internal/heirs"
	"github.com/masegraye/connect-plugin-go/internal/held"
	"github.com/masegraye/connect-plugin-go/internal/inflight"
	"github.com/masegraye/connect-plugin-go/internal/launches"
	"github.com/masegraye/connect-plugin-go/internal/limiter"
	"github.com/masegraye/connect-plugin-go/internal/lookup"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/procedures"
	"github.com/masegraye/connect-plugin-go/internal/recount"
	"github.com/masegraye/connect-plugin-go/internal/seats"
	"github.com/masegraye/connect-plugin-go/internal/surplus"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
	"github.com/masegraye/connect-plugin-go/internal/wallclock"
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
	fleets             heirs.Book[*fleet] // of what is proven, by self id, and of what is not, by address

	current atomic.Pointer[settings]
	rules   atomic.Pointer[policy.Book]

	taken            atomic.Bool                      // by a Host: what it allows and whom it knows is nobody else's
	bare             sync.Once                        // that a service is mounted without its handler was told
	enrolling        *crowd.Crowd                     // handshakes of which nothing is proven yet
	proven, unproven limiter.Pace                     // of new identities
	unheard          held.Queue[AuditEvent]           // during a change of policy
	recurring        recount.Counter[recurrence, who] // of identities
	passing          recount.Counter[recurrence, who] // of strangers, who may be as many as they like
	strange          *surplus.Budget[AuditKind]       // of what they all have recorded
	failing          recount.Counter[failure, failed]
	leftOut          atomic.Int64 // lines of the log
	counts           atomic.Bool  // what is counted is said: a host runs with the hub

	launches launches.Book // of plugins that the host started
	shown    certs.Known   // certificates that were plugins'
	clients  certs.Shared  // certificates of those who are connected
	// told of who was doubted and shows life; nil for nobody
	trust atomic.Pointer[func(runtimeID string)]
	// whether an instance answers where it is reached; nil: not asked
	answers atomic.Pointer[func(context.Context, *tokenstore.Identity) bool]
	// told of plugins that say that they lack what they require; nil for nobody
	lacks atomic.Pointer[func()]
	// of an identity that shows no life, as a time.Duration; zero: it has none
	lease   atomic.Int64
	address atomic.Pointer[string] // the host's base URL for programs on this machine, nil before it serves
	listens atomic.Pointer[string] // the address of its listener
	serves  chan struct{}          // closed when it does
	first   sync.Once

	open     seats.Seats     // requests with a caller that are being served
	waiting  seats.Seats     // answers that were given and wait for windows of their peers
	watching seats.Seats     // watches, of the host's health or whose message is not there yet
	answered procedures.Set  // what somebody answered, which has a name for the observer
	clock    wallclock.Clock // of requests

	lookups lookup.Resolver // of names that plugins state

	permitted inflight.Permits[*policy.Book] // that a change of policy may end
	streams   inflight.Set                   // of the host's own services, which end before it shuts down
}

func newHub(s *settings) *hub {
	h := &hub{decoy: make(Secret, nonceBytes), callers: NewTokenBucketLimiter(), strangers: NewTokenBucketLimiter()}
	h.enrolling, h.serves = crowd.New(0, 0), make(chan struct{})
	h.recurring.MaxKeys, h.passing.MaxKeys, h.failing.MaxKeys = maxRecurring, maxRecurring, maxRecurring
	h.strange = surplus.New[AuditKind](recordedOfStrangers)
	_, _ = rand.Read(h.decoy)
	h.store = tokenstore.New(s.storeConfig())
	h.configure(s)
	h.store.Subscribe(func(e tokenstore.End) {
		h.audit(AuditEvent{
			Kind: AuditEnded, Peer: addrOf(e.Identity), RuntimeID: e.Identity.RuntimeID(),
			SelfID: e.Identity.SelfID(), Reason: string(e.Reason),
		})
	})
	return h
}

// servesAt says at which base URL, and on which listener, the host serves from now on.
func (h *hub) servesAt(url *string, at string) {
	h.address.Store(url)
	h.listens.Store(&at)
	h.first.Do(func() { close(h.serves) })
}

// configure replaces what the services read.
func (h *hub) configure(s *settings) {
	h.current.Store(s)
	h.enrolling.Resize(s.limits.MaxPendingHandshakes, s.limits.MaxPendingHandshakesPerPeer)
	h.lookups.Configure(lookup.Config{
		Most: s.limits.MaxLookups, Each: s.limits.MaxLookupsPerPlugin, TTL: s.limits.LookupTTL, Timeout: s.limits.DialTimeout,
	})
	h.rules.Store(s.rules)
}

func (h *hub) settings() *settings     { return h.current.Load() }
func (h *hub) log() *slog.Logger       { return h.settings().log }
func (h *hub) record(event AuditEvent) { h.settings().audit.record(event) }

// audit records an event, or has it wait for the end of a change of policy, and for what that has to tell.
func (h *hub) audit(event AuditEvent) {
	event.Time = time.Now()
	h.unheard.Pass(event, h.record)
}

// logOnce is the log for what a plugin can bring about as often as it likes: that of a kind is
// written once a minute.
func (h *hub) logOnce(kind string) *slog.Logger {
	if !h.spend(budget{key: kind, rate: Rate{RequestsPerSecond: 1 / time.Minute.Seconds(), Burst: 1}}) {
		h.leftOut.Add(1)
		return slog.New(slog.DiscardHandler)
	}
	return h.log()
}

// lacking says that a plugin says that it lacks what it requires.
func (h *hub) lacking() {
	if f := h.lacks.Load(); f != nil {
		(*f)()
	}
}

// observer is whom to tell what happens, nil for nobody.
func (h *hub) observer() Observer { return h.settings().observer }

// permit lets a change of policy end a call: allowed is asked now and after each
// change, until the call is released. It reports false where policy does not
// allow the call. In the host's own process there is no call, and nothing to end.
func (h *hub) permit(c *inflight.Call, allowed func(*policy.Book) bool) (release func(), ok bool) {
	if c == nil {
		return func() {}, true
	}
	return h.permitted.Admit(c, h.rules.Load, allowed)
}

// hold does what permit does, with a permit of the caller's, which is to be dropped from
// h.permitted where it returns true.
func (h *hub) hold(p *inflight.Permit[*policy.Book], c *inflight.Call, what inflight.Subject[*policy.Book]) bool {
	return c == nil || h.permitted.Hold(p, c, h.rules.Load, what)
}

// observeAuth records what auth providers refuse.
func (h *hub) observeAuth(ctx context.Context, f authFailure) {
	h.auditEvent(ctx, AuditEvent{Kind: AuditAuthFailed, Procedure: f.Procedure, AuthProvider: f.Provider, Reason: f.Err.Error()})
}

// remember takes note of a certificate, nil for none, as that of a plugin. It stays one:
// when the plugin's identity has ended, and when policy forgets it. What the host's Authority
// certified says so itself: each launch has another one, which would fill the set in time.
func (h *hub) remember(cert *certificate) {
	if cert != nil && !h.certifiesPlugin(cert) {
		h.shown.Add(cert.identity, certs.Pin(cert.fingerprint))
	}
}

// isPlugin reports whether a certificate, nil for none, is that of a plugin: because the
// book says so, because it was one before, or because the host's Authority certifies
// plugins and nobody else.
func (h *hub) isPlugin(book *policy.Book, cert *certificate) bool {
	if cert == nil {
		return false
	}
	key := certs.Pin(cert.fingerprint)
	return h.certifiesPlugin(cert) || book.Names(cert.identity, key) || h.shown.Has(cert.identity, key)
}

// certifiesPlugin reports whether the host's Authority, where it has one, certifies plugins
// alone by such a name.
func (h *hub) certifiesPlugin(cert *certificate) bool {
	a := h.settings().authority
	if a == nil {
		return false
	}
	id, err := certs.ParseID(cert.identity)
	return err == nil && id.TrustDomain == a.TrustDomain() && id.Role != certs.RoleHost
}

// presentsToken reports whether a request has a runtime token in any of its fields, good
// or not.
func (h *hub) presentsToken(header http.Header) bool {
	for _, values := range header {
		if slices.ContainsFunc(values, h.store.GaveIn) {
			return true
		}
	}
	return false
}

// launchOf returns the launch of a plugin that the host started or adopted, nil for any
// other.
func (h *hub) launchOf(id *tokenstore.Identity) *launches.Launch {
	return declared(id).launch
}

// budget is what a request is paid from; the zero value is nobody's, and pays for nothing.
type budget struct {
	key      string
	rate     Rate
	stranger bool // it belongs to an address, not to an identity
	renewal  bool // it is that of an identity's renewals
}

// limit says what there is not enough of.
func (b budget) limit() string {
	if b.renewal {
		return tooManyRenewals
	}
	return tooManyRequests
}

// requestBudget is that of an identity over every route.
func (h *hub) requestBudget(c *caller) budget {
	l := &h.settings().limits
	return budget{key: h.shareOf(c.id).key, rate: Rate{RequestsPerSecond: l.RequestsPerSecond, Burst: l.RequestBurst}}
}

// strangerBudget is that of a request without a runtime identity: of whom an auth
// provider knows, and otherwise of the peer.
func (h *hub) strangerBudget(ctx context.Context, p *peer) budget {
	rate := h.settings().limits.requestRate()
	if key, ok := rateKeyFromContext(ctx); ok {
		return budget{key: key, rate: rate}
	}
	return peerBudget("peer:", p, rate)
}

// spend takes one request from a budget and reports whether there was one left.
func (h *hub) spend(b budget) bool {
	if b.key == "" {
		return true
	}
	own := h.callers
	if b.stranger {
		own = h.strangers
	}
	return cmp.Or(h.settings().rateLimiter, own).Allow(b.key, b.rate)
}

// auditCall records a decision about a request that is being served. Of a peer or
// a caller that is refused again and again only the first refusals are recorded.
func (h *hub) auditCall(ctx context.Context, kind AuditKind, procedure, reason string) {
	h.auditEvent(ctx, AuditEvent{Kind: kind, Procedure: procedure, Reason: reason})
}

// auditEvent does what auditCall does with an event that says more.
func (h *hub) auditEvent(ctx context.Context, e AuditEvent) {
	p, remote := peerFrom(ctx)
	if remote {
		e.Peer = p.addr
	}
	c, known := callerFrom(ctx)
	if known {
		e.RuntimeID, e.SelfID = c.id.RuntimeID(), c.id.SelfID()
	}
	if remote && (e.Kind.isRefusal() || e.Kind == AuditUnknownIdentity) {
		h.recordRefusal(p, c, e)
		return
	}
	if remote && known && e.Kind != AuditAdministered {
		h.auditChange(c.id, e)
		return
	}
	h.audit(e)
}

// auditChange records what a plugin changed or brought about: one by one as long as its budget
// lasts, which is what it may change at once, and that of all of its instances, which may have
// to register at once; and counted beyond that.
func (h *hub) auditChange(id *tokenstore.Identity, e AuditEvent) {
	l := &h.settings().limits
	rate := Rate{RequestsPerSecond: l.HandshakesPerSecond, Burst: max(l.HandshakeBurst, l.ChangeBurst)}
	all := rate
	all.Burst = max(rate.Burst, l.MaxIdentitiesPerSelfID*l.MaxRegistrationsPerPlugin)
	if h.spend(callerBudget("changed:", id, rate)) && h.spend(accountBudget("changed:", id, all)) || h.recurs(id, "", e) {
		h.audit(e)
	}
}

// recurrence is what the audit only counts after the first time.
type recurrence struct {
	kind    AuditKind
	account string // or the address of who has none, empty where whoever comes meets it
	bound   string // that was exceeded, empty for refusals of every kind
}

// who is the last of an account of whom something was counted.
type who struct{ peer, runtimeID, selfID string }

// recurs takes note of an event by an identity, nil for none, for one bound, empty for all of its kind, and reports
// whether it is the first.
func (h *hub) recurs(id *tokenstore.Identity, bound string, e AuditEvent) (first bool) {
	what, by := recurrence{kind: e.Kind, bound: bound}, who{e.Peer, e.RuntimeID, e.SelfID}
	switch {
	case bound == tooManyOpen:
	case id != nil:
		what.account = account(id)
	case e.Peer != "":
		by.peer = addressKey(e.Peer)
		what.account = by.peer
	}
	if id == nil {
		return h.passing.Note(what, by)
	}
	return h.recurring.Note(what, by)
}

const (
	// maxRecurring bounds who is counted apart from the others.
	maxRecurring = 1024
	// recountEvery is how often the audit says what was counted.
	recountEvery = time.Minute
)

// recordRefusal records that a caller, or a peer that is none, was refused: one by one as
// long as its budget lasts, and counted beyond that. An identity that is merely unknown is
// counted from the second time on, and costs no budget.
func (h *hub) recordRefusal(p *peer, c *caller, e AuditEvent) {
	p.refused.Store(true)
	h.tellRefusal(c, e.Kind, RefusedRequest)
	switch {
	case e.Kind == AuditUnknownIdentity:
	case h.mayRecord(p, c):
		h.auditFrom(c != nil || p.isKnown(), e)
		return
	default:
		e = AuditEvent{Kind: AuditLimited, Peer: p.addr, Procedure: e.Procedure, Reason: reasonCounted}
	}
	h.auditOnce(p, c, e)
}

const reasonCounted = "refused so often that refusals are counted from now on"

// auditOnce records what recurs the first time, and counts it from then on; of a caller, or of a peer that is none.
func (h *hub) auditOnce(p *peer, c *caller, e AuditEvent) {
	var id *tokenstore.Identity
	if c != nil {
		id = c.id
		e.RuntimeID, e.SelfID = id.RuntimeID(), id.SelfID()
	}
	bound := ""
	if e.Kind == AuditUnknownIdentity && e.Reason != reasonUnknown { // it is about a grant, and has one of a few reasons
		bound = e.Reason
	}
	if h.recurs(id, bound, e) {
		h.auditFrom(id != nil || p.isKnown(), e)
	}
}

// mayRecord reports whether the log has room for one more refusal of a caller, or
// of a peer that is none.
func (h *hub) mayRecord(p *peer, c *caller) bool {
	rate := h.settings().limits.handshakeRate()
	if c != nil {
		return h.spend(accountBudget("recorded:", c.id, rate))
	}
	return h.spend(peerBudget("recorded:", p, rate))
}

// errBoundElsewhere says that a service was given to two hosts.
var errBoundElsewhere = errors.New("belongs to another host already; make one for each host")

// member is a service of a host. Until it is bound it serves nobody over the
// wire.
type member struct {
	bound atomic.Pointer[hub]
	told  sync.Once // the operator, that it is not
}

// bind ties the service to a hub, once.
func (m *member) bind(h *hub) error {
	if m.bound.CompareAndSwap(nil, h) || m.bound.Load() == h {
		return nil
	}
	return errBoundElsewhere
}

// identity returns who has a runtime id, nil for nobody.
func (m *member) identity(runtimeID string) *tokenstore.Identity {
	h := m.bound.Load()
	if h == nil {
		return nil
	}
	id, _ := h.store.Lookup(runtimeID)
	return id
}

// callOf returns who makes a call of a service, as caller does.
func callOf[T any](ctx context.Context, m *member, req *connect.Request[T]) (*caller, string, error) {
	if req == nil {
		return nil, "", connect.NewError(connect.CodeInvalidArgument, errNoRequest)
	}
	return m.caller(ctx, req.Spec(), req.Header())
}

// errNoRequest is the error of a call in the host's own process.
var errNoRequest = errors.New("the request is nil; make one with connect.NewRequest")

// caller returns who makes a call. Over the wire that is the authenticated
// caller or an error. In the host's own process (no procedure) it is the host
// itself: a nil caller, and the runtime id that the call was made for.
func (m *member) caller(ctx context.Context, spec connect.Spec, header http.Header) (*caller, string, error) {
	if spec.Procedure == "" {
		return nil, header.Get(headerRuntimeID), nil
	}
	h := m.bound.Load()
	if h == nil {
		m.unbound(ctx, spec.Procedure)
		return nil, "", connect.NewError(connect.CodeUnauthenticated, errUnbound)
	}
	c, ok := callerFrom(ctx)
	if !ok && !isGuarded(ctx) {
		var err error
		if c, err = h.bareCaller(ctx, spec.Procedure, header); err != nil {
			return nil, "", err
		}
		ok = true
	}
	if !ok || c.hub != h {
		return nil, "", connect.NewError(connect.CodeUnauthenticated, errUnauthenticated)
	}
	return c, c.id.RuntimeID(), nil
}

// unbound says once in the log that a service was mounted that belongs to no host.
func (m *member) unbound(ctx context.Context, procedure string) {
	m.told.Do(func() {
		slog.Default().ErrorContext(ctx, "a mounted service belongs to no host, so nobody can call it: name it in the ServeConfig of "+
			"NewHandshakeServer and mount HandshakeServerHandler, or make a NewServiceRouter of the services", keyProcedure, procedure)
	})
}

// note records a decision where the service is bound; unbound it is the host's
// own doing.
func (m *member) note(ctx context.Context, e AuditEvent) {
	if h := m.bound.Load(); h != nil {
		h.auditEvent(ctx, e)
	}
}

// spendChange takes one change of the caller's budget; about says of what.
func (m *member) spendChange(ctx context.Context, c *caller, about AuditEvent) error {
	if c == nil {
		return nil
	}
	rate := c.hub.settings().limits.changeRate()
	if c.hub.spend(callerBudget("change:", c.id, rate)) && c.hub.spend(c.hub.together("changes:", c.id, rate)) {
		return nil
	}
	about.Kind, about.Reason = AuditLimited, tooManyChanges
	m.note(ctx, about)
	return busy(rate.wait())
}

// endOfStream is the error of a stream whose context ended: why it did, where
// that is the host's doing.
func endOfStream(ctx context.Context) error {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errIdentityEnded), errors.Is(cause, errGrantRevoked):
		return connect.NewError(connect.CodeUnauthenticated, cause)
	case errors.Is(cause, errTooManyPending):
		return busyFor(errTooManyPending, time.Second)
	case errors.Is(cause, errWithdrawn):
		return connect.NewError(connect.CodeNotFound, errNotAvailable)
	case errors.Is(cause, errShuttingDown):
		return connect.NewError(connect.CodeUnavailable, errShuttingDown)
	case errors.Is(cause, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, cause)
	}
	return connect.NewError(connect.CodeCanceled, ctx.Err())
}

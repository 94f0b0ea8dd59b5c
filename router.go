package connectplugin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/inflight"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/target"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// ServiceRouter passes calls from plugin to plugin:
// /services/{type}/{provider}/… to the provider that registered the type, and
// /services/{type}/-/… to the one that the router chooses, call by call: by the strategy
// that was set for the type, or else by the work that each has and by how it did, among
// those that satisfy the constraint in the header X-Plugin-Constraint. It is safe for
// concurrent use.
type ServiceRouter struct {
	// Fixed at creation.
	handshake *HandshakeServer
	registry  *ServiceRegistry
	lifecycle *LifecycleServer
	catalog   *catalog.Catalog
	gate      http.Handler // to route, for a server of the user's own
	begun     time.Time
	life      context.Context //nolint:containedctx // ends with the router, which owns the goroutines
	end       context.CancelFunc
	draining  sync.WaitGroup

	mu        sync.Mutex
	dialer    *pluginDialer
	providers map[string]*routedProvider               // by runtime id
	handlers  map[string]ownPlace                      // by runtime id, of plugins that nobody else could dial
	named     uint64                                   // handlers so far
	succeeded map[string]string                        // runtime ids of replaced plugins to those of their successors
	parting   map[*proxy.Provider]*tokenstore.Identity // of plugins that have left, whose calls may finish
	closed    bool
}

// NewServiceRouter makes a router and binds the three services to one token
// store, that of the handshake server. Nil services are made.
func NewServiceRouter(handshake *HandshakeServer, registry *ServiceRegistry, lifecycle *LifecycleServer) *ServiceRouter {
	if handshake == nil {
		handshake = NewHandshakeServer(nil)
	}
	if registry == nil {
		registry = NewServiceRegistry(lifecycle)
	}
	if lifecycle == nil {
		lifecycle = registry.lifecycle
	}
	mustBeServices("NewServiceRouter", handshake, registry, lifecycle)
	s := &ServiceRouter{
		handshake: handshake, registry: registry, lifecycle: lifecycle, catalog: registry.catalog,
		begun: time.Now(), providers: map[string]*routedProvider{}, handlers: map[string]ownPlace{},
	}
	s.life, s.end = context.WithCancel(context.Background())
	s.gate = &middleware{hub: func() *hub { return handshake.hub }, route: s.routes()[0]}
	// A service that belongs to another host already stays with it; NewHost says so.
	_ = registry.bind(handshake.hub)
	_ = lifecycle.bind(handshake.hub)
	handshake.mount()
	if registry.bound.Load() == handshake.hub {
		registry.ways.CompareAndSwap(nil, &ways{cutOff: s.forget, unproven: s.unproven, prove: s.prove})
	}
	handshake.hub.store.Subscribe(s.identityEnded)
	return s
}

// RegisterPluginEndpoint sets where a plugin is dialled from the next call on;
// calls in flight to the endpoint before may finish. It is the host's own
// decision: nothing is asked of policy, and an endpoint that is no base URL makes
// calls to the plugin fail. It ends with the plugin's identity; a runtime id
// without one is ignored, which the log says. For a plugin in the host's own process there is
// [ServiceRouter.RegisterPluginHandler].
func (s *ServiceRouter) RegisterPluginEndpoint(runtimeID string, endpoint string) {
	if err := s.settle(runtimeID, place{endpoint: endpoint}); err != nil {
		s.handshake.hub.log().Warn("endpoint of a plugin ignored", keyRuntimeID, printable(runtimeID), keyError, err)
	}
}

// ServeHTTP routes one call of an authenticated caller. It is for a server of
// your own; a host serves it at /services/.
func (s *ServiceRouter) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if !target.CleanPathBelow(req) {
		refuse(w, req, connect.CodeNotFound, errNotAvailable)
		return
	}
	s.made().gate.ServeHTTP(w, req)
}

// routes is the one of all routed calls. Streams end when the connection that they
// go through does, and have no deadline but that nothing moves.
func (s *ServiceRouter) routes() []route {
	return []route{{prefix: pathServices, identify: identifyCaller, tells: true, next: http.HandlerFunc(s.route)}}
}

// configure settles how plugins are dialled.
func (s *ServiceRouter) configure(d *pluginDialer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialer = d
}

// dialing returns the TLS with which plugins are dialled, nil in plaintext.
func (s *ServiceRouter) dialing() *tls.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dialer == nil {
		return nil
	}
	return s.dialer.tls
}

// route routes one call whose caller the middleware identified.
func (s *ServiceRouter) route(w http.ResponseWriter, r *http.Request) {
	c, ok := callerFrom(r.Context())
	if !ok {
		refuse(w, r, connect.CodeUnauthenticated, errUnauthenticated)
		return
	}
	call := &routedCall{caller: c, book: c.hub.rules.Load(), contentType: contentType(r)}
	defer call.rise(r)
	if o := c.hub.observer(); o != nil {
		call.record = newCallRecord(o, c)
		defer call.record.end()
	}
	s.serve(w, r, call)
}

// serve answers a call: its provider does, or the host where it goes nowhere.
func (s *ServiceRouter) serve(w http.ResponseWriter, r *http.Request, call *routedCall) {
	c, to := call.caller, &call.target
	reason := s.find(to, c, r)
	switch {
	case to.malformed != nil:
		call.record.begin(r, call)
		call.record.ends(connect.CodeInvalidArgument)
		refuse(w, r, connect.CodeInvalidArgument, to.malformed)
		return
	case to.absent:
		call.record.begin(r, call)
		call.record.ends(connect.CodeUnavailable)
		c.hub.log().Debug("a routed call finds no provider", keyService, printable(to.route.Type),
			keyRuntimeID, c.id.RuntimeID(), keyReason, reason)
		refuse(w, r, connect.CodeUnavailable, errNotAvailable)
		return
	case reason == "":
		call.record.begin(r, call)
		if s.forward(w, r, call) {
			return
		}
		reason = "policy changed"
	}
	call.record.ends(connect.CodeNotFound)
	noteDenied(c, r, to.route.Type, reason)
	refuse(w, r, connect.CodeNotFound, errNotAvailable)
}

// noteDenied records that a call was refused. It is apart from the way of those that are not:
// what an event takes on the stack would stay there as long as they last.
//
//go:noinline
func noteDenied(c *caller, r *http.Request, serviceType, reason string) {
	c.hub.auditEvent(r.Context(), RightRequires.event(AuditDenied, r.URL.Path, serviceType, reason))
}

// routedCall is a call on its way to a provider.
type routedCall struct {
	caller      *caller
	book        *policy.Book // under which it began
	target      routeTarget
	result      proxy.Result // of the last attempt that policy allowed
	record      *callRecord  // nil where nobody observes
	first       onward
	tried       bool // first is, or was, in use
	held        heldAnswer
	contentType string // of the request, which several ask for
}

// onward is the way of a call to one provider, as policy sees it. It goes on while its
// caller may make the call, its provider may provide the type, and the type opens the
// procedure. A provider that the host registered itself, against the policy, may.
type onward struct {
	permit inflight.Permit[*policy.Book]

	// Fixed before the permit is held.
	router           *ServiceRouter
	caller, provider *tokenstore.Identity // the provider is nil where the host knows none
	bound            bool                 // by what policy lets the provider provide
	reg              *catalog.Registration
	path             string
}

// onward returns the next way of the call. Somebody may still look at those before.
func (c *routedCall) onward(s *ServiceRouter) *onward {
	p := &c.first
	if c.tried {
		p = new(onward)
	}
	c.tried = true
	reg := c.target.reg
	p.router, p.caller, p.reg, p.path = s, c.caller.id, reg, c.target.path
	if provider, ok := c.caller.hub.store.Lookup(reg.RuntimeID); ok {
		p.provider, p.bound = provider, c.book.MayProvide(subjectOf(provider), reg.Type)
	}
	return p
}

// AllowedBy implements inflight.Subject.
func (p *onward) AllowedBy(b *policy.Book) bool {
	return b.MayRequire(subjectOf(p.caller), p.reg.Type) && (!p.bound || b.MayProvide(subjectOf(p.provider), p.reg.Type)) &&
		p.router.opens(b, p.provider, p.reg, p.path)
}

// forward passes a call on and answers it. It reports false, and does neither,
// where policy does not allow the call any more. What certainly did not reach the
// provider is sent once more: to the provider's new endpoint, if it has one, or
// to another provider, if the call is idempotent.
func (s *ServiceRouter) forward(w http.ResponseWriter, r *http.Request, call *routedCall) bool {
	if call.target.chosen {
		return s.forwardToAny(w, r, call)
	}
	if !s.attempt(w, r, call) {
		return false
	}
	if call.result.Retryable {
		s.again(w, r, call)
	}
	over := s.report(r, call.caller, call.target.reg, &call.result)
	call.record.done(r.Context(), call, over)
	answer(w, r, call)
	return true
}

// again makes another attempt where there may be one.
func (s *ServiceRouter) again(w http.ResponseWriter, r *http.Request, call *routedCall) {
	switch {
	case errors.Is(call.result.Err, proxy.ErrClosed), s.replaced(call.target.reg.RuntimeID):
		var target routeTarget
		if s.find(&target, call.caller, r) == "" {
			call.target = target // its place may have been taken meanwhile
		}
		s.attempt(w, r, call)
	case idempotent(call.book, r, call.target.path):
		s.failOver(w, r, call)
	}
}

// failOver sends a call that failed to another provider that will do.
func (s *ServiceRouter) failOver(w http.ResponseWriter, r *http.Request, call *routedCall) {
	failed, before := call.result, call.target.reg
	other, ok := s.catalog.Substitute(before.Type, before.RuntimeID)
	if !ok {
		return
	}
	call.target.reg = &other
	if !s.attempt(w, r, call) {
		call.target.reg = before
		return
	}
	s.report(r, call.caller, before, &failed)
}

// idempotent reports whether a call may be sent to another provider: a
// side-effect-free GET of Connect, or a procedure that policy marks.
func idempotent(book *policy.Book, r *http.Request, path string) bool {
	return r.Method == http.MethodGet || book.Idempotent.Has(path)
}

// attempt sends a call to its target. It reports false, and leaves the result as it is, where
// policy does not allow that.
func (s *ServiceRouter) attempt(w http.ResponseWriter, r *http.Request, call *routedCall) bool {
	c := call.caller
	way := call.onward(s)
	if !c.hub.hold(&way.permit, c.call, way) {
		return false
	}
	defer c.hub.permitted.Drop(&way.permit)
	provider, err := s.provider(c.hub, call.target.reg.RuntimeID)
	if err != nil {
		call.result = proxy.Result{
			Class: proxy.ClassUnavailable, Err: err, Retryable: true,
			Fault: !errors.Is(err, errUnhealthy), // which the catalogue knows
		}
		return true
	}
	w.Header().Del(headerCacheControl) // the provider says what may be kept
	call.onto(provider.pool, w, r)
	s.notice(provider, call)
	return true
}

// onto forwards the call.
func (c *routedCall) onto(pool *proxy.Provider, w http.ResponseWriter, r *http.Request) {
	id, of := c.caller.id, c.caller.hub.shareOf(c.caller.id)
	c.result = pool.Forward(w, r, proxy.Call{
		Path: c.target.path, Ending: ending, Outcome: c.record.attempt(), Ahead: of.ahead, Holder: c,
		Account: of.account, ContentType: c.contentType, Began: c.caller.came,
		CallerID: id.RuntimeID(), CallerSelfID: id.SelfID(), CallerVersion: id.SelfVersion(),
	})
}

// now is the age of the router.
func (s *ServiceRouter) now() time.Duration { return time.Since(s.begun) }

// opens reports whether a registration opens a procedure: one below its path or, where it
// has none, one that policy names for the plugin, and where it names nothing one that no
// other type of the plugin opens. The provider is nil where the host knows none.
func (s *ServiceRouter) opens(book *policy.Book, provider *tokenstore.Identity, reg *catalog.Registration, path string) bool {
	if strings.Trim(reg.Path, "/") != "" {
		return true // it was joined with the path
	}
	if provider != nil {
		if rules := book.Of(subjectOf(provider)); rules != nil && rules.Procedures.Named() {
			return rules.Procedures.Has(path)
		}
	}
	return !s.catalog.OpenedByOther(reg.SelfID, reg.Type, path)
}

// routeTarget is where a call goes.
type routeTarget struct {
	route proxy.Route
	reg   *catalog.Registration // not to be changed
	path  string

	absent     bool               // there is none at the moment, of a type that the caller may call
	chosen     bool               // by the router, which may choose another
	constraint catalog.Constraint // of whom the router may choose
	malformed  error              // what is wrong with the constraint
}

// find finds the target of a call, or says why there is none. Unknown and forbidden targets
// look alike to the caller; the reason is for the log.
func (s *ServiceRouter) find(t *routeTarget, c *caller, r *http.Request) (reason string) {
	var err error
	if t.route, err = proxy.ParseRoute(r.URL); err != nil {
		return err.Error()
	}
	route := &t.route
	if !c.hub.mayRequire(c.id, route.Type) {
		return c.hub.notAllowed(c.id, RightRequires, route.Type)
	}
	if route.Provider == anyProvider {
		return s.findAny(t, r)
	}
	reg := s.catalog.Registered(route.Type, route.Provider)
	if reg == nil {
		if next, ok := s.successor(route.Type, route.Provider); ok {
			reg = &next
		}
	}
	if reg == nil {
		t.absent = s.catalog.WhyNot(route.Type, route.Provider) == catalog.AbsentForNow
		return "no such provider of the type: a call names one by its runtime id, or \"-\" for any, as the HTTPClient of a connection does"
	}
	return s.at(t, reg)
}

// at sets the target at a provider, or says why it is none.
func (s *ServiceRouter) at(t *routeTarget, reg *catalog.Registration) (reason string) {
	var err error
	t.reg = reg
	if t.path, err = proxy.JoinPath(reg.Path, t.route.Rest); err != nil {
		return err.Error()
	}
	if strings.HasPrefix(t.path, pathControl) || strings.HasPrefix(t.path, pathIdentity) {
		return "only the host calls a plugin's control services"
	}
	h := s.handshake.hub
	if provider, _ := h.store.Lookup(reg.RuntimeID); !s.opens(h.rules.Load(), provider, reg, t.path) {
		return "the type registered no path, and the procedure is another type's or not among PluginPolicy.Procedures"
	}
	return ""
}

// report records how a provider did on a call that was over at the moment that it returns.
func (s *ServiceRouter) report(r *http.Request, c *caller, reg *catalog.Registration, result *proxy.Result) (over time.Time) {
	if result.Class == proxy.ClassOK {
		s.catalog.Report(reg.Type, reg.RuntimeID, true, result.Latency)
		over = s.served(reg.RuntimeID)
	} else {
		over = time.Now()
		s.reportFailed(r, c, reg, result)
	}
	logCall(r, c, reg, result)
	return over
}

// reportFailed does what report does, for a call that failed.
func (s *ServiceRouter) reportFailed(r *http.Request, c *caller, reg *catalog.Registration, result *proxy.Result) {
	switch result.Class {
	case proxy.ClassUnavailable, proxy.ClassReset, proxy.ClassResponse, proxy.ClassIdle:
		if result.Fault { // what a caller brings about says nothing of the provider
			s.catalog.Report(reg.Type, reg.RuntimeID, false, result.Latency)
			s.failed(reg.RuntimeID, result)
		}
		c.hub.logFailure(c, reg, result.Class.String(), withField(result.Err))
	case proxy.ClassRefused:
		c.hub.auditEvent(r.Context(), RightRequires.event(AuditDenied, r.URL.Path, reg.Type, result.Err.Error()))
	case proxy.ClassCanceled, proxy.ClassOK:
	}
}

// served notes that a provider answered a call, and returns when.
func (s *ServiceRouter) served(runtimeID string) time.Time {
	id, ok := s.handshake.hub.store.Lookup(runtimeID)
	if !ok {
		return time.Now()
	}
	at := id.Served()
	s.handshake.hub.sign(id)
	return at
}

// failed notes how a call to a provider failed, for whoever looks at the plugin.
func (s *ServiceRouter) failed(runtimeID string, result *proxy.Result) {
	if id, ok := s.handshake.hub.store.Lookup(runtimeID); ok {
		what := printable(fmt.Sprintf("%s: %v", result.Class, result.Err))
		declared(id).failure.Store(&failedCall{at: time.Now(), what: what})
	}
}

// answer answers a call that was not answered.
func answer(w http.ResponseWriter, r *http.Request, call *routedCall) {
	result := &call.result
	if result.Written {
		return
	}
	w.Header().Set(headerCacheControl, noStore)
	if errors.Is(result.Err, proxy.ErrMethod) && r.Method != http.MethodGet {
		// No protocol of RPCs has a form for it.
		w.Header().Set("Allow", "GET, POST")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	code, err := outcomeOf(r.Context(), *result)
	if errors.Is(err, errProviderBusy) || errors.Is(err, errTooManyCalls) {
		err = noRoom(r, call, err)
	}
	refuse(w, r, code, err)
}

// ending states how a broken stream ends for the caller.
func ending(class proxy.Class, err error) (proxy.Status, bool) {
	code, text := classify(class, err)
	return proxy.Status{Code: uint32(code), Name: code.String(), Message: text.Error()}, true
}

func outcomeOf(ctx context.Context, result proxy.Result) (connect.Code, error) {
	if result.Class == proxy.ClassCanceled {
		return classify(result.Class, context.Cause(ctx))
	}
	return classify(result.Class, result.Err)
}

// classify says what the caller learns of a call that failed.
func classify(class proxy.Class, err error) (connect.Code, error) {
	switch class {
	case proxy.ClassRefused:
		return connect.CodeUnimplemented, errNotAvailable
	case proxy.ClassIdle:
		return connect.CodeDeadlineExceeded, errIdle
	case proxy.ClassCanceled:
		switch {
		case errors.Is(err, errIdentityEnded):
			return connect.CodeUnauthenticated, errIdentityEnded
		case errors.Is(err, errWithdrawn):
			return connect.CodeNotFound, errNotAvailable
		case errors.Is(err, errShuttingDown):
			return connect.CodeUnavailable, errShuttingDown
		case errors.Is(err, context.DeadlineExceeded):
			return connect.CodeDeadlineExceeded, context.DeadlineExceeded
		}
		return connect.CodeCanceled, context.Canceled
	case proxy.ClassOK, proxy.ClassUnavailable, proxy.ClassReset, proxy.ClassResponse:
	}
	switch {
	case proxy.TooLarge(err):
		return connect.CodeResourceExhausted, errHeadersTooLarge
	case errors.Is(err, proxy.ErrHeld):
		return connect.CodeResourceExhausted, errTooManyCalls
	case errors.Is(err, proxy.ErrBusy):
		return connect.CodeResourceExhausted, errProviderBusy
	}
	return connect.Code(proxy.CodeOf(err)), errNotAvailable
}

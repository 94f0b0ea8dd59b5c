package connectplugin

import (
	"context"
	crand "crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"google.golang.org/protobuf/proto"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/seats"
	"github.com/masegraye/connect-plugin-go/internal/semrange"
	"github.com/masegraye/connect-plugin-go/internal/spread"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// memoryEndpoint starts what the catalogue notes as the endpoint of a provider in
// the host's own process. A number follows, so that another handler is another
// endpoint. It is none that anybody could dial.
const memoryEndpoint = "memory:"

var (
	errNoHandler = errors.New("handler is nil")
	errNotAlive  = errors.New("the runtime id has no live identity")
	errHangs     = errors.New("the handler does not return")
)

// ownPlace is where a plugin is that nobody else could dial: in the host's own process, or at
// a socket that the host made for it.
type ownPlace struct {
	name   string // stands for the endpoint in the catalogue, a number follows
	memory bool   // it is in the host's own process
	// open makes what passes calls on to it.
	open func(*pluginDialer) (*proxy.Provider, error)
	// ask asks it how it is, in place of PluginControl; may be nil.
	ask func(context.Context) (catalog.HealthReport, error)
}

// memoryPlace is that of a handler in the host's own process.
func memoryPlace(h *hub, handler http.Handler) *ownPlace {
	return &ownPlace{name: memoryEndpoint, memory: true, open: func(d *pluginDialer) (*proxy.Provider, error) {
		l := &h.settings().limits
		return proxy.New(proxy.Config{
			Handler: swellBounded(handler, l), MaxBody: l.MaxCallBytes, CallIdle: l.StreamIdleTimeout,
			Headers: d.headers, Clock: &d.clock,
		})
	}}
}

// RegisterPluginHandler makes a plugin one of the host's own process: from the next
// call on its calls go to handler, without any socket. The handler serves all that
// the plugin provides, each service below the path that it is registered with; it
// is called concurrently and has to return soon after its request's context ended.
// Everything else is as for a plugin elsewhere, which calls it over the network:
// what policy allows, which header fields pass, health, draining, revocation and
// shutdown. Beside X-Plugin-Caller-Id, [CallerFromContext] tells it the caller. A
// request's body is bounded by [Limits].MaxCallBytes, and a panic of the handler
// ends its call with Unavailable.
//
// It takes the place of an endpoint or a handler that the plugin had, and an
// endpoint that is set later takes its place; calls in flight to the one before may
// finish. It ends with the plugin's identity, which has to exist: an error says that
// it does not, that handler is nil, or, wrapping [ErrHostClosed], that the host was
// shut down. Nothing has changed then. As with RegisterPluginEndpoint, nothing is
// asked of policy. It is safe for concurrent use.
func (s *ServiceRouter) RegisterPluginHandler(runtimeID string, handler http.Handler) error {
	if isNil(handler) {
		return fmt.Errorf("register plugin handler: %w", errNoHandler)
	}
	if err := s.settle(runtimeID, place{own: memoryPlace(s.handshake.hub, handler)}); err != nil {
		return fmt.Errorf("register plugin handler: %w", err)
	}
	return nil
}

// place is where the host says that a plugin is reached.
type place struct {
	endpoint string
	own      *ownPlace // instead of the endpoint, where it is not nil
	trial    bool      // the endpoint stays with whom it belongs to
	spared   string    // an earlier life of the plugin that has calls in flight, and ends when they have; empty for none
}

// made returns a router that NewServiceRouter made.
func (s *ServiceRouter) made() *ServiceRouter {
	mustBeMade("the ServiceRouter", s != nil && s.handshake != nil, "NewServiceRouter")
	return s
}

// settle sets where a live plugin is reached. What is set ends with the plugin's
// identity.
func (s *ServiceRouter) settle(runtimeID string, at place) error {
	id, ok := s.made().handshake.hub.store.Lookup(runtimeID)
	if !ok {
		return errNotAlive
	}
	before, _ := s.catalog.Endpoint(runtimeID)
	vacated, ok := s.settleOpen(id, at)
	if !ok {
		return ErrHostClosed
	}
	s.lifecycle.moved(id, before)
	vacated.Replaced = slices.DeleteFunc(vacated.Replaced, func(earlier string) bool { return earlier == at.spared })
	s.registry.vacate(s.handshake.hub, id.SelfID(), vacated)
	if id.Ended() { // meanwhile; nobody else will take it back
		s.endProvider(runtimeID)
		s.catalog.RemoveRuntime(runtimeID)
		return errNotAlive
	}
	return nil
}

// settleOpen does what settle does, unless the router is closed.
func (s *ServiceRouter) settleOpen(id *tokenstore.Identity, at place) (vacated catalog.Vacated, ok bool) {
	claim := s.handshake.hub.claimOf(id, at.endpoint)
	claim.ByHost = true
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return vacated, false
	}
	delete(s.handlers, claim.RuntimeID)
	if at.own != nil {
		s.named++
		named := *at.own
		named.name += strconv.FormatUint(s.named, 10)
		claim.Endpoint, s.handlers[claim.RuntimeID] = named.name, named
	}
	if !at.trial && at.own == nil {
		var err error
		if vacated, err = s.catalog.ClaimEndpoint(claim); err == nil {
			return vacated, true
		}
	}
	// What is no base URL is nobody's: calls to it fail.
	s.catalog.SetEndpoint(claim.RuntimeID, claim.Endpoint)
	return vacated, true
}

// poolLocked makes what passes calls on to a plugin at an endpoint.
func (s *ServiceRouter) poolLocked(h *hub, id *tokenstore.Identity, endpoint string) *routedProvider {
	p := &routedProvider{endpoint: endpoint}
	if own, ok := s.handlers[id.RuntimeID()]; ok && own.name == endpoint {
		p.memory, p.question = own.memory, own.ask
		p.pool, p.err = own.open(s.dialer)
		return p
	}
	var ask challenger
	switch {
	case s.catalog.NamedItself(id.RuntimeID()) && s.dialer.mustProve(h, h.rules.Load(), id):
		ask = proving(id)
	case declared(id).adopted != nil:
		ask = s.dialer.recognising(h, id)
	}
	p.pool, p.err = s.dialer.pool(h, id, endpoint, ask)
	return p
}

// unproven reports whether nothing shows that it is a plugin that answers where it says that
// it is, unless it shows it itself.
func (s *ServiceRouter) unproven(id *tokenstore.Identity) bool {
	h, d := s.handshake.hub, s.currentDialer()
	return d != nil && d.mustProve(h, h.rules.Load(), id)
}

func (s *ServiceRouter) currentDialer() *pluginDialer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dialer
}

// prove connects to a plugin at an endpoint that it names, one attempt of a plugin at a
// time. The error is errNotTheOne where somebody else answers there.
func (s *ServiceRouter) prove(ctx context.Context, id *tokenstore.Identity, endpoint string) error {
	h, d := s.handshake.hub, s.currentDialer()
	if d == nil {
		return errNotServing
	}
	if own := declared(id).endpoint; own != nil {
		select {
		case own.turn <- struct{}{}:
			defer func() { <-own.turn }()
		case <-ctx.Done():
			return fmt.Errorf("find out who answers: %w", ctx.Err())
		}
	}
	pool, err := d.pool(h, id, endpoint, proving(id))
	if err != nil {
		return err
	}
	defer pool.Close()
	ctx, cancel := context.WithTimeout(ctx, d.limits.DialTimeout)
	defer cancel()
	_, err = probeHealth(ctx, pool, id)
	return err
}

// ask asks a provider how it is. A handler in the host's process that hangs cannot
// be ended from outside; then its goroutine stays, and there is never more than one.
func (p *routedProvider) ask(ctx context.Context, id *tokenstore.Identity) (catalog.HealthReport, error) {
	switch {
	case p.question != nil:
		return p.question(ctx)
	case !p.memory:
		return probeHealth(ctx, p.pool, id)
	}
	if !p.asking.CompareAndSwap(false, true) {
		return catalog.HealthReport{}, errHangs
	}
	answers := make(chan probeAnswer, 1)
	go func() {
		defer p.asking.Store(false)
		report, err := probeHealth(ctx, p.pool, id)
		answers <- probeAnswer{report: report, err: err}
	}()
	select {
	case a := <-answers:
		return a.report, a.err
	case <-ctx.Done():
		return catalog.HealthReport{}, errHangs
	}
}

// handlerCount counts the plugins in the host's own process.
func (s *ServiceRouter) handlerCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, own := range s.handlers {
		if own.memory {
			n++
		}
	}
	return n
}

// findAny chooses the target of a call that leaves that to the router.
func (s *ServiceRouter) findAny(t *routeTarget, r *http.Request) (reason string) {
	t.chosen = true
	demands := r.Header[headerConstraint]
	if len(demands) > 1 {
		t.malformed = errTwoConstraints
		return t.malformed.Error()
	}
	if len(demands) == 1 {
		if t.constraint, t.malformed = semrange.ParseConstraint(demands[0]); t.malformed != nil {
			t.malformed = fmt.Errorf("%s: %w", headerConstraint, t.malformed)
			return "malformed constraint"
		}
	}
	return s.choose(t, nil)
}

var errTwoConstraints = errors.New(headerConstraint + ": is there more than once")

// choose finds a provider for a call, other than those that were tried: by the strategy of
// the type at first, where there is one, and by load otherwise. It says why there is none.
func (s *ServiceRouter) choose(t *routeTarget, tried []string) (reason string) {
	if len(tried) == 0 && s.catalog.HasStrategy(t.route.Type) {
		if reg, _, err := s.catalog.Select(t.route.Type, t.constraint); err == nil {
			if reason = s.at(t, &reg); reason == "" {
				return ""
			}
			tried = []string{reg.RuntimeID}
		}
	}
	var room [catalog.MaxCandidates]catalog.Candidate
	candidates := s.catalog.Candidates(t.route.Type, t.constraint, tried, room[:0])
	for len(candidates) > 0 { // one that the path leads nowhere at keeps no call from the others
		i := spread.Least(s.loads(candidates), rand.Float64)
		if reason = s.at(t, candidates[i].Registration); reason == "" {
			return ""
		}
		candidates = slices.Delete(candidates, i, i+1)
	}
	if reason != "" {
		return reason
	}
	t.absent = true
	return "nobody provides the type, or none that satisfies the constraint"
}

// loads returns what is known of the work of providers.
func (s *ServiceRouter) loads(candidates []catalog.Candidate) []spread.Load {
	loads := make([]spread.Load, len(candidates))
	now := int64(s.now())
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range candidates {
		loads[i] = spread.Load{Latency: candidates[i].Latency, Failing: candidates[i].Failing}
		if p := s.providers[candidates[i].RuntimeID]; p != nil && p.pool != nil {
			loads[i].InFlight, loads[i].Down = p.pool.InFlight(), now < p.down.Load()
		}
	}
	return loads
}

// maxTries bounds how many providers a call is sent to.
const maxTries = 8

// forwardToAny passes a call on to the provider that was chosen, and to another one as long
// as it certainly did not reach any. It reports false, and does neither, where policy allows
// none of them.
func (s *ServiceRouter) forwardToAny(w http.ResponseWriter, r *http.Request, call *routedCall) bool {
	var (
		tried []string
		sent  bool // an attempt was made
	)
	for {
		reg := call.target.reg
		allowed := s.attempt(w, r, call)
		if allowed {
			sent = true
			over := s.report(r, call.caller, reg, &call.result)
			call.record.done(r.Context(), call, over)
		}
		if allowed && !call.result.Retryable || r.Context().Err() != nil {
			break
		}
		if tried = append(tried, reg.RuntimeID); len(tried) == maxTries || s.choose(&call.target, tried) != "" {
			break
		}
	}
	if !sent {
		return false
	}
	answer(w, r, call)
	return true
}

// noRoom records that a provider has no room for a call, and says when to come again.
//
//go:noinline
func noRoom(r *http.Request, call *routedCall, what error) error {
	if errors.Is(what, errProviderBusy) {
		short(r, call, tooManyAtProvider)
	}
	return busyFor(what, seatWait)
}

// short records what there is not enough of for a call.
func short(r *http.Request, call *routedCall, what string) {
	e, id := RightRequires.event(AuditLimited, r.URL.Path, call.target.route.Type, what), call.caller.id
	e.RuntimeID, e.SelfID = id.RuntimeID(), id.SelfID()
	if p, ok := peerFrom(r.Context()); ok {
		e.Peer = p.addr
	}
	call.caller.hub.auditCounted(id, e)
}

// heldAnswer is what of the seats of its caller the heads of a call's answer take, besides that of its request.
type heldAnswer struct {
	mu    sync.Mutex
	bytes int
	took  int
	met   seats.Met // the bound that there is
	over  bool      // the call is
}

// Hold implements [proxy.Holder].
func (c *routedCall) Hold(bytes int) bool {
	l, held := &c.caller.hub.settings().limits, &c.held
	held.mu.Lock()
	defer held.mu.Unlock()
	held.bytes += bytes
	n := min(held.bytes/seatHolds, l.MaxOpenCallsPerIdentity-1) - held.took
	if n <= 0 || held.over || held.met != seats.None {
		return !held.over && held.met == seats.None
	}
	took, met := c.caller.hub.sit(c.caller.id.RuntimeID(), c.caller.hub.shareOf(c.caller.id), n)
	held.took += took
	held.met = met
	return met == seats.None
}

// rise leaves the seats, and records that there were too few.
func (c *routedCall) rise(r *http.Request) {
	c.held.mu.Lock()
	took, met := c.held.took, c.held.met
	c.held.over = true
	c.held.mu.Unlock()
	if took > 0 {
		c.caller.hub.rise(c.caller.id.RuntimeID(), c.caller.hub.shareOf(c.caller.id), took)
	}
	if met != seats.None {
		short(r, c, tooManySeats[met])
	}
}

// seal refuses further calls to a plugin, unless some are in flight, and reports whether it did.
func (s *ServiceRouter) seal(runtimeID string) bool {
	s.mu.Lock()
	p := s.providers[runtimeID]
	ok := p != nil && p.pool != nil && !p.memory && p.previous == nil
	s.mu.Unlock()
	return ok && p.pool.Seal()
}

// Bytes that an answer of a launched plugin has at most, and random ones of a question.
const maxHealthAnswer, challengeBytes = 64 << 10, 32

// healthQuestion is a question to one plugin.
type healthQuestion struct {
	id        *tokenstore.Identity
	challenge []byte
	message   []byte
}

func newHealthQuestion(id *tokenstore.Identity) (healthQuestion, error) {
	q := healthQuestion{id: id, challenge: make([]byte, challengeBytes)}
	_, _ = crand.Read(q.challenge)
	var err error
	q.message, err = proto.Marshal(&connectpluginv1.GetHealthRequest{RuntimeId: id.RuntimeID(), Challenge: q.challenge})
	if err != nil {
		return q, fmt.Errorf("ask for health: %w", err)
	}
	return q, nil
}

var errNotTheOne = errors.New("who answers does not prove that it is the plugin")

// proven checks the proof of an answer.
func (q *healthQuestion) proven(m *connectpluginv1.GetHealthResponse) bool {
	return q.id.Possesses(healthProofMessage(q.id.RuntimeID(), q.challenge), m.GetProof())
}

// answer reads an answer. Of a plugin that proved once who answers, one without a proof is
// somebody else's.
func (q *healthQuestion) answer(status int, body []byte) (catalog.HealthReport, error) {
	var m connectpluginv1.GetHealthResponse
	own := declared(q.id).endpoint
	switch {
	case own == nil:
	case status == http.StatusOK && proto.Unmarshal(body, &m) == nil && q.proven(&m):
		own.proves.Store(true)
	case own.proves.Load():
		return catalog.HealthReport{}, fmt.Errorf("ask for health: %w: status %d", errNotTheOne, status)
	}
	return healthAnswer(status, body)
}

// challenger makes what whoever answers on a new connection is asked there.
type challenger = func(shown *tls.ConnectionState) (proxy.Challenge, error)

// proving has it prove that it is the plugin.
func proving(id *tokenstore.Identity) challenger {
	return func(*tls.ConnectionState) (proxy.Challenge, error) { return healthChallenge(id) }
}

func healthChallenge(id *tokenstore.Identity) (proxy.Challenge, error) {
	q, err := newHealthQuestion(id)
	check := func(a proxy.Answer) error {
		var m connectpluginv1.GetHealthResponse
		if a.Status != http.StatusOK || proto.Unmarshal(a.Message, &m) != nil || !q.proven(&m) {
			return fmt.Errorf("%w: status %d", errNotTheOne, a.Status)
		}
		return nil
	}
	return proxy.Challenge{Path: connectpluginv1connect.PluginControlGetHealthProcedure, Message: q.message, Check: check}, err
}

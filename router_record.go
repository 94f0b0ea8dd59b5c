package connectplugin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/procedures"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// callRecord is what an observer is told of one call. A nil one takes note of nothing.
type callRecord struct {
	observer Observer
	names    *procedures.Set
	ctx      context.Context //nolint:containedctx // what the observer made of the call's
	begun    bool            // the observer was told
	// attempted reports that the last attempt got as far as the proxy, whose outcome it has.
	attempted bool
	call      RoutedCall
	outcome   proxy.Outcome // of the last attempt
}

var callRecords = sync.Pool{New: func() any { return new(callRecord) }}

func newCallRecord(o Observer, c *caller) *callRecord {
	rec, _ := callRecords.Get().(*callRecord)
	rec.observer, rec.names = o, &c.hub.answered
	rec.call = RoutedCall{Start: c.came, Code: connect.CodeUnknown} // where a handler of the user's panics
	if c.came.IsZero() {
		rec.call.Start = c.hub.clock.Now()
	}
	return rec
}

// begin tells the observer of a call that policy allows, and passes on the trace context that
// it wants.
func (rec *callRecord) begin(r *http.Request, call *routedCall) {
	if rec == nil {
		return
	}
	id, to := call.caller.id, &call.target
	var start CallStart // field by field, the trace last: what was just written is slow to copy
	start.Start, start.Caller, start.CallerRuntimeID = rec.call.Start, id.SelfID(), id.RuntimeID()
	start.Type, start.Protocol = to.route.Type, protocolOf(call.contentType)
	start.Procedure = rec.names.Name(to.route.Type, to.path)
	rec.call.Caller, rec.call.CallerRuntimeID, rec.call.Type = start.Caller, start.CallerRuntimeID, start.Type
	rec.call.Procedure, rec.call.Protocol = start.Procedure, start.Protocol
	rec.begun = true
	start.Trace.read(r.Header)
	ctx, next := rec.observer.CallStarted(r.Context(), start)
	rec.ctx = ctx
	if next != start.Trace {
		replaceTrace(r.Header, start.Trace, next)
	}
}

// attempt returns what takes in the next attempt to make the call.
func (rec *callRecord) attempt() *proxy.Outcome {
	if rec == nil {
		return nil
	}
	rec.attempted = true
	return &rec.outcome
}

// ends takes note of what the caller learns.
func (rec *callRecord) ends(code connect.Code) {
	if rec != nil {
		rec.call.Code = code
	}
}

// done takes note of how the last attempt went, which was over at a moment.
func (rec *callRecord) done(ctx context.Context, call *routedCall, over time.Time) {
	if rec == nil {
		return
	}
	to, result, o := &call.target, &call.result, &rec.outcome
	rec.call.Provider, rec.call.ProviderRuntimeID = to.reg.SelfID, to.reg.RuntimeID
	rec.call.Waited = result.Latency
	rec.call.Attempt, rec.call.RequestBytes, rec.call.ResponseBytes = 0, 0, 0
	if rec.attempted && !o.Began.IsZero() {
		rec.call.Attempt = over.Sub(o.Began)
		rec.call.RequestBytes, rec.call.ResponseBytes = o.RequestBytes, o.ResponseBytes
	}
	if result.Class != proxy.ClassOK {
		rec.call.Code, _ = outcomeOf(ctx, *result)
		if rec.attempted && o.Answers() && rec.call.Procedure == "" { // a stream may always be broken off
			rec.call.Procedure = rec.names.Learn(rec.call.Type, to.path)
		}
		rec.attempted = false // the next attempt may not get so far
		return
	}
	rec.call.Duration = over.Sub(rec.call.Start) // the answer was written by then
	if rec.call.Code = connect.Code(o.Code()); answersProcedure(rec.call.Code) && rec.call.Procedure == "" {
		rec.call.Procedure = rec.names.Learn(rec.call.Type, to.path)
	}
}

// end tells the observer of the end, and gives the record back.
func (rec *callRecord) end() {
	if rec.begun {
		if rec.call.Duration == 0 {
			rec.call.Duration = time.Since(rec.call.Start)
		}
		rec.observer.CallRouted(rec.ctx, rec.call)
	}
	// What newCallRecord, begin and the proxy set anew may stay: names, and no more of a peer's.
	rec.observer, rec.names, rec.ctx, rec.begun, rec.attempted = nil, nil, nil, false, false
	callRecords.Put(rec)
}

// logCall records a call that was passed on, for whoever looks at single calls.
func logCall(r *http.Request, c *caller, reg *catalog.Registration, result *proxy.Result) {
	log := c.hub.log()
	if !log.Enabled(r.Context(), slog.LevelDebug) {
		return
	}
	log.LogAttrs(r.Context(), slog.LevelDebug, "routed call",
		slog.String(keyProcedure, printable(r.URL.Path)), slog.String(keyRuntimeID, c.id.RuntimeID()),
		slog.String(keyService, reg.Type), slog.String(keyProvider, reg.RuntimeID),
		slog.String(keyOutcome, result.Class.String()), slog.Int(keyStatus, result.Status),
		slog.String(keyLatency, result.Latency.String()))
}

// silence is how long a plugin may let a call wait, and answer no other, until it seems to hang should the caller give up.
const silence = time.Second

// inVain reports whether a caller gave up after it had waited for so long that the plugin may hang.
func inVain(r *proxy.Result) bool {
	return r.Class == proxy.ClassCanceled && r.Status == 0 && r.Latency >= silence
}

// notice looks at how an attempt ended. A plugin that it did not reach, or that seems to hang, is asked how it is, once a
// second at most. That is all that a caller brings about who gives up: what the plugin answers decides.
func (s *ServiceRouter) notice(p *routedProvider, call *routedCall) {
	result := &call.result
	missed := result.Fault && result.Class == proxy.ClassUnavailable && result.Retryable && !errors.Is(result.Err, proxy.ErrClosed)
	if !missed && (p.memory || !inVain(result)) {
		return
	}
	now := s.now()
	if missed {
		p.failed(now, result.Latency)
	}
	id, ok := s.handshake.hub.store.Lookup(call.target.reg.RuntimeID)
	if !ok || !missed && time.Since(id.LastServed()) < result.Latency {
		return
	}
	last := p.missed.Load()
	if last > 0 && int64(now)-last < int64(pressInterval) || !p.missed.CompareAndSwap(last, int64(now)) {
		return
	}
	s.registry.ask(id, true)
}

// withField is the error of a call for the host's log, with the field that sets its bound.
func withField(err error) error {
	switch {
	case errors.Is(err, proxy.ErrIdle):
		return fmt.Errorf("%w (Limits.StreamIdleTimeout)", err)
	case errors.Is(err, proxy.ErrHeld):
		return fmt.Errorf("%w: an answer with a large head counts as several calls (Limits.MaxOpenCallsPerIdentity, Limits.MaxOpenCalls)", err)
	case proxy.TooManyFields(err):
		return fmt.Errorf("%w, in its headers and trailers together", err)
	case proxy.AnswerTooLarge(err):
		return fmt.Errorf("%w (Limits.MaxHeaderBytes, of which 256 KiB are always taken)", err)
	}
	return err
}

// maxSuccessors bounds what is remembered of plugins that were replaced.
const maxSuccessors = 4096

// succeed lets calls that name a plugin which was replaced, because their callers do not
// know yet, go to the one that took its place, as long as that lives.
func (s *ServiceRouter) succeed(old, next string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.succeeded == nil {
		s.succeeded = map[string]string{}
	}
	for from, to := range s.succeeded {
		if to == old {
			s.succeeded[from] = next
		}
	}
	if len(s.succeeded) >= maxSuccessors {
		clear(s.succeeded) // callers learn of a replacement within moments
	}
	s.succeeded[old] = next
}

// unsucceed forgets for whom a plugin stood in; its identity has ended.
func (s *ServiceRouter) unsucceed(runtimeID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.succeeded, func(_, to string) bool { return to == runtimeID })
}

// successor returns the registration of a type by the plugin that took another's place.
func (s *ServiceRouter) successor(serviceType, runtimeID string) (catalog.Registration, bool) {
	s.mu.Lock()
	next, ok := s.succeeded[runtimeID]
	s.mu.Unlock()
	if !ok {
		return catalog.Registration{}, false
	}
	return s.catalog.Provider(serviceType, next)
}

// replaced reports whether another plugin took the place of one.
func (s *ServiceRouter) replaced(runtimeID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.succeeded[runtimeID]
	return ok
}

// lastAnswers is how long what a plugin answered before its end is passed on.
const lastAnswers = 10 * time.Second

// passOn lets the calls in flight to a plugin finish that gets no others.
func (s *ServiceRouter) passOn(id *tokenstore.Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.providers[id.RuntimeID()]
	if p == nil || s.closed {
		return
	}
	delete(s.providers, id.RuntimeID())
	for _, pool := range (pools{p.pool, p.previous}) {
		if pool == nil {
			continue
		}
		pool.Refuse()
		if s.parting == nil {
			s.parting = map[*proxy.Provider]*tokenstore.Identity{}
		}
		s.parting[pool] = id
		s.draining.Go(func() { s.part(pool) })
	}
}

// part waits until such calls have finished, or until their time is over.
func (s *ServiceRouter) part(pool *proxy.Provider) {
	ctx, cancel := context.WithTimeout(s.life, lastAnswers)
	defer cancel()
	_ = pool.Drain(ctx)
	pool.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.parting, pool)
}

// cutParting ends what is still passed on of plugins that have left: whoever is revoked then has nothing more to say.
func (s *ServiceRouter) cutParting(whose func(*tokenstore.Identity) bool) {
	s.mu.Lock()
	var ends pools
	for pool, id := range s.parting {
		if whose(id) {
			ends = append(ends, pool)
		}
	}
	s.mu.Unlock()
	ends.close()
}

// mark is by what a plugin is told from others at its endpoint, as far as its certificate goes.
type mark uint8

const (
	markNone     mark = iota // others may have the same
	markKey                  // the key that it has had
	markIdentity             // what is demanded of each connection to it
)

// markOf says by what a plugin is told from others.
func (h *hub) markOf(d *pluginDialer, id *tokenstore.Identity) mark {
	book, s := h.rules.Load(), subjectOf(id)
	switch rules := book.Of(s); {
	case d == nil, rules == nil:
		return markNone
	case d.tls == nil:
		if rules.Open() { // nothing is protected
			return markIdentity
		}
		return markNone
	case d.issuer != nil && s.Certificate == d.issuer.PluginIdentity(s.SelfID):
		return markIdentity
	}
	identity, key := h.look(id)
	if s.Certificate = identity; book.Tells(s) == policy.TellsApart {
		return markIdentity
	}
	shared := key == certs.Pin{} || book.PinnedByOthers(subjectOf(id), key)
	h.store.Each(func(other *tokenstore.Identity) bool {
		if other.SelfID() != id.SelfID() {
			_, another := h.look(other)
			shared = shared || another == key
		}
		return !shared
	})
	if shared {
		return markNone
	}
	return markKey
}

// recognising has whoever answers on a new connection to an adopted plugin prove that it is the plugin, before any call
// goes over it where the certificate does not tell. Where that does, it may be a later life of the plugin, which needs
// to be given its identity: then calls do not wait for the answer.
func (d *pluginDialer) recognising(h *hub, id *tokenstore.Identity) challenger {
	known := declared(id).adopted
	return func(shown *tls.ConnectionState) (proxy.Challenge, error) {
		tells := d.tells(h, id, shown)
		if tells && !known.introduced.Load() {
			return proxy.Challenge{}, nil
		}
		ask, err := healthChallenge(answering(id))
		check := ask.Check
		ask.Meanwhile = tells
		ask.Check = func(a proxy.Answer) error {
			err := check(a)
			switch {
			case err == nil:
				declared(id).endpoint.proves.Store(true)
				if known.met(); shown != nil {
					known.rekey(certs.PinOf(shown.PeerCertificates[0]))
				}
			case a.NotFound || !tells:
				known.miss()
			}
			return err
		}
		return ask, err
	}
}

// answering is the identity by which a plugin answers: of an adopted one that is replaced by itself the next one, once it has
// that, as its answer says, or its own calls.
func answering(id *tokenstore.Identity) *tokenstore.Identity {
	if known := declared(id).adopted; known != nil {
		if heir := known.heir.Load(); heir != nil && !heir.Ended() && (declared(heir).adopted.introduced.Load() || heir.Met()) {
			return heir
		}
	}
	return id
}

// tells reports whether what TLS says of a connection to an adopted plugin, nil in plaintext, tells that it is the
// plugin that answers, or all that there is to tell it by. What others may have as well tells nothing of a plugin that
// can prove who it is.
func (d *pluginDialer) tells(h *hub, id *tokenstore.Identity, shown *tls.ConnectionState) bool {
	by, proves := h.markOf(d, id), declared(id).endpoint.proves.Load()
	if by == markIdentity || shown == nil {
		return by == markIdentity || !proves
	}
	_, key := h.look(id)
	return certs.PinOf(shown.PeerCertificates[0]) == key && (by == markKey || !proves)
}

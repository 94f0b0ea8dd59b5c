package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
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

// memoryHandler is a provider in the host's own process.
type memoryHandler struct {
	endpoint string
	handler  http.Handler
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
	if handler == nil {
		return fmt.Errorf("register plugin handler: %w", errNoHandler)
	}
	if err := s.settle(runtimeID, place{handler: handler}); err != nil {
		return fmt.Errorf("register plugin handler: %w", err)
	}
	return nil
}

// place is where the host says that a plugin is reached.
type place struct {
	endpoint string
	handler  http.Handler // instead of the endpoint, where it is not nil
	trial    bool         // the endpoint stays with whom it belongs to
}

// settle sets where a live plugin is reached. What is set ends with the plugin's
// identity.
func (s *ServiceRouter) settle(runtimeID string, at place) error {
	id, ok := s.handshake.hub.store.Lookup(runtimeID)
	if !ok {
		return errNotAlive
	}
	vacated, ok := s.settleOpen(id, at)
	if !ok {
		return ErrHostClosed
	}
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
	if at.handler != nil {
		s.named++
		claim.Endpoint = memoryEndpoint + strconv.FormatUint(s.named, 10)
		s.handlers[claim.RuntimeID] = memoryHandler{claim.Endpoint, at.handler}
	}
	if !at.trial && at.handler == nil {
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
	m, ok := s.handlers[id.RuntimeID()]
	if p.memory = ok && m.endpoint == endpoint; p.memory {
		l := h.settings().limits
		p.pool, p.err = proxy.New(proxy.Config{
			Handler: http.MaxBytesHandler(withStatedCaller(m.handler), l.MaxCallBytes), CallIdle: l.StreamIdleTimeout,
		})
		return p
	}
	proof := s.catalog.NamedItself(id.RuntimeID()) && s.dialer.mustProve(h, h.rules.Load(), id)
	p.pool, p.err = s.dialer.pool(h, id, endpoint, proof)
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
	pool, err := d.pool(h, id, endpoint, true)
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
	if !p.memory {
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
	return len(s.handlers)
}

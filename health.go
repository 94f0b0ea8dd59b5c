package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// maxHealthServices bounds the services whose status is kept.
const maxHealthServices = 10_000

// HealthServer tells callers the serving status of the host's services, in the
// manner of the gRPC health checking protocol. The empty service name is the
// host as a whole; it serves from the start. It is safe for concurrent use.
type HealthServer struct {
	member

	// Whether a service is something else of the host's that a plugin may call, or everybody where
	// there is none. Set before serving; nil: nothing is.
	concerns func(b *policy.Book, s *policy.Subject, service string) bool

	mu       sync.Mutex
	statuses map[string]connectpluginv1.ServingStatus
	changed  chan struct{} // closed and replaced at every change
	closed   bool
}

// NewHealthServer makes a health server whose overall status is SERVING.
func NewHealthServer() *HealthServer {
	return &HealthServer{
		statuses: map[string]connectpluginv1.ServingStatus{"": connectpluginv1.ServingStatus_SERVING_STATUS_SERVING},
		changed:  make(chan struct{}),
	}
}

// HealthServerHandler returns the path and the handler of the health service,
// for a server of your own. It serves authenticated callers of the host that the
// server belongs to; see also [HTTPHealthHandler].
func HealthServerHandler(server *HealthServer) (string, http.Handler) {
	server.mustBeMade("HealthServerHandler: the server")
	rt := server.routes(boundedMessages(defaultLimits.MaxMessageBytes))[0]
	return rt.prefix, server.serve(rt)
}

// HTTPHealthHandler returns a handler for probes: 200 while the overall status
// is SERVING, 503 otherwise. It tells nothing else and authenticates nobody.
func HTTPHealthHandler(server *HealthServer) http.Handler {
	server.mustBeMade("HTTPHealthHandler: the server")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answerProbe(w, r, server.ready())
	})
}

// SetServingStatus sets the status of a service and tells its watchers. It has
// no effect after [HealthServer.Shutdown], nor for a new service beyond the
// 10,000th.
func (s *HealthServer) SetServingStatus(service string, status connectpluginv1.ServingStatus) {
	s.mustBeMade("the HealthServer")
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.statuses[service]; s.closed || (!known && len(s.statuses) >= maxHealthServices) {
		return
	}
	s.statuses[service] = status
	s.notifyLocked()
}

// maxHealthServiceLen bounds the name of a service that somebody asks about, in bytes.
const maxHealthServiceLen = 512

func validateHealthService(name string) error {
	if len(name) > maxHealthServiceLen {
		return errorf(connect.CodeInvalidArgument, "service: has more than %d bytes", maxHealthServiceLen)
	}
	return nil
}

// Shutdown sets every status to NOT_SERVING for good and ends every watch.
func (s *HealthServer) Shutdown() {
	s.mustBeMade("the HealthServer")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	for service := range s.statuses {
		s.statuses[service] = connectpluginv1.ServingStatus_SERVING_STATUS_NOT_SERVING
	}
	s.notifyLocked()
}

// Check answers the status of one service, NotFound for an unknown one. To a plugin
// every service is unknown that it neither provides nor requires nor may call.
func (s *HealthServer) Check(ctx context.Context, req *connect.Request[connectpluginv1.HealthCheckRequest]) (*connect.Response[connectpluginv1.HealthCheckResponse], error) {
	if req == nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, errNoRequest)
	}
	who, err := s.asker(ctx, req.Spec(), req.Header())
	if err != nil {
		return nil, err
	}
	if err := validateHealthService(req.Msg.GetService()); err != nil {
		return nil, err
	}
	status, known, _, _ := s.status(req.Msg.GetService())
	if !known || !s.mayAsk(who, req.Msg.GetService()) {
		return nil, connect.NewError(connect.CodeNotFound, errNotAvailable)
	}
	return connect.NewResponse(&connectpluginv1.HealthCheckResponse{Status: status}), nil
}

// Watch sends the status of one service now and at every change, SERVICE_UNKNOWN
// while nobody set one, and to a plugin that it is nothing to. It ends with the host, and
// with NotFound when a change of policy makes the service something to the plugin, or
// nothing.
func (s *HealthServer) Watch(ctx context.Context, req *connect.Request[connectpluginv1.HealthCheckRequest], stream *connect.ServerStream[connectpluginv1.HealthCheckResponse]) error {
	if req == nil {
		return connect.NewError(connect.CodeInvalidArgument, errNoRequest)
	}
	who, err := s.asker(ctx, req.Spec(), req.Header())
	if err != nil {
		return err
	}
	if err := validateHealthService(req.Msg.GetService()); err != nil {
		return err
	}
	leave, ok := who.seat(ctx)
	if !ok {
		return busyFor(errTooManyWatches, seatWait)
	}
	defer leave()
	ctx, done := who.caller.attend(ctx)
	defer done()
	release, ok := s.permitWatch(who, req.Msg.GetService())
	if !ok {
		return connect.NewError(connect.CodeNotFound, errNotAvailable)
	}
	defer release()
	return s.tell(ctx, who, req.Msg.GetService(), stream)
}

// tell sends the status of a service until the watch ends.
func (s *HealthServer) tell(ctx context.Context, who asker, service string, stream *connect.ServerStream[connectpluginv1.HealthCheckResponse]) error {
	last := connectpluginv1.ServingStatus_SERVING_STATUS_UNSPECIFIED
	for {
		status, known, changed, closed := s.status(service)
		if !known || !s.mayAsk(who, service) {
			status = connectpluginv1.ServingStatus_SERVING_STATUS_SERVICE_UNKNOWN
		}
		if status != last {
			if err := stream.Send(&connectpluginv1.HealthCheckResponse{Status: status}); err != nil {
				return err
			}
			last = status
		}
		if closed {
			return connect.NewError(connect.CodeUnavailable, errShuttingDown)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return endOfStream(ctx)
		}
	}
}

// offer says that a plugin of the host's serves, unless its user said something else.
func (s *HealthServer) offer(plugin string) {
	if _, known, _, _ := s.status(plugin); !known {
		s.SetServingStatus(plugin, connectpluginv1.ServingStatus_SERVING_STATUS_SERVING)
	}
}

// publicHealth opens the health service to everybody, in Policy.Public.
const publicHealth = "health"

// anyone is who asks without an identity, of the host that policy opens to everybody.
type anyone struct{ hub *hub }

type anyoneKey struct{}

// identifyAsker demands a runtime identity, unless policy lets everybody ask.
func identifyAsker(ctx context.Context, h *hub, p *peer, r *http.Request) (context.Context, admission, *denial) {
	open := func(b *policy.Book) bool { return b.Public.Has(publicHealth) }
	if claimsIdentity(r.Header) || !open(h.rules.Load()) {
		return identifyCaller(ctx, h, p, r)
	}
	return context.WithValue(ctx, anyoneKey{}, anyone{h}), admission{budget: h.strangerBudget(ctx, p), allowed: open}, nil
}

// asker is who asks: a caller, anyone (nil and the hub), or the host itself.
type asker struct {
	caller *caller
	anyone *hub
}

// seat counts a watch where no middleware does.
func (a asker) seat(ctx context.Context) (leave func(), ok bool) {
	if a.caller == nil || isGuarded(ctx) {
		return func() {}, true
	}
	seat := new(watchSeat)
	short := a.caller.hub.seatWatch(seat, a.caller.id.RuntimeID(), a.caller.hub.shareOf(a.caller.id))
	return seat.leave, short == ""
}

func (s *HealthServer) asker(ctx context.Context, spec connect.Spec, header http.Header) (asker, error) {
	if who, ok := ctx.Value(anyoneKey{}).(anyone); ok && spec.Procedure != "" && who.hub == s.bound.Load() {
		return asker{anyone: who.hub}, nil
	}
	c, _, err := s.caller(ctx, spec, header)
	return asker{caller: c}, err
}

// mayAsk reports whether a service is anything to who asks. The host itself asks what it
// likes, everybody about the host, and who has no identity about what is public.
func (s *HealthServer) mayAsk(who asker, service string) bool {
	switch {
	case who.anyone != nil:
		return s.isPublic(who.anyone.rules.Load(), service)
	case who.caller == nil:
		return true
	}
	return s.isSomethingTo(who.caller, service)(who.caller.hub.rules.Load())
}

// isPublic reports whether everybody may ask about a service: that of the host, or one of its plugins that is public. That all of
// those are says nothing of the services of others, unless everybody can be a plugin that may require them.
func (s *HealthServer) isPublic(b *policy.Book, service string) bool {
	return service == "" || b.Public.Names(service) || s.concerns != nil && s.concerns(b, nil, service) ||
		b.Open() && b.Public.Has(service)
}

// permitWatch lets a change of policy end a watch, when the service becomes something
// else to the caller than it was.
func (s *HealthServer) permitWatch(who asker, service string) (release func(), ok bool) {
	c := who.caller
	if c == nil {
		return func() {}, true
	}
	now := s.isSomethingTo(c, service)
	began := now(c.hub.rules.Load())
	return c.hub.permit(c.call, func(b *policy.Book) bool { return now(b) == began })
}

// isSomethingTo says by which policy a service is something to a caller.
func (s *HealthServer) isSomethingTo(c *caller, service string) func(*policy.Book) bool {
	return func(b *policy.Book) bool {
		subject := subjectOf(c.id)
		return service == "" || b.MayProvide(subject, service) || b.MayRequire(subject, service) ||
			s.concerns != nil && s.concerns(b, &subject, service)
	}
}

// routes are those of the RPC service and of the probes of whoever runs the host.
func (s *HealthServer) routes(opts ...connect.HandlerOption) []route {
	live := http.HandlerFunc(answerLive)
	rpc := callerRoute(connectpluginv1connect.NewHealthServiceHandler(s, opts...))
	check := callerRoute(grpcHealthCheck, noJSON(connect.NewUnaryHandler(grpcHealthCheck, s.Check, opts...)))
	watch := callerRoute(grpcHealthWatch, noJSON(connect.NewServerStreamHandler(grpcHealthWatch, s.Watch, opts...)))
	rpc.identify, check.identify, watch.identify = observed(identifyAsker), observed(identifyAsker), observed(identifyAsker)
	return []route{
		rpc, check, watch,
		{prefix: pathHealthz, identify: identifyNobody, unary: unaryProcedure, next: live},
		{prefix: pathReadyz, identify: identifyNobody, unary: unaryProcedure, next: HTTPHealthHandler(s)},
	}
}

// maxProbeMessage bounds a question on HealthAddr.
const maxProbeMessage = 4 << 10

// probes answers probes and nothing else, whoever asks and whatever Host they name. A
// question over gRPC is one of the host's own: it is about services alone.
func (s *HealthServer) probes() http.Handler {
	type question = connect.Request[connectpluginv1.HealthCheckRequest]
	type answer = connectpluginv1.HealthCheckResponse
	check := func(ctx context.Context, req *question) (*connect.Response[answer], error) {
		return s.Check(ctx, connect.NewRequest(req.Msg))
	}
	watch := func(ctx context.Context, req *question, stream *connect.ServerStream[answer]) error {
		return s.Watch(ctx, connect.NewRequest(req.Msg), stream)
	}
	bounds := boundedMessages(maxProbeMessage)
	table := map[string]http.Handler{
		pathHealthz:     http.HandlerFunc(answerLive),
		pathReadyz:      HTTPHealthHandler(s),
		grpcHealthCheck: noJSON(connect.NewUnaryHandler(grpcHealthCheck, check, bounds)),
		grpcHealthWatch: noJSON(connect.NewServerStreamHandler(grpcHealthWatch, watch, bounds)),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(headerCacheControl, noStore)
		handler, ok := table[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

// noJSON refuses JSON.
func noJSON(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Content-Type"), "json") {
			w.WriteHeader(http.StatusUnsupportedMediaType)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// answerLive answers whether the process serves at all.
func answerLive(w http.ResponseWriter, r *http.Request) { answerProbe(w, r, true) }

// mustBeMade panics where NewHealthServer did not make it.
func (s *HealthServer) mustBeMade(what string) {
	mustBeMade(what, s != nil && s.statuses != nil, "NewHealthServer")
}

func (s *HealthServer) notifyLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *HealthServer) status(service string) (status connectpluginv1.ServingStatus, known bool, changed <-chan struct{}, closed bool) {
	s.mustBeMade("the HealthServer")
	s.mu.Lock()
	defer s.mu.Unlock()
	status, known = s.statuses[service]
	return status, known, s.changed, s.closed
}

// ready reports whether the overall status is SERVING.
func (s *HealthServer) ready() bool {
	status, _, _, _ := s.status("")
	return status == connectpluginv1.ServingStatus_SERVING_STATUS_SERVING
}

// answerProbe answers a probe in the manner of Kubernetes: by the status.
func answerProbe(w http.ResponseWriter, r *http.Request, ok bool) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	text := "ok\n"
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
		text = "unavailable\n"
	}
	_, _ = w.Write([]byte(text))
}

// mustBeServices panics where one of the services was never made.
func mustBeServices(what string, handshake *HandshakeServer, registry *ServiceRegistry, lifecycle *LifecycleServer) {
	mustBeMade(what+": the handshake server", handshake != nil && handshake.hub != nil, "NewHandshakeServer")
	mustBeMade(what+": the registry", registry != nil && registry.catalog != nil, "NewServiceRegistry")
	lifecycle.mustBeMade(what + ": the lifecycle server")
}

// probeHealth asks a plugin how it is, the way that routed calls take. An
// error says that it did not answer; a plugin that answers without saying how it
// is, because it does not know the question, is of unknown health.
func probeHealth(ctx context.Context, pool *proxy.Provider, id *tokenstore.Identity) (catalog.HealthReport, error) {
	const path = connectpluginv1connect.PluginControlGetHealthProcedure
	q, err := newHealthQuestion(id)
	if err != nil {
		return catalog.HealthReport{}, err
	}
	answer, result := pool.Ask(ctx, path, q.message)
	if answered := result.Class == proxy.ClassOK || result.Class == proxy.ClassResponse; !answered || answer.Status == 0 {
		return catalog.HealthReport{}, fmt.Errorf("ask for health: %s: %w", result.Class, result.Err)
	}
	if answer.NotFound {
		return catalog.HealthReport{}, errElsewhere
	}
	return q.answer(answer.Status, answer.Message)
}

var (
	errServerError = errors.New("plugin answers with an error of its own")
	errElsewhere   = errors.New("another instance of the plugin answers here")
)

// healthAnswer reads an answer. What is no valid statement says at least that the plugin is there,
// and a reason that nobody may be shown, at least how it is.
func healthAnswer(status int, body []byte) (catalog.HealthReport, error) {
	unknown := catalog.HealthReport{}
	if status >= http.StatusInternalServerError && status != http.StatusNotImplemented {
		return unknown, fmt.Errorf("%w: status %d", errServerError, status)
	}
	var m connectpluginv1.GetHealthResponse
	says := status == http.StatusOK && proto.Unmarshal(body, &m) == nil && validateHealth(m.GetState(), "", nil) == nil
	if !says {
		return unknown, nil
	}
	if validateHealth(m.GetState(), m.GetReason(), m.GetUnavailableDependencies()) != nil {
		m.Reason, m.UnavailableDependencies = "", nil
	}
	return catalog.HealthReport{
		Health: healthOf(m.GetState()), Reason: m.GetReason(), Unavailable: m.GetUnavailableDependencies(),
	}, nil
}

func healthOf(s connectpluginv1.HealthState) catalog.Health {
	switch s {
	case connectpluginv1.HealthState_HEALTH_STATE_HEALTHY:
		return catalog.HealthHealthy
	case connectpluginv1.HealthState_HEALTH_STATE_DEGRADED:
		return catalog.HealthDegraded
	case connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY:
		return catalog.HealthUnhealthy
	case connectpluginv1.HealthState_HEALTH_STATE_UNSPECIFIED:
	}
	return catalog.HealthUnknown
}

func wireHealth(h catalog.Health) connectpluginv1.HealthState {
	switch h {
	case catalog.HealthHealthy:
		return connectpluginv1.HealthState_HEALTH_STATE_HEALTHY
	case catalog.HealthDegraded:
		return connectpluginv1.HealthState_HEALTH_STATE_DEGRADED
	case catalog.HealthUnhealthy:
		return connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY
	case catalog.HealthUnknown:
	}
	return connectpluginv1.HealthState_HEALTH_STATE_UNSPECIFIED
}

// unanswered is the report of one that did not answer.
func unanswered(err error) catalog.HealthReport {
	report := catalog.HealthReport{Health: catalog.HealthUnhealthy, Reason: silentReason}
	if errors.Is(err, errNotTheOne) {
		report.Reason = strangerReason
	}
	return report
}

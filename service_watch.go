package connectplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/backoff"
)

// ServiceEvent is the state of a service type as a watcher learns it.
type ServiceEvent struct {
	// ServiceType is what is watched.
	ServiceType string
	// State says whether the type can be used.
	State connectpluginv1.ServiceState
	// ProviderID, Version and EndpointURL are those of the provider to use,
	// empty where there is none. EndpointURL is relative to the host.
	ProviderID string
	// Version is the provider's version of the service.
	Version string
	// EndpointURL is the provider's route through the host.
	EndpointURL string
	// Metadata is the provider's own; nothing in it is trusted.
	Metadata map[string]string
	// Sequence numbers the states of the type, within one life of the host.
	// Zero where the host is of the first wire version.
	Sequence uint64
	// Resync says that states before this one were missed, and Missed how many.
	Resync bool
	// Missed is the number of states missed.
	Missed uint64
}

// WatchService yields the state of a service type: first as it is, then at every
// change. It survives the loss of the host and of its own identity: it reconnects
// with growing delays and yields each state once. It connects a client that nobody connected,
// with the same patience. It yields an error and ends
// where the host refuses the watch, where ctx ends and where the client closes. A host
// that has no room for it now is asked again, which the log says; the error of a ctx that
// ends meanwhile has the host's refusal and its code. It takes 20 events a second, and 100 at once:
// a host that has more to say waits. A call over a [ServiceConn] waits for a
// second at most until that has heard, too, of a state yielded before in which somebody provides the type.
func (c *Client) WatchService(ctx context.Context, serviceType string) iter.Seq2[*ServiceEvent, error] {
	return func(yield func(*ServiceEvent, error) bool) {
		if !c.made() {
			yield(nil, errUnmade)
			return
		}
		if err := c.identifiable(); err != nil {
			yield(nil, fmt.Errorf("watch: %w", err))
			return
		}
		w := &serviceWatch{client: c, serviceType: serviceType, resumes: true}
		w.run(ctx, yield)
	}
}

// endError says why work in ctx ended.
func (c *Client) endError(ctx context.Context) error {
	if c.life.Err() != nil {
		return ErrClientClosed
	}
	return ctx.Err()
}

// permanent reports that trying a handshake again is of no use.
func permanent(err error) bool {
	passes := errors.Is(err, errRenewing) || errors.Is(err, errHostLost) || undiscovered(err) || passing(err)
	return err != nil && !passes && permanentCause(err)
}

func permanentCause(err error) bool {
	return errors.Is(err, ErrHandshakeRefused) || errors.Is(err, ErrServiceTaken) ||
		errors.Is(err, ErrHostNotTrusted) || errors.Is(err, ErrClientClosed) ||
		connect.CodeOf(err) == connect.CodeUnauthenticated && err != nil
}

// notTakenYet is what the log says where the host answers and refuses for now.
const notTakenYet = "the host does not take this plugin yet; trying again"

// isAnswer reports whether an error is the host's answer, and not that there was none.
func isAnswer(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeCanceled, connect.CodeUnknown, connect.CodeDeadlineExceeded, connect.CodeUnavailable:
		return false
	case connect.CodeInvalidArgument, connect.CodeNotFound, connect.CodeAlreadyExists, connect.CodePermissionDenied,
		connect.CodeResourceExhausted, connect.CodeFailedPrecondition, connect.CodeAborted, connect.CodeOutOfRange,
		connect.CodeUnimplemented, connect.CodeInternal, connect.CodeDataLoss, connect.CodeUnauthenticated:
	}
	return !errors.Is(err, errHostLost)
}

// refusedForNow reports that the host refuses a plugin that it took before. That is an operator's doing, as a
// policy is that leaves the plugin or its right out, and passes when a later one has it. Whom the operator
// revoked is told so, and stops, and so does whoever is refused at its first start.
func (s *pluginSession) refusedForNow(err error) bool {
	if err == nil || !s.served || !permanent(err) {
		return false
	}
	_, right := errors.AsType[*unregisteredError](err)
	return right || connect.CodeOf(err) == connect.CodeUnauthenticated
}

// askAgain says once that the host refuses the plugin, and returns how long to wait before it is asked again.
func (s *pluginSession) askAgain(err error) time.Duration {
	s.refusals++
	wait := regrant.After(s.refusals)
	if s.refusals == 1 {
		s.cfg.Client.Logger.Warn("the host does not take this plugin any more; asking again, once a minute at last",
			keyHost, s.client.Config().Endpoint, keyWait, wait.Round(time.Millisecond).String(), keyError, err)
	}
	return wait
}

// taken takes account of a host that has the plugin in its service.
func (s *pluginSession) taken() {
	if s.refusals > 0 {
		s.cfg.Client.Logger.Info("the host takes this plugin again", keyRuntimeID, s.client.RuntimeID(), keyMore, s.refusals-1)
	}
	s.served, s.refusals = true, 0
}

// errStopped says that the consumer of a watch wants no more.
var errStopped = errors.New("stopped")

// steadyWatch is how long a stream lasts that is worth being opened again at once. One that
// ends sooner, whatever it said, is asked for with growing delays.
const steadyWatch = time.Second

// How many events a watch takes in a second, and how many at once: what each costs the client, such as a look-up or a
// report, is bounded with them, whatever a host sends. A host of this library sends 3.
const (
	eventsPerSecond = 20
	eventBurst      = 100
)

// serviceWatch is where a watcher stands.
type serviceWatch struct {
	client      *Client
	serviceType string
	resumes     bool               // continues where it was, and yields each state once
	opened      func(owner string) // a stream began, under this runtime id; may be nil
	broken      func(error)        // the state is not known any more; may be nil
	withdrawn   func(error)        // the host took back what it granted, and may grant it again; nil ends the watch then
	granted     bool               // the host did once
	tempo       *rate.Limiter      // of events; set by run
	failures    int                // in a row
	refused     error              // what the host last said of a watch that it has no room for, nil since it had
	sequence    uint64
	epoch       string
	last        *connectpluginv1.WatchServiceEvent // of a host that numbers nothing
}

// run follows the type until it is refused, ctx ends or the client closes.
func (w *serviceWatch) run(ctx context.Context, yield func(*ServiceEvent, error) bool) {
	c := w.client
	w.tempo = rate.NewLimiter(eventsPerSecond, eventBurst)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	for {
		ctx, mine := withBackground(ctx)
		began := time.Now()
		err := w.stream(ctx, mine, yield)
		if errors.Is(err, errStopped) {
			return
		}
		if w.failures++; time.Since(began) >= steadyWatch {
			w.failures = 1
		}
		c.cfg.Logger.Debug("watch lost; reconnecting", keyService, w.serviceType, keyError, err)
		w.note(err)
		if err = w.recover(ctx, err, mine.id); err != nil && !w.awaitGrant(ctx, err) {
			yield(nil, cmp.Or(w.ended(c.endError(ctx)), err))
			return
		}
	}
}

// note takes account of a host that has no room for the watch now.
func (w *serviceWatch) note(err error) {
	if connect.CodeOf(err) != connect.CodeResourceExhausted {
		return
	}
	w.refused = err
	w.tell(err)
	w.client.watchRefused(w.serviceType, err)
}

// ended adds to the end of a context what the host said meanwhile.
func (w *serviceWatch) ended(err error) error {
	if err == nil || w.refused == nil || errors.Is(err, ErrClientClosed) {
		return err
	}
	return fmt.Errorf("%w; the host refuses the watch for now: %w", err, w.refused)
}

// watchRefused logs that the host has no room for a watch now, once in a while for all of the client's.
func (c *Client) watchRefused(serviceType string, err error) {
	c.mu.Lock()
	due, more := time.Since(c.noRoom) >= warnEvery, c.unsaid
	if c.unsaid++; due {
		c.noRoom, c.unsaid = time.Now(), 0
	}
	c.mu.Unlock()
	if due {
		c.cfg.Logger.Warn("the host refuses a watch for now; asking again", keyService, serviceType, keyError, err, keyMore, more)
	}
}

// regrant are the waits before a host is asked again for what it took back: an operator has to
// act before.
var regrant = backoff.Waits{Initial: time.Second, Max: time.Minute, Factor: 2, Jitter: true}

// awaitGrant waits until it is time to ask again for a watch that the host granted once and
// refuses now. It reports false for any other.
func (w *serviceWatch) awaitGrant(ctx context.Context, err error) bool {
	if w.withdrawn == nil || !w.granted || ctx.Err() != nil || !refusedWatch(err) {
		return false
	}
	w.sequence, w.epoch, w.last = 0, "", nil // what was said before is not known to hold
	w.withdrawn(err)
	most := regrant.After(w.failures)
	if wait, away := w.client.interrupted(); away && wait > 0 { // the host does not take the plugin at all
		most = wait
	}
	return w.client.awaitHost(ctx, most)
}

// recover decides whether a watch may go on after err, mends what was lost, and waits
// until it is time.
func (w *serviceWatch) recover(ctx context.Context, err error, id identity) error {
	c := w.client
	if c.life.Err() != nil || ctx.Err() != nil {
		return c.endError(ctx)
	}
	if errors.Is(err, ErrClientNotConnected) {
		return w.unconnected(ctx, err)
	}
	if refusedWatch(err) {
		return fmt.Errorf("watch: %w", c.undeclared(err, w.serviceType))
	}
	if connect.CodeOf(err) == connect.CodeUnauthenticated {
		c.forsake(id)
		w.tell(err)
		again := c.renewed(ctx, id, true)
		if permanent(again) {
			return fmt.Errorf("watch: %w", again)
		}
		if again == nil {
			return w.rest(ctx)
		}
	}
	if wait, away := c.interrupted(); away || errors.Is(err, errHostLost) {
		w.tell(err)
		if wait > 0 {
			return c.pause(ctx)
		}
		return w.rest(ctx)
	}
	if w.failures == 1 {
		return nil // the stream was cut, the host is there
	}
	w.tell(err)
	if !backoff.Wait(ctx, backoff.Reconnect.After(w.failures-1)) {
		return c.endError(ctx)
	}
	return nil
}

// unconnected waits until a client that nobody connected may try again, where that is of use.
func (w *serviceWatch) unconnected(ctx context.Context, err error) error {
	c := w.client
	c.mu.Lock()
	found := c.host != nil || c.cfg.Discovery != nil
	c.mu.Unlock()
	if !found || permanent(err) {
		return err
	}
	w.tell(err)
	if wait, _ := c.interrupted(); wait > 0 {
		return c.pause(ctx)
	}
	if !backoff.Wait(ctx, backoff.Reconnect.After(w.failures)) {
		return c.endError(ctx)
	}
	return nil
}

// refusedWatch reports that the host's answer to a watch is a refusal. That there is no trust in TLS any
// more is none: a certificate that ended is renewed.
func refusedWatch(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeNotFound, connect.CodePermissionDenied, connect.CodeInvalidArgument, connect.CodeUnimplemented:
		return true
	case connect.CodeUnauthenticated, connect.CodeCanceled, connect.CodeUnknown, connect.CodeDeadlineExceeded,
		connect.CodeAlreadyExists, connect.CodeAborted, connect.CodeOutOfRange, connect.CodeInternal, connect.CodeUnavailable,
		connect.CodeDataLoss, connect.CodeResourceExhausted, connect.CodeFailedPrecondition:
	}
	return errors.Is(err, ErrHandshakeRefused) && !errors.Is(err, ErrHostNotTrusted)
}

// undeclared adds to the host's refusal of a type what the client can see by itself: that
// it never said that it requires the type.
func (c *Client) undeclared(err error, serviceType string) error {
	declared := slices.ContainsFunc(c.cfg.Metadata.Requires, func(d ServiceDependency) bool { return d.Type == serviceType })
	switch {
	case connect.CodeOf(err) != connect.CodeNotFound || c.currentIdentity().managed:
		return err
	case declared:
		return fmt.Errorf("%w (%q is declared; the host's policy may lack it, which the host's log says)", err, serviceType)
	}
	return fmt.Errorf("ClientConfig.Metadata.Requires does not name %q, and a host lets nobody use what was not declared; add it: %w",
		serviceType, err)
}

// registryClient says in the client's log what the client can see by itself of the host's refusals, which it returns as they are.
type registryClient struct {
	connectpluginv1connect.ServiceRegistryClient

	c *Client
}

func (r registryClient) DiscoverService(ctx context.Context,
	req *connect.Request[connectpluginv1.DiscoverServiceRequest],
) (*connect.Response[connectpluginv1.DiscoverServiceResponse], error) {
	resp, err := r.ServiceRegistryClient.DiscoverService(ctx, req)
	if connect.CodeOf(err) == connect.CodeNotFound {
		said := err
		if constraint := req.Msg.GetMinVersion(); constraint != "" {
			said = fmt.Errorf("%w (or those who provide the type have no version that satisfies %q)", err, constraint)
		}
		r.c.cfg.Logger.Warn("the host refuses a discovery", keyService, req.Msg.GetServiceType(),
			keyError, r.c.undeclared(said, req.Msg.GetServiceType()))
	}
	return resp, err
}

func (r registryClient) RegisterService(ctx context.Context,
	req *connect.Request[connectpluginv1.RegisterServiceRequest],
) (*connect.Response[connectpluginv1.RegisterServiceResponse], error) {
	resp, err := r.ServiceRegistryClient.RegisterService(ctx, req)
	serviceType := req.Msg.GetServiceType()
	const undeclared = "ClientConfig.Metadata.Provides does not name %q, and a host lets nobody provide what was not declared; add it: %w"
	declared := slices.ContainsFunc(r.c.cfg.Metadata.Provides, func(d ServiceDeclaration) bool { return d.Type == serviceType })
	if connect.CodeOf(err) == connect.CodePermissionDenied && !declared && !r.c.currentIdentity().managed {
		r.c.cfg.Logger.Warn("the host refuses a registration", keyService, serviceType, keyError, fmt.Errorf(undeclared, serviceType, err))
	}
	return resp, err
}

// tell says that the state is not known any more.
func (w *serviceWatch) tell(err error) {
	if w.broken != nil {
		w.broken(err)
	}
}

// stream follows one stream until it breaks.
func (w *serviceWatch) stream(ctx context.Context, mine *background, yield func(*ServiceEvent, error) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := &connectpluginv1.WatchServiceRequest{ServiceType: w.serviceType}
	if w.resumes {
		m.ResumeAfter, m.Epoch = w.sequence, w.epoch
	}
	stream, err := w.client.RegistryClient().WatchService(ctx, connect.NewRequest(m))
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	if w.opened != nil {
		w.opened(mine.id.runtimeID)
	}
	for stream.Receive() {
		if late := w.tempo.Reserve().Delay(); late > 0 && !backoff.Wait(ctx, late) {
			return ctx.Err()
		}
		w.granted, w.refused = true, nil
		if m := stream.Msg(); (w.isNew(m) || !w.resumes) && !w.pass(m, yield) {
			return errStopped
		}
		mine.await()
	}
	return stream.Err()
}

// moment is that of a state of a type: its place in the order of one life of the host.
type moment struct {
	epoch    string
	sequence uint64
}

// reaches reports whether it is no earlier than another of the same life of the host.
func (m moment) reaches(other moment) bool {
	return m.epoch == other.epoch && m.sequence >= other.sequence
}

// told has the client's connections to a type know that its user learns of a state in which the type is provided: each
// watches for itself, and may not have heard of it.
func (c *Client) told(serviceType string, at moment) {
	if at.epoch == "" { // a host that numbers nothing
		return
	}
	c.mu.Lock()
	conns := slices.Collect(maps.Keys(c.conns))
	c.mu.Unlock()
	for _, s := range conns {
		if s.serviceType == serviceType {
			s.expect(at)
		}
	}
}

// pass yields a state, and has the client's connections know what its user knows.
func (w *serviceWatch) pass(m *connectpluginv1.WatchServiceEvent, yield func(*ServiceEvent, error) bool) bool {
	if w.resumes && m.GetState() != connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE {
		w.client.told(w.serviceType, moment{m.GetEpoch(), m.GetSequence()})
	}
	return yield(serviceEvent(m), nil)
}

// isNew remembers a state and reports whether the watcher has not seen it.
func (w *serviceWatch) isNew(m *connectpluginv1.WatchServiceEvent) bool {
	if m.GetEpoch() == "" {
		same := proto.Equal(w.last, m)
		w.last = m
		return !same
	}
	if m.GetEpoch() == w.epoch && m.GetSequence() <= w.sequence && w.sequence > 0 {
		return false
	}
	w.epoch, w.sequence = m.GetEpoch(), m.GetSequence()
	return true
}

func serviceEvent(m *connectpluginv1.WatchServiceEvent) *ServiceEvent {
	e := m.GetEndpoint()
	return &ServiceEvent{
		ServiceType: m.GetServiceType(), State: m.GetState(),
		ProviderID: e.GetProviderId(), Version: e.GetVersion(), EndpointURL: e.GetEndpointUrl(), Metadata: e.GetMetadata(),
		Sequence: m.GetSequence(), Resync: m.GetResync(), Missed: m.GetMissed(),
	}
}

// hasty is how many watches in a row may end at once before the next has to wait: identities end,
// and connections break, several times in a row where people are at work.
const hasty = 8

// rest waits before a watch that failed again and again is asked for once more.
func (w *serviceWatch) rest(ctx context.Context) error {
	if w.failures > hasty && !backoff.Wait(ctx, backoff.Reconnect.After(w.failures-hasty)) {
		return w.client.endError(ctx)
	}
	return nil
}

// expect has calls wait for a state in which the type is provided, unless it is known.
func (s *ServiceConn) expect(at moment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.at.reaches(at) {
		s.heard = at
	}
}

package connectplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/semrange"
)

// ServiceConn reaches the providers of a service type through the host. Make it with
// [Client.Service], and with [Client.Provider] for one provider alone; generated clients
// take its BaseURL and HTTPClient. It is safe for concurrent use.
type ServiceConn struct {
	// Fixed at creation.
	client      *Client
	serviceType string
	minVersion  string
	constraint  semrange.Constraint
	named       string // the path of the one provider that was asked for, empty for any
	cancel      context.CancelFunc
	done        chan struct{}

	mu       sync.Mutex
	provider string // the route's path, empty while there is none
	owner    string // the runtime id under which the route is known
	unmet    error  // why there is no route although the type is provided
	lost     error  // why the state is not known at the moment, nil while it is
	state    connectpluginv1.ServiceState
	at       moment        // of the state
	heard    moment        // of a later one, in which the type is provided, that the client's user was told; zero for none
	changed  chan struct{} // closed and replaced when the state changes
	err      error         // why the watch ended, or why the host refuses it now
}

// Service returns a connection to the providers of a type that satisfy constraint: a least
// version, or a constraint such as ">=1.2, <2"; empty accepts any. The host chooses among
// them for each call, by the strategy of the type ([ServiceRegistry.SetSelectionStrategy])
// or else by load, and sends what one of them certainly did not get to another; a host of
// before sends all calls to the one that it selected, and follows the registry. It waits for
// the type's first state, which may be that nobody provides it; calls fail with Unavailable
// until somebody does, in a version that satisfies constraint. Where ctx ends before that, the error wraps its, and has what the host
// said meanwhile and the code of that: resource_exhausted where it has no room for the watch
// (a bound such as [Limits].MaxWatchesPerPlugin), which the client's log says too, unavailable
// where it is out of reach, and else deadline_exceeded or canceled. Without a deadline it waits ten seconds for
// such room. Where the host takes the right away later, calls fail as refused until it gives
// it back. The connection lives until its Close or the client's. Who needs one provider for
// several calls takes [Client.Provider].
func (c *Client) Service(ctx context.Context, serviceType, constraint string) (*ServiceConn, error) {
	return c.connectTo(ctx, serviceType, constraint, "")
}

// Provider returns a connection to one provider of a type, by its runtime id, as a
// [ServiceEvent] or discovery names it. Its calls go there or nowhere: one that is away
// makes them fail. State is that of the type. Otherwise it is as [Client.Service].
func (c *Client) Provider(ctx context.Context, serviceType, runtimeID string) (*ServiceConn, error) {
	wrong := runtimeID == "" || runtimeID == anyProvider || strings.ContainsRune(runtimeID, '/')
	if wrong || proxy.CheckPath("/"+runtimeID) != nil {
		return nil, fmt.Errorf("runtime id %q: %w", printable(runtimeID), errNoRuntimeID)
	}
	return c.connectTo(ctx, serviceType, "", runtimeID)
}

var errNoRuntimeID = errors.New("names no provider; write the runtime id of one")

// connectTo makes a connection to the providers of a type, or to one alone.
func (c *Client) connectTo(ctx context.Context, serviceType, constraint, runtimeID string) (*ServiceConn, error) {
	parsed, err := semrange.ParseConstraint(constraint)
	if err != nil {
		return nil, fmt.Errorf("service %q: %w", serviceType, err)
	}
	if err := ValidateServiceType(serviceType); err != nil {
		return nil, fmt.Errorf("service type: %w", err)
	}
	if err := c.identifiable(); err != nil {
		return nil, fmt.Errorf("service %q: %w", serviceType, err)
	}
	if _, err := c.connected(ctx); err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(c.life)
	s := &ServiceConn{
		client: c, serviceType: serviceType, minVersion: strings.Join(strings.Fields(constraint), " "), constraint: parsed,
		cancel: cancel, done: make(chan struct{}), changed: make(chan struct{}),
	}
	if runtimeID != "" {
		s.named = pathServices + serviceType + "/" + runtimeID
	}
	if !c.track(s) {
		cancel()
		return nil, ErrClientClosed
	}
	first := make(chan struct{})
	go s.follow(life, sync.OnceFunc(func() { close(first) }))
	if err := s.awaitFirst(ctx, first); err != nil {
		s.Close()
		return nil, err
	}
	if err := s.failure(); err != nil {
		s.Close()
		return nil, fmt.Errorf("service %q: %w", serviceType, err)
	}
	return s, nil
}

func (c *Client) track(s *ServiceConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.conns[s] = struct{}{}
	return true
}

// BaseURL returns the base URL for generated clients, together with HTTPClient. It names the host
// where that is now; what was made with it goes along where the client goes to another place.
func (s *ServiceConn) BaseURL() string {
	return s.made().client.place() + pathServices + s.serviceType
}

// HTTPClient returns the HTTP client that sends calls below BaseURL to a provider, with the
// plugin's identity.
func (s *ServiceConn) HTTPClient() connect.HTTPClient { return (*serviceTransport)(s.made()) }

// State returns the last known state of the service type, whatever the version of those who provide it: none of
// them may satisfy the connection's constraint. Then calls say so, and the client's log.
func (s *ServiceConn) State() connectpluginv1.ServiceState {
	s.made().mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Close stops following the registry and waits until that has stopped. Calls
// fail afterwards. Later calls do nothing.
func (s *ServiceConn) Close() {
	s.made().cancel()
	<-s.done
	s.client.mu.Lock()
	delete(s.client.conns, s)
	s.client.mu.Unlock()
}

// made returns a connection that Client.Service or Client.Provider made.
func (s *ServiceConn) made() *ServiceConn {
	mustBeMade("the ServiceConn", s != nil && s.client != nil, "Client.Service or Client.Provider")
	return s
}

// roomWait is how long a connection waits for a host that has no room for its watch, where its caller said nothing.
const roomWait = 10 * time.Second

// awaitFirst waits for the first state until ctx ends. One without a deadline does not wait for ever for room at the host,
// which the caller's own connections may take up.
func (s *ServiceConn) awaitFirst(ctx context.Context, first <-chan struct{}) error {
	var late <-chan time.Time
	_, patient := ctx.Deadline()
	for {
		s.mu.Lock()
		lost, changed := s.lost, s.changed
		s.mu.Unlock()
		switch short := connect.CodeOf(lost) == connect.CodeResourceExhausted; {
		case !short || patient:
			late = nil
		case late == nil:
			late = time.After(roomWait)
		}
		select {
		case <-first:
			return nil
		case <-ctx.Done():
			return s.neverKnown(ctx)
		case <-late:
			return fmt.Errorf("service %q: the host has had no room for the watch for %v: Close connections that are not needed any more, "+
				"or raise its Limits.MaxWatchesPerPlugin: %w", s.serviceType, roomWait, lost)
		case <-changed:
		}
	}
}

// neverKnown is the error of a connection whose caller does not wait any longer for the first state: with
// what the host said meanwhile, if it did, and its code.
func (s *ServiceConn) neverKnown(ctx context.Context) error {
	s.mu.Lock()
	lost := s.lost
	s.mu.Unlock()
	switch {
	case lost == nil:
		return errorf(endCode(ctx), "service %q: %w", s.serviceType, ctx.Err())
	case isAnswer(lost):
		return fmt.Errorf("service %q: %w; the host refuses the watch for now: %w", s.serviceType, ctx.Err(), lost)
	}
	return errorf(connect.CodeUnavailable, "service %q: %w: %w", s.serviceType, ctx.Err(), lost)
}

// follow keeps the provider current.
func (s *ServiceConn) follow(ctx context.Context, known func()) {
	defer close(s.done)
	defer known()
	owner := ""
	w := &serviceWatch{
		client: s.client, serviceType: s.serviceType, broken: s.unknown,
		opened: func(runtimeID string) { owner = runtimeID },
	}
	w.withdrawn = func(err error) {
		s.client.cfg.Logger.Warn("the host took a service away; asking again", keyService, s.serviceType, keyError, err)
		s.set("", owner, moment{}, connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE, err)
	}
	w.run(ctx, func(event *ServiceEvent, err error) bool {
		if err != nil {
			if ctx.Err() != nil && !errors.Is(err, ErrClientClosed) {
				err = errConnClosed
			}
			s.set("", owner, moment{}, connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE, err)
			return false
		}
		route, unmet := s.routeFor(ctx, event)
		s.set(route, owner, moment{w.epoch, event.Sequence}, event.State, nil)
		s.note(unmet)
		known()
		return true
	})
}

func (s *ServiceConn) set(provider, owner string, at moment, state connectpluginv1.ServiceState, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The first state of another life of the host may be older than what was heard of that.
	if at.reaches(s.heard) || at.epoch != s.at.epoch && at.epoch != s.heard.epoch {
		s.heard = moment{}
	}
	s.provider, s.owner, s.lost, s.state, s.at, s.err = provider, owner, nil, state, at, err
	s.tellLocked()
}

// note keeps why there is no route although the type is provided; nil: there is one, or
// nobody provides the type.
func (s *ServiceConn) note(unmet error) {
	s.mu.Lock()
	s.unmet = unmet
	s.mu.Unlock()
	if unmet != nil {
		s.client.cfg.Logger.Warn("no provider satisfies the constraint", keyService, s.serviceType, keyError, unmet)
	}
}

// unknown takes account of the loss of the host, or of the identity: nobody can be
// reached until there is news.
func (s *ServiceConn) unknown(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.provider, s.lost, s.state = "", reason, connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE
	s.tellLocked()
}

func (s *ServiceConn) tellLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// catchUp waits until the connection knows of a state, has ended, or ctx ends.
func (s *ServiceConn) catchUp(ctx context.Context, at moment) {
	for {
		s.mu.Lock()
		known, changed := s.at.reaches(at) || s.err != nil, s.changed
		s.mu.Unlock()
		if known {
			return
		}
		select {
		case <-changed:
		case <-s.done:
			return
		case <-ctx.Done():
			return
		}
	}
}

// catchUpWait bounds how long a plugin waits for its own connections.
const catchUpWait = time.Second

// catchUp waits until the client's connections to a type know of a state of it, so
// that a plugin does not call itself healthy before it can call others.
func (c *Client) catchUp(ctx context.Context, serviceType string, at moment) {
	ctx, cancel := context.WithTimeout(ctx, catchUpWait)
	defer cancel()
	c.mu.Lock()
	conns := slices.Collect(maps.Keys(c.conns))
	c.mu.Unlock()
	for _, s := range conns {
		if s.serviceType == serviceType {
			s.catchUp(ctx, at)
		}
	}
}

func (s *ServiceConn) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// routeFor returns the route of the provider to use: the one that the event
// names, or one that satisfies the constraint where that does not.
func (s *ServiceConn) routeFor(ctx context.Context, event *ServiceEvent) (route string, unmet error) {
	if event.State == connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE {
		return "", nil
	}
	if event.EndpointURL != "" && s.constraint.Allows(event.Version) {
		return routePath(event.EndpointURL, s.serviceType), nil
	}
	endpoint, err := s.client.providerFor(ctx, event, requirement{s.serviceType, s.minVersion}, s.constraint)
	switch {
	case err == nil:
		return routePath(endpoint, s.serviceType), nil
	case errors.Is(err, errNoProvider):
		return "", err
	}
	return "", nil
}

// providerFor asks the host for a provider that satisfies a constraint, where the one that an event names does not, and
// returns its endpoint. errNoProvider says that there is none.
func (c *Client) providerFor(ctx context.Context, event *ServiceEvent, r requirement, constraint semrange.Constraint) (string, error) {
	resp, err := c.RegistryClient().DiscoverService(ctx, connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{
		ServiceType: r.serviceType, MinVersion: r.constraint,
	}))
	switch {
	case err == nil:
		return resp.Msg.GetEndpoint().GetEndpointUrl(), nil
	case connect.CodeOf(err) == connect.CodeNotFound && !constraint.Allows(event.Version):
		return "", fmt.Errorf("%w: none of %q satisfies %q; the one to use has version %q", errNoProvider, r.serviceType, r.constraint,
			printable(event.Version))
	}
	return "", err
}

// routePath takes the path of an endpoint URL. Only routes through the host are
// believed, wherever the URL says that it points.
func routePath(endpoint, serviceType string) string {
	u, err := url.Parse(endpoint)
	if err != nil || !strings.HasPrefix(u.Path, pathServices+serviceType+"/") {
		return ""
	}
	return strings.TrimSuffix(u.Path, "/")
}

var (
	errNoProvider    = errors.New("no provider of the service is available")
	errNotForService = errors.New("request is not below the connection's BaseURL: make clients with BaseURL and HTTPClient of one connection")
	errConnClosed    = errors.New("the connection to the service is closed")
	errMoved         = fmt.Errorf("%w: the client has another one by now", errRenewing) // nothing was sent
	errStale         = errors.New("the host was lost; where the service is now is not known yet")
)

// notForService refuses a request that is not below the BaseURL of the connection whose client it was made with. A
// stream's caller would wait for ever for somebody who reads of it.
func notForService(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
	return answered(r, connect.NewError(connect.CodeInvalidArgument, errNotForService))
}

// serviceTransport sends requests to the current provider.
type serviceTransport ServiceConn

// Do sends a request to the current provider.
func (t *serviceTransport) Do(r *http.Request) (*http.Response, error) {
	s := (*ServiceConn)(t)
	if err := checkRequest(r); err != nil {
		return nil, err
	}
	rest, ok := strings.CutPrefix(r.URL.Path, pathServices+s.serviceType)
	if !ok {
		return notForService(r)
	}
	resp, err := s.client.do(r, &serviceDestination{conn: s, rest: rest})
	if err != nil {
		return answered(r, err)
	}
	return resp, nil
}

// serviceDestination is the provider of the moment.
type serviceDestination struct {
	conn *ServiceConn
	rest string
}

func (d *serviceDestination) aim(ctx context.Context, r *http.Request, id identity) error {
	provider, err := d.conn.route(ctx, id)
	if err != nil {
		return err
	}
	delete(r.Header, headerConstraint)
	if s := d.conn; s.named == "" && s.client.hostChooses() {
		provider = pathServices + s.serviceType + "/" + anyProvider
		if s.minVersion != "" {
			r.Header[headerConstraint] = []string{s.minVersion}
		}
	}
	r.URL.Path = provider + d.rest
	return nil
}

// hostChooses reports whether the host chooses among the providers of a type.
func (c *Client) hostChooses() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.choosing && !c.identity.managed
}

func (d *serviceDestination) mend(ctx context.Context, id identity) (bool, error) {
	return true, unrenewed(d.conn.client.renewed(ctx, id, false))
}

// routeWait bounds how long a call waits for the news of its service that is on its way: where the client has a new
// identity, or its user was told of the news over another watch.
const routeWait = time.Second

// route returns the path of the current provider. A route that is known from before
// the client lost its identity is that of a host which may have forgotten it.
func (s *ServiceConn) route(ctx context.Context, id identity) (string, error) {
	provider, changed, err := s.routeNow(id)
	if changed == nil {
		return provider, err
	}
	half, over := halfway(ctx)
	defer over()
	late, cancel := context.WithTimeout(half, routeWait)
	defer cancel()
	for changed != nil {
		if now := s.client.currentIdentity(); now.serial != id.serial && !id.managed {
			return "", errMoved
		}
		select {
		case <-changed:
		case <-late.Done():
			if ctx.Err() != nil {
				return "", ctx.Err()
			}
			if s.forgo() {
				break
			}
			return "", connect.NewError(connect.CodeUnavailable, errStale)
		}
		provider, changed, err = s.routeNow(id)
	}
	return provider, err
}

// forgo has calls wait no more for a state that the client's user was told, and reports whether they did.
func (s *ServiceConn) forgo() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	waited := s.heard != moment{}
	s.heard = moment{}
	return waited
}

// routeNow is route without waiting: where there is something to wait for, it returns
// the channel that closes with the next news.
func (s *ServiceConn) routeNow(id identity) (provider string, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return "", nil, s.err
	case s.named != "":
		return s.named, nil, nil
	case s.owner != id.runtimeID:
		return "", s.changed, nil
	case s.lost != nil && connect.CodeOf(s.lost) == connect.CodeUnauthenticated:
		return "", s.changed, nil // the watch heard first that the identity has ended, and asks for another
	case s.provider == "" && s.heard != moment{}:
		return "", s.changed, nil // somebody provides it, as the caller may know
	case s.lost != nil:
		err = fmt.Errorf("%w: %w", errStale, s.lost)
	case s.provider != "":
		return s.provider, nil, nil
	default:
		err = cmp.Or(s.unmet, errNoProvider)
	}
	return "", nil, connect.NewError(connect.CodeUnavailable, err)
}

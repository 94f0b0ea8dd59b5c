package connectplugin

import (
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
	"github.com/masegraye/connect-plugin-go/internal/semrange"
)

// ServiceConn reaches the selected provider of a service type through the host.
// It follows the registry: when the provider changes, the next call goes to the
// new one. Make it with [Client.Service]; generated clients take its BaseURL and
// HTTPClient. It is safe for concurrent use.
type ServiceConn struct {
	// Fixed at creation.
	client      *Client
	serviceType string
	minVersion  string
	constraint  semrange.Constraint
	base        string
	cancel      context.CancelFunc
	done        chan struct{}

	mu       sync.Mutex
	provider string // the route's path, empty while there is none
	state    connectpluginv1.ServiceState
	sequence uint64        // of the state
	changed  chan struct{} // closed and replaced when the state changes
	err      error         // why the watch ended
}

// Service returns a connection to the selected provider of a type that satisfies
// constraint: a least version, or a constraint such as ">=1.2, <2"; empty accepts
// any. It waits for the type's first state, which may be that nobody provides it;
// calls fail with Unavailable until somebody does. The connection lives until its
// Close or the client's.
func (c *Client) Service(ctx context.Context, serviceType, constraint string) (*ServiceConn, error) {
	parsed, err := semrange.ParseConstraint(constraint)
	if err != nil {
		return nil, fmt.Errorf("constraint: %w", err)
	}
	if err := ValidateServiceType(serviceType); err != nil {
		return nil, fmt.Errorf("service type: %w", err)
	}
	base, err := c.base()
	if err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(c.life)
	s := &ServiceConn{
		client: c, serviceType: serviceType, minVersion: constraint, constraint: parsed,
		base: base + pathServices + serviceType, cancel: cancel, done: make(chan struct{}), changed: make(chan struct{}),
	}
	if !c.track(s) {
		cancel()
		return nil, ErrClientClosed
	}
	first := make(chan struct{})
	go s.follow(life, sync.OnceFunc(func() { close(first) }))
	select {
	case <-first:
	case <-ctx.Done():
		s.Close()
		return nil, fmt.Errorf("service %q: %w", serviceType, ctx.Err())
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

// BaseURL returns the base URL for generated clients, together with HTTPClient.
func (s *ServiceConn) BaseURL() string { return s.base }

// HTTPClient returns the HTTP client that sends calls below BaseURL to the
// current provider, with the plugin's identity.
func (s *ServiceConn) HTTPClient() connect.HTTPClient { return (*serviceTransport)(s) }

// State returns the last known state of the service type.
func (s *ServiceConn) State() connectpluginv1.ServiceState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Close stops following the registry and waits until that has stopped. Calls
// fail afterwards. Later calls do nothing.
func (s *ServiceConn) Close() {
	s.cancel()
	<-s.done
	s.client.mu.Lock()
	delete(s.client.conns, s)
	s.client.mu.Unlock()
}

// follow keeps the provider current.
func (s *ServiceConn) follow(ctx context.Context, known func()) {
	defer close(s.done)
	defer known()
	for event, err := range s.client.WatchService(ctx, s.serviceType) {
		if err != nil {
			s.set("", &ServiceEvent{State: connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE}, err)
			return
		}
		s.set(s.routeFor(ctx, event), event, nil)
		known()
	}
}

func (s *ServiceConn) set(provider string, event *ServiceEvent, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.provider, s.state, s.sequence, s.err = provider, event.State, event.Sequence, err
	close(s.changed)
	s.changed = make(chan struct{})
}

// catchUp waits until the connection knows of an event, has ended, or ctx ends.
func (s *ServiceConn) catchUp(ctx context.Context, event *ServiceEvent) {
	for {
		s.mu.Lock()
		known, changed := s.sequence >= event.Sequence || s.err != nil, s.changed
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

// catchUp waits until the client's connections to the type of an event know of
// it, so that a plugin does not call itself healthy before it can call others.
func (c *Client) catchUp(ctx context.Context, event *ServiceEvent) {
	ctx, cancel := context.WithTimeout(ctx, catchUpWait)
	defer cancel()
	c.mu.Lock()
	conns := slices.Collect(maps.Keys(c.conns))
	c.mu.Unlock()
	for _, s := range conns {
		if s.serviceType == event.ServiceType {
			s.catchUp(ctx, event)
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
func (s *ServiceConn) routeFor(ctx context.Context, event *ServiceEvent) string {
	if event.State == connectpluginv1.ServiceState_SERVICE_STATE_UNAVAILABLE {
		return ""
	}
	if event.EndpointURL != "" && s.constraint.Allows(event.Version) {
		return routePath(event.EndpointURL, s.serviceType)
	}
	resp, err := s.client.RegistryClient().DiscoverService(ctx, connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{
		ServiceType: s.serviceType, MinVersion: s.minVersion,
	}))
	if err != nil {
		return ""
	}
	return routePath(resp.Msg.GetEndpoint().GetEndpointUrl(), s.serviceType)
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
	errNotForService = errors.New("request is not below the connection's BaseURL")
)

// serviceTransport sends requests to the current provider.
type serviceTransport ServiceConn

// Do sends a request to the current provider.
func (t *serviceTransport) Do(r *http.Request) (*http.Response, error) {
	s := (*ServiceConn)(t)
	s.mu.Lock()
	provider, err := s.provider, s.err
	s.mu.Unlock()
	rest, ok := strings.CutPrefix(r.URL.Path, pathServices+s.serviceType)
	switch {
	case !ok:
		return nil, errNotForService
	case err != nil:
		return nil, connect.NewError(connect.CodeUnavailable, err)
	case provider == "":
		return nil, connect.NewError(connect.CodeUnavailable, errNoProvider)
	}
	out := *r
	target := *r.URL
	target.Path = provider + rest
	out.URL = &target
	return s.client.HTTPClient().Do(&out)
}

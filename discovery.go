package connectplugin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Endpoint is one place where a service can be reached.
type Endpoint struct {
	// URL is its base URL, for example "https://127.0.0.1:8443".
	URL string
	// Weight is its share of the traffic, for who spreads calls over endpoints. A
	// [Client] takes the first endpoint at which a host answers, and stays there as long as it does.
	Weight int
	// Metadata is what else is known about it. Nil means nothing.
	Metadata map[string]string
}

// DiscoveryEvent is the state of a service at some moment, not a change of it.
type DiscoveryEvent struct {
	// ServiceName is the service that the event is about.
	ServiceName string
	// Endpoints are all its endpoints now. Empty means that there is none.
	Endpoints []Endpoint
	// Error says that discovery itself has trouble; Endpoints are then the last
	// that were known.
	Error error
}

// DiscoveryService finds the endpoints of services. It is used concurrently.
type DiscoveryService interface {
	// Discover returns the endpoints of a service, which are the caller's to
	// change, or an error that wraps [ErrNoEndpoints] if there are none.
	Discover(ctx context.Context, serviceName string) ([]Endpoint, error)
	// Watch sends the state of a service, at once and whenever it changes, and
	// closes the channel when ctx ends or nothing can change any more. A slow
	// reader misses states in between but never the latest.
	Watch(ctx context.Context, serviceName string) (<-chan DiscoveryEvent, error)
}

// StaticDiscovery is a [DiscoveryService] over a table that its owner fills. The
// zero value is an empty table. It is safe for concurrent use and starts no
// goroutine.
type StaticDiscovery struct {
	mu        sync.Mutex
	endpoints map[string][]Endpoint
}

// NewStaticDiscovery returns a table with a copy of endpoints by service name.
func NewStaticDiscovery(endpoints map[string][]Endpoint) *StaticDiscovery {
	d := &StaticDiscovery{}
	for name, list := range endpoints {
		for _, e := range list {
			d.addLocked(name, e)
		}
	}
	return d
}

// AddEndpoint adds a copy of endpoint to a service, in place of the one with the
// same URL if there is one.
func (d *StaticDiscovery) AddEndpoint(serviceName string, endpoint Endpoint) {
	d.mustBeMade()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addLocked(serviceName, endpoint)
}

// RemoveService removes all endpoints of a service.
func (d *StaticDiscovery) RemoveService(serviceName string) {
	d.mustBeMade()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.endpoints, serviceName)
}

// Discover implements [DiscoveryService].
func (d *StaticDiscovery) Discover(ctx context.Context, serviceName string) ([]Endpoint, error) {
	d.mustBeMade()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.endpoints[serviceName]
	if len(list) == 0 {
		return nil, fmt.Errorf("%w of %q", ErrNoEndpoints, serviceName)
	}
	return cloneEndpoints(list), nil
}

// Watch implements [DiscoveryService]. A table tells nobody of changes: the channel has
// one event, the state at that moment, and is closed. Of an unknown service the event's
// Error wraps [ErrNoEndpoints].
func (d *StaticDiscovery) Watch(ctx context.Context, serviceName string) (<-chan DiscoveryEvent, error) {
	event := DiscoveryEvent{ServiceName: serviceName}
	event.Endpoints, event.Error = d.Discover(ctx, serviceName)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	events := make(chan DiscoveryEvent, 1)
	events <- event
	close(events)
	return events, nil
}

// mustBeMade panics where there is no table. A zero one is empty.
func (d *StaticDiscovery) mustBeMade() {
	if d == nil {
		panic("connectplugin: the StaticDiscovery is nil; make one with NewStaticDiscovery")
	}
}

func (d *StaticDiscovery) addLocked(serviceName string, endpoint Endpoint) {
	if d.endpoints == nil {
		d.endpoints = map[string][]Endpoint{}
	}
	endpoint = endpoint.clone()
	list := d.endpoints[serviceName]
	i := slices.IndexFunc(list, func(e Endpoint) bool { return e.URL == endpoint.URL })
	if i < 0 {
		d.endpoints[serviceName] = append(list, endpoint)
		return
	}
	list[i] = endpoint
}

func (e Endpoint) clone() Endpoint {
	e.Metadata = maps.Clone(e.Metadata)
	return e
}

func cloneEndpoints(list []Endpoint) []Endpoint {
	out := make([]Endpoint, len(list))
	for i, e := range list {
		out[i] = e.clone()
	}
	return out
}

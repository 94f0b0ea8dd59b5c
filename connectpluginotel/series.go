package connectpluginotel

import (
	"slices"
	"sync"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// Attributes that the conventions have no name for.
const (
	callerKey        = attribute.Key("connectplugin.caller")
	providerKey      = attribute.Key("connectplugin.provider")
	typeKey          = attribute.Key("connectplugin.type")
	directionKey     = attribute.Key("connectplugin.direction")
	requestBytesKey  = attribute.Key("connectplugin.request.bytes")
	responseBytesKey = attribute.Key("connectplugin.response.bytes")
	renewedKey       = attribute.Key("connectplugin.renewed")
	pluginKey        = attribute.Key("connectplugin.plugin")
	failedKey        = attribute.Key("connectplugin.failed")
	unaskedKey       = attribute.Key("connectplugin.unasked")
	reasonKey        = attribute.Key("connectplugin.reason")
	placeKey         = attribute.Key("connectplugin.place")
	resourceKey      = attribute.Key("connectplugin.resource")
)

// labels tell the series of a call from others.
type labels struct {
	caller, provider, serviceType, procedure string
	protocol                                 connectplugin.Protocol
	code                                     connect.Code
	routed                                   bool
}

// attributes are those of a series, made once.
type attributes struct {
	server, client    []metric.RecordOption
	wait              []metric.RecordOption
	request, response []metric.AddOption
}

// maker is whoever can make a series by what it answers or, where no provider does, by what it asks of the host.
type maker struct{ provider, caller string }

// series keeps so many apart; beyond that names are "_OTHER".
type series struct {
	max int

	mu   sync.RWMutex
	kept map[labels]*attributes
	each map[maker]int          // how many of them each has
	own  int                    // how many of them have no provider
	rest map[labels]*attributes // without names, so there are few
}

// of returns the attributes of a call.
func (s *series) of(l labels) *attributes {
	s.mu.RLock()
	a := s.kept[l]
	s.mu.RUnlock()
	if a != nil {
		return a
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.kept[l]; a != nil {
		return a
	}
	if a := s.keepLocked(l); a != nil {
		return a
	}
	if l.procedure != "" { // a provider makes as many as it likes
		l.procedure = ""
		if a := s.kept[l]; a != nil {
			return a
		}
		if a := s.keepLocked(l); a != nil {
			return a
		}
	}
	if l.caller = other; l.routed {
		l.provider, l.serviceType = other, other
	}
	l.procedure = ""
	a = s.rest[l]
	if a == nil {
		if s.rest == nil {
			s.rest = map[labels]*attributes{}
		}
		a = l.attributes()
		s.rest[l] = a
	}
	return a
}

// keepLocked keeps another series, nil where there is no room. A provider answers to whatever procedures and
// with whatever codes it likes, so it has a quarter of the room, and another eighth for series without a procedure. What no
// provider answers has half of the room, so that there is some for those that do; a caller has a sixteenth of all for that, and again
// half as much for series without a procedure.
func (s *series) keepLocked(l labels) *attributes {
	by, share := maker{provider: l.provider}, max(s.max/shares, leastShare)
	if l.provider == "" {
		by, share = maker{caller: l.caller}, max(s.max/callerShares, leastShare)
	}
	if l.procedure == "" {
		share += share / 2
	}
	if len(s.kept) >= s.max || s.each[by] >= share || l.provider == "" && s.own >= (s.max+1)/2 {
		return nil
	}
	if s.each == nil {
		s.each = map[maker]int{}
	}
	s.each[by]++
	if l.provider == "" {
		s.own++
	}
	a := l.attributes()
	s.kept[l] = a
	return a
}

const (
	shares       = 4  // such a part of the room a provider has
	callerShares = 16 // such a part a caller has for what no provider answers
	leastShare   = 64 // what each has in any case
)

func (l *labels) attributes() *attributes {
	code := status(l.protocol, l.code)
	call := []attribute.KeyValue{
		systemName(l.protocol), semconv.RPCMethod(method(l.procedure)), semconv.RPCResponseStatusCode(code), callerKey.String(l.caller),
	}
	edge := []attribute.KeyValue{callerKey.String(l.caller)}
	if l.routed {
		call = append(call, providerKey.String(l.provider), typeKey.String(l.serviceType))
		edge = append(edge, providerKey.String(l.provider), typeKey.String(l.serviceType))
	}
	failed := slices.Concat(call, []attribute.KeyValue{semconv.ErrorTypeKey.String(code)})
	record := func(set ...attribute.KeyValue) []metric.RecordOption {
		return []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(set...))}
	}
	a := &attributes{server: record(call...), client: record(call...), wait: record(edge...)}
	if l.code != 0 {
		a.client = record(failed...)
	}
	if isServerError(l.code) {
		a.server = record(failed...)
	}
	for direction, options := range map[string]*[]metric.AddOption{"request": &a.request, "response": &a.response} {
		set := attribute.NewSet(slices.Concat(edge, []attribute.KeyValue{directionKey.String(direction)})...)
		*options = []metric.AddOption{metric.WithAttributeSet(set)}
	}
	return a
}

package connectplugin

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
)

// route is one entry of the host's route table: everything under prefix, or
// exactly the path where it does not end in a slash.
type route struct {
	prefix  string
	handler *guarded
}

func (rt route) matches(path string) bool {
	if strings.HasSuffix(rt.prefix, "/") {
		return strings.HasPrefix(path, rt.prefix)
	}
	return path == rt.prefix
}

// routeTable finds the handler of a path: the longest prefix wins.
type routeTable []route

func (t routeTable) lookup(path string) (*guarded, bool) {
	for _, rt := range t {
		if rt.matches(path) {
			return rt.handler, true
		}
	}
	return nil, false
}

// procedures that stream: they have no unary deadline.
var streamingProcedures = map[string]bool{
	connectpluginv1connect.ServiceRegistryWatchServiceProcedure: true,
	connectpluginv1connect.HealthServiceWatchProcedure:          true,
}

func unaryProcedure(path string) bool { return !streamingProcedures[path] }

// routes builds the host's route table.
func (h *Host) routes() (routeTable, error) {
	opts := h.handlerOptions()
	b := tableBuilder{hub: func() *hub { return h.hub }}
	enrolPath, enrol := connectpluginv1connect.NewHandshakeServiceHandler(h.handshake, opts...)
	b.add(enrolPath, accessEnrol, "", unaryProcedure, enrol)
	lifecyclePath, lifecycle := connectpluginv1connect.NewPluginLifecycleHandler(h.lifecycle, opts...)
	b.add(lifecyclePath, accessCaller, "", unaryProcedure, lifecycle)
	registryPath, registry := connectpluginv1connect.NewServiceRegistryHandler(h.registry, opts...)
	b.add(registryPath, accessCaller, "", unaryProcedure, registry)
	brokerPath, broker := connectpluginv1connect.NewCapabilityBrokerHandler(h.broker, opts...)
	b.add(brokerPath, accessCaller, "", unaryProcedure, broker)
	healthPath, health := connectpluginv1connect.NewHealthServiceHandler(h.health, opts...)
	b.add(healthPath, accessCaller, "", unaryProcedure, health)
	b.add(pathServices, accessCaller, "", nil, http.HandlerFunc(h.router.route))
	b.add(pathCapabilities, accessGrant, "", nil, http.HandlerFunc(h.broker.serveCapability))
	b.add(pathHealthz, accessAnyone, "", unaryProcedure, http.HandlerFunc(h.serveHealthz))
	b.add(pathReadyz, accessAnyone, "", unaryProcedure, http.HandlerFunc(h.serveReadyz))
	for _, name := range h.cfg.Plugins.Keys() {
		if err := b.addPlugin(name, h.cfg.Plugins[name], h.cfg.Impls[name], h.cfg.Limits.MaxCallBytes); err != nil {
			return nil, err
		}
	}
	return b.build()
}

// handlerOptions bound every message of the host's services and put the
// configured interceptors around them.
func (h *Host) handlerOptions() []connect.HandlerOption {
	return []connect.HandlerOption{
		boundedMessages(h.cfg.Limits.MaxMessageBytes),
		connect.WithInterceptors(h.cfg.Interceptors...),
		connect.WithRecover(h.recovered),
	}
}

// tableBuilder collects routes and refuses those that overlap.
type tableBuilder struct {
	hub   func() *hub
	table routeTable
}

func (b *tableBuilder) add(prefix string, a access, name string, unary func(string) bool, next http.Handler) {
	b.table = append(b.table, route{prefix, &guarded{hub: b.hub, access: a, name: name, unary: unary, next: next}})
}

func (b *tableBuilder) addPlugin(name string, p Plugin, impl any, maxBody int64) error {
	path, handler, err := p.ConnectServer(impl)
	field := fmt.Sprintf("Plugins[%q]", name)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w: %s: %w", ErrInvalidConfig, ErrInvalidPluginImpl, field, err)
	case handler == nil:
		return fmt.Errorf("%w: %w: %s: ConnectServer returned no handler", ErrInvalidConfig, ErrInvalidPluginImpl, field)
	}
	if err := ValidateEndpointPath(path); err != nil || !strings.HasSuffix(path, "/") || path == "/" {
		return fieldError(field, "ConnectServer returned path %q; it must be clean, start and end with a slash, and not be the root", path)
	}
	b.add(path, accessHostPlugin, name, nil, http.MaxBytesHandler(handler, maxBody))
	return nil
}

var errRouteTaken = errors.New("two routes share a prefix")

// build sorts the table so that the longest prefix is found first.
func (b *tableBuilder) build() (routeTable, error) {
	for i, x := range b.table {
		for _, y := range b.table[i+1:] {
			if x.matches(y.prefix) || y.matches(x.prefix) {
				return nil, fmt.Errorf("%w: Plugins: %w: %q and %q", ErrInvalidConfig, errRouteTaken, x.prefix, y.prefix)
			}
		}
	}
	slices.SortFunc(b.table, func(x, y route) int { return cmp.Compare(len(y.prefix), len(x.prefix)) })
	return b.table, nil
}

package connectpluginotel

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/rpcconv"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// advised are the bounds that the conventions advise for durations of calls, in seconds.
var advised = []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}

// instruments are what is measured with.
type instruments struct {
	server                                  rpcconv.ServerCallDuration
	client                                  rpcconv.ClientCallDuration
	wait                                    metric.Float64Histogram
	io, handshakes, launches, exits, denied metric.Int64Counter
	watches                                 metric.Int64UpDownCounter
}

func (i *instruments) make(m metric.Meter, bounds []float64) error {
	if len(bounds) == 0 {
		bounds = advised
	}
	buckets := metric.WithExplicitBucketBoundaries(bounds...)
	var err error
	// The constructors of rpcconv put bounds of their own above those that they are given.
	s, c := &i.server, &i.client
	s.Float64Histogram, err = m.Float64Histogram(s.Name(), buckets, metric.WithUnit(s.Unit()), metric.WithDescription(s.Description()))
	if err != nil {
		return fmt.Errorf("connectpluginotel: %w", err)
	}
	c.Float64Histogram, err = m.Float64Histogram(c.Name(), buckets, metric.WithUnit(c.Unit()), metric.WithDescription(c.Description()))
	if err != nil {
		return fmt.Errorf("connectpluginotel: %w", err)
	}
	i.wait, err = m.Float64Histogram("connectplugin.provider.wait", buckets, metric.WithUnit("s"),
		metric.WithDescription("Time until the answer of the provider of a routed call began."))
	if err != nil {
		return fmt.Errorf("connectpluginotel: %w", err)
	}
	i.watches, err = m.Int64UpDownCounter("connectplugin.watches", metric.WithUnit("{watch}"),
		metric.WithDescription("Watches of service types that are open."))
	if err != nil {
		return fmt.Errorf("connectpluginotel: %w", err)
	}
	for _, c := range []struct {
		counter                 *metric.Int64Counter
		name, unit, description string
	}{
		{&i.io, "connectplugin.router.io", "By", "Bodies of routed calls."},
		{&i.handshakes, "connectplugin.handshakes", "{handshake}", "Handshakes that were answered."},
		{&i.launches, "connectplugin.launches", "{launch}", "Instances of plugins that were started."},
		{&i.exits, "connectplugin.exits", "{exit}", "Instances of plugins that ended."},
		{&i.denied, "connectplugin.refusals", "{refusal}", "Requests and connections that were refused."},
	} {
		if *c.counter, err = m.Int64Counter(c.name, metric.WithUnit(c.unit), metric.WithDescription(c.description)); err != nil {
			return fmt.Errorf("connectpluginotel: %w", err)
		}
	}
	return nil
}

// Handshake counts a handshake.
func (o *Observer) Handshake(e connectplugin.HandshakeEvent) {
	o.handshakes.Add(context.Background(), 1, metric.WithAttributes(
		semconv.RPCResponseStatusCode(status(connectplugin.ProtocolConnect, e.Code)), renewedKey.Bool(e.Renewed)))
}

// Watch counts a watch that begins or ends.
func (o *Observer) Watch(e connectplugin.WatchEvent) {
	change := int64(1)
	if e.Ended {
		change = -1
	}
	o.watches.Add(context.Background(), change)
}

// Launch counts a launch.
func (o *Observer) Launch(e connectplugin.LaunchEvent) {
	o.launches.Add(context.Background(), 1, metric.WithAttributes(pluginKey.String(e.Name), failedKey.Bool(e.Failed)))
}

// Exit counts an exit.
func (o *Observer) Exit(e connectplugin.ExitEvent) {
	o.exits.Add(context.Background(), 1, metric.WithAttributes(pluginKey.String(e.Name), unaskedKey.Bool(e.Unasked)))
}

// Refusal counts a refusal.
func (o *Observer) Refusal(e connectplugin.RefusalEvent) {
	o.denied.Add(context.Background(), 1, metric.WithAttributes(reasonKey.String(string(e.Kind)), placeKey.String(string(e.Where))))
}

// Host has the counts of a host's Usage among the metrics, as connectplugin.host.usage, until
// stop is called.
func (o *Observer) Host(h *connectplugin.Host) (stop func() error, err error) {
	gauge, err := o.meter.Int64ObservableGauge("connectplugin.host.usage", metric.WithUnit("{item}"),
		metric.WithDescription("What the host holds at the moment."))
	if err != nil {
		return nil, fmt.Errorf("connectpluginotel: %w", err)
	}
	registration, err := o.meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		u := h.Usage()
		for resource, n := range map[string]int{
			"identities": u.Identities, "grants": u.Grants, "registrations": u.Registrations, "service_types": u.ServiceTypes,
			"plugins": u.Plugins, "endpoints": u.Endpoints, "watches": u.Watches, "calls": u.Calls,
		} {
			to.ObserveInt64(gauge, int64(n), metric.WithAttributeSet(attribute.NewSet(resourceKey.String(resource))))
		}
		return nil
	}, gauge)
	if err != nil {
		return nil, fmt.Errorf("connectpluginotel: %w", err)
	}
	return registration.Unregister, nil
}

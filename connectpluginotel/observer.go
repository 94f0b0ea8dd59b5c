package connectpluginotel

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// scope names the instrumentation.
const scope = "github.com/masegraye/connect-plugin-go/connectpluginotel"

// ErrConfig is wrapped by every error about a configuration.
var ErrConfig = errors.New("invalid configuration")

// Config configures an [Observer].
type Config struct {
	// TracerProvider makes the spans. Nil means the global one.
	TracerProvider trace.TracerProvider
	// MeterProvider makes the instruments. Nil means the global one.
	MeterProvider metric.MeterProvider
	// MaxSeries is how many combinations of names and codes of calls are kept apart. Zero means
	// [DefaultMaxSeries]. OpenTelemetry's SDK has a limit of its own, of 2000 by default.
	MaxSeries int
	// Buckets are the bounds of the histograms of durations, in seconds, rising. Nil means those
	// that the conventions advise, which begin at 5 ms: more than most calls between plugins of
	// one machine take.
	Buckets []float64
}

// DefaultMaxSeries is the default of [Config].MaxSeries.
const DefaultMaxSeries = 1000

// Observer turns what happens in hosts into metrics and spans. It is safe for concurrent use,
// also by several hosts.
type Observer struct {
	connectplugin.NopObserver
	instruments

	// Fixed at creation.
	tracer trace.Tracer
	meter  metric.Meter
	series series
}

// New makes an observer. An error says which instrument could not be made, or wraps
// [ErrConfig].
func New(cfg Config) (*Observer, error) {
	if cfg.MaxSeries < 0 {
		return nil, fmt.Errorf("%w: MaxSeries: is negative", ErrConfig)
	}
	if err := rising(cfg.Buckets); err != nil {
		return nil, err
	}
	if cfg.MaxSeries == 0 {
		cfg.MaxSeries = DefaultMaxSeries
	}
	if cfg.TracerProvider == nil {
		cfg.TracerProvider = otel.GetTracerProvider()
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = otel.GetMeterProvider()
	}
	o := &Observer{
		tracer: cfg.TracerProvider.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL)),
		meter:  cfg.MeterProvider.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL)),
		series: series{max: cfg.MaxSeries, kept: map[labels]*attributes{}},
	}
	if err := o.make(o.meter, cfg.Buckets); err != nil {
		return nil, err
	}
	return o, nil
}

// rising demands that bounds are numbers and each is above the one before.
func rising(bounds []float64) error {
	last := 0.0
	for i, b := range bounds {
		if !(b > last) || math.IsInf(b, 0) { // false for what is no number
			return fmt.Errorf("%w: Buckets[%d]: %v is not above %v, or no number", ErrConfig, i, b, last)
		}
		last = b
	}
	return nil
}

// propagator reads and writes the W3C's trace context. Baggage is none of its business.
var propagator propagation.TraceContext

// CallStarted begins the span of a routed call, and has the provider's begin below it.
func (o *Observer) CallStarted(ctx context.Context, call connectplugin.CallStart) (context.Context, connectplugin.TraceContext) {
	carrier := carrier(call.Trace)
	ctx = propagator.Extract(trace.ContextWithSpanContext(ctx, trace.SpanContext{}), &carrier)
	ctx, span := o.tracer.Start(ctx, spanName(call.Type, call.Procedure),
		trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(call.Start),
		trace.WithAttributes(
			systemName(call.Protocol), semconv.RPCMethod(method(call.Procedure)), callerKey.String(call.Caller), typeKey.String(call.Type),
		))
	if !span.SpanContext().IsValid() {
		return ctx, call.Trace // nobody traces
	}
	carrier.Tracestate = ""
	propagator.Inject(ctx, &carrier)
	return ctx, connectplugin.TraceContext(carrier)
}

// CallRouted ends the span and measures the call.
func (o *Observer) CallRouted(ctx context.Context, call connectplugin.RoutedCall) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetName(spanName(call.Type, call.Procedure))
		span.SetAttributes(
			semconv.RPCMethod(method(call.Procedure)), semconv.RPCResponseStatusCode(status(call.Protocol, call.Code)),
			providerKey.String(call.Provider), requestBytesKey.Int64(call.RequestBytes), responseBytesKey.Int64(call.ResponseBytes),
		)
		failed(span, call.Protocol, call.Code)
		span.End(trace.WithTimestamp(call.Start.Add(call.Duration)))
	}
	a := o.series.of(labels{
		caller: call.Caller, provider: call.Provider, serviceType: call.Type, procedure: call.Procedure,
		protocol: call.Protocol, code: call.Code, routed: true,
	})
	o.server.Inst().Record(ctx, call.Duration.Seconds(), a.server...)
	o.io.Add(ctx, call.RequestBytes, a.request...)
	o.io.Add(ctx, call.ResponseBytes, a.response...)
	if call.Provider != "" {
		o.client.Inst().Record(ctx, call.Attempt.Seconds(), a.client...)
		o.wait.Record(ctx, call.Waited.Seconds(), a.wait...)
	}
}

// CallServed measures a call that the host served itself.
func (o *Observer) CallServed(ctx context.Context, call connectplugin.ServedCall) {
	a := o.series.of(labels{caller: call.Caller, procedure: call.Procedure, protocol: call.Protocol, code: call.Code})
	o.server.Inst().Record(o.spanServed(ctx, call), call.Duration.Seconds(), a.server...)
}

// spanServed makes the span of a call that the host served itself, below that of its caller,
// once it is over; none where the caller traces nothing, or nobody knows who it is: strangers would say how
// many spans are kept. It returns ctx with it.
func (o *Observer) spanServed(ctx context.Context, call connectplugin.ServedCall) context.Context {
	if call.Caller == "" && connectplugin.GetAuthContext(ctx) == nil {
		return ctx
	}
	carrier := carrier(call.Trace)
	parent := propagator.Extract(trace.ContextWithSpanContext(ctx, trace.SpanContext{}), &carrier)
	if !trace.SpanContextFromContext(parent).IsValid() {
		return ctx
	}
	ctx, span := o.tracer.Start(parent, method(call.Procedure), trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(call.Start),
		trace.WithAttributes(
			systemName(call.Protocol), semconv.RPCMethod(method(call.Procedure)), callerKey.String(call.Caller),
			semconv.RPCResponseStatusCode(status(call.Protocol, call.Code)),
			requestBytesKey.Int64(call.RequestBytes), responseBytesKey.Int64(call.ResponseBytes),
		))
	failed(span, call.Protocol, call.Code)
	span.End(trace.WithTimestamp(call.Start.Add(call.Duration)))
	return ctx
}

// failed marks the span of a call that failed by the fault of who served it.
func failed(span trace.Span, p connectplugin.Protocol, code connect.Code) {
	if isServerError(code) {
		span.SetStatus(codes.Error, "")
		span.SetAttributes(semconv.ErrorTypeKey.String(status(p, code)))
	}
}

// carrier is a trace context as OpenTelemetry reads and writes it.
type carrier connectplugin.TraceContext

// Get implements propagation.TextMapCarrier.
func (c *carrier) Get(name string) string { return *c.field(name) }

// Set implements propagation.TextMapCarrier.
func (c *carrier) Set(name, value string) { *c.field(name) = value }

// Keys implements propagation.TextMapCarrier.
func (c *carrier) Keys() []string { return []string{"traceparent", "tracestate"} }

func (c *carrier) field(name string) *string {
	switch name {
	case "traceparent":
		return &c.Traceparent
	case "tracestate":
		return &c.Tracestate
	}
	return new(string)
}

// other stands for what has no name.
const other = "_OTHER"

// method is a procedure as the conventions write it.
func method(procedure string) string {
	if procedure == "" {
		return other
	}
	return strings.TrimPrefix(procedure, "/")
}

// spanName is the procedure, or the type that was asked for where there is none.
func spanName(serviceType, procedure string) string {
	if procedure == "" {
		return serviceType
	}
	return method(procedure)
}

func systemName(p connectplugin.Protocol) attribute.KeyValue {
	if p == connectplugin.ProtocolConnect {
		return semconv.RPCSystemNameConnectrpc
	}
	return semconv.RPCSystemNameGRPC
}

// status is a code as its protocol writes it.
func status(p connectplugin.Protocol, code connect.Code) string {
	text := "ok"
	if code != 0 {
		text = code.String()
	}
	if p == connectplugin.ProtocolConnect {
		return text
	}
	if code == connect.CodeCanceled {
		return "CANCELLED" // gRPC spells it so
	}
	return strings.ToUpper(text)
}

// isServerError reports whether a code is an error of who served the call, as the conventions
// have it: what a caller did wrong is none.
func isServerError(code connect.Code) bool {
	switch code {
	case connect.CodeUnknown, connect.CodeDeadlineExceeded, connect.CodeUnimplemented, connect.CodeInternal,
		connect.CodeUnavailable, connect.CodeDataLoss:
		return true
	case connect.CodeCanceled, connect.CodeInvalidArgument, connect.CodeNotFound, connect.CodeAlreadyExists, connect.CodePermissionDenied,
		connect.CodeResourceExhausted, connect.CodeFailedPrecondition, connect.CodeAborted, connect.CodeOutOfRange, connect.CodeUnauthenticated:
	}
	return false
}

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// serveFirstHost is a host of the first version of the wire, for the kit to test: this library's, which neither gets nor says
// anything that came later.
func serveFirstHost(ctx context.Context) error {
	config, _, err := ownHost()
	if err != nil {
		return err
	}
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Addr: os.Getenv(envAddr), TLS: config, ProtocolVersion: highestApp, MinProtocolVersion: lowestApp,
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			selfProvider: {AllowUnproven: true, Provides: []string{typeSubject}, AllowOwnAddress: true},
			selfCaller:   {AllowUnproven: true, Requires: []string{typeSubject, typeNobody}},
		}},
		HealthProbe:  connectplugin.HealthProbeConfig{Interval: probeEvery},
		Interceptors: []connectInterceptor{firstWire{}},
		Logger:       slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	if err := host.ListenAndServe(ctx); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// anyProvider is what a host says that knows "-" in the place of a provider.
const anyProvider = "connectplugin.any_provider"

// later are the fields that the first version does not have.
var later = map[protoreflect.FullName][]protoreflect.FieldNumber{
	"connectplugin.v1.HandshakeRequest":    {12, 13, 14, 15, 16, 17, 18},
	"connectplugin.v1.HandshakeResponse":   {12, 13, 14, 15, 16},
	"connectplugin.v1.WatchServiceRequest": {2, 3},
	"connectplugin.v1.WatchServiceEvent":   {4, 5, 6, 7},
	"connectplugin.v1.ReportHealthRequest": {4},
	"connectplugin.v1.CapabilityGrant":     {6},
}

// forget takes out of a message what came later.
func forget(message any) {
	m, ok := message.(proto.Message)
	if !ok {
		return
	}
	r := m.ProtoReflect()
	for _, number := range later[r.Descriptor().FullName()] {
		r.Clear(r.Descriptor().Fields().ByNumber(number))
	}
	if answer, ok := message.(*connectpluginv1.HandshakeResponse); ok {
		delete(answer.GetServerMetadata(), anyProvider)
	}
}

// firstWire is an interceptor that takes what came later out of every message.
type firstWire struct{}

// WrapUnary implements connect.Interceptor.
func (firstWire) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		forget(req.Any())
		resp, err := next(ctx, req)
		if err == nil {
			forget(resp.Any())
		}
		return resp, err
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (firstWire) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (firstWire) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error { return next(ctx, firstConn{conn}) }
}

type firstConn struct{ connect.StreamingHandlerConn }

// Receive implements connect.StreamingHandlerConn.
func (c firstConn) Receive(m any) error {
	err := c.StreamingHandlerConn.Receive(m)
	if err == nil {
		forget(m)
	}
	return err //nolint:wrapcheck // stands for what it wraps
}

// Send implements connect.StreamingHandlerConn. Watchers may share an event.
func (c firstConn) Send(m any) error {
	if message, ok := m.(proto.Message); ok {
		m = proto.Clone(message)
	}
	forget(m)
	return c.StreamingHandlerConn.Send(m) //nolint:wrapcheck // as above
}

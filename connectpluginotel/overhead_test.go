package connectpluginotel_test

import (
	"context"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace/noop"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/connectpluginotel"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// dropped is where spans go that nobody exports.
type dropped struct{}

func (dropped) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (dropped) Shutdown(context.Context) error                             { return nil }

// BenchmarkOverhead is a routed unary call of 256 bytes without sockets: with nobody who
// observes, with an observer that does nothing, with metrics, and with metrics and a span.
func BenchmarkOverhead(b *testing.B) {
	newPrometheus := func(cfg connectpluginotel.Config) *connectpluginotel.Prometheus {
		p, err := connectpluginotel.NewPrometheus(cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = p.Shutdown(context.Background()) })
		return p
	}
	spans := sdktrace.NewTracerProvider(sdktrace.WithBatcher(dropped{}))
	b.Cleanup(func() { _ = spans.Shutdown(context.Background()) })
	for _, way := range []struct {
		name string
		o    connectplugin.Observer
	}{
		{"nil", nil},
		{"nop", connectplugin.NopObserver{}},
		{"metrics", newPrometheus(connectpluginotel.Config{TracerProvider: noop.NewTracerProvider()})},
		{"metrics+traces", newPrometheus(connectpluginotel.Config{TracerProvider: spans})},
	} {
		b.Run(way.name, func(b *testing.B) {
			call := echo.NewMemoryCall(b, way.o)
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		})
	}
}

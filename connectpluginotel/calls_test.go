package connectpluginotel_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/connectpluginotel"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// traceparent is that of a caller.
const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// told makes an observer that nobody but the test tells anything, with its spans.
func told(t *testing.T) (*rig, *tracetest.InMemoryExporter) {
	t.Helper()

	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	prom, err := connectpluginotel.NewPrometheus(connectpluginotel.Config{TracerProvider: provider})
	if err != nil {
		t.Fatal(err)
	}

	return &rig{prom: prom}, spans
}

// routed tells of one call.
func (r *rig) routed(t *testing.T, call connectplugin.RoutedCall) {
	t.Helper()
	ctx, _ := r.prom.CallStarted(t.Context(), connectplugin.CallStart{
		Start: call.Start, Caller: call.Caller, Type: call.Type, Procedure: call.Procedure, Protocol: call.Protocol,
		Trace: connectplugin.TraceContext{Traceparent: traceparent},
	})
	r.prom.CallRouted(ctx, call)
}

// valued are the attributes of a span as text.
func valued(s tracetest.SpanStub) map[attribute.Key]string {
	out := map[attribute.Key]string{}
	for _, a := range s.Attributes {
		out[a.Key] = a.Value.String()
	}
	return out
}

// What is measured of a call stands where it belongs, in the span and in the metrics.
func TestOneCall(t *testing.T) {
	t.Parallel()

	r, spans := told(t)
	start := time.Unix(1_700_000_000, 0)
	r.routed(t, connectplugin.RoutedCall{
		Start: start, Caller: "a", Provider: "b", Type: "t", Procedure: "/t/M", Protocol: connectplugin.ProtocolConnect,
		RequestBytes: 11, ResponseBytes: 22, Waited: 2 * time.Second, Attempt: 3 * time.Second, Duration: 4 * time.Second,
	})

	if got := spans.GetSpans(); len(got) != 1 {
		t.Fatalf("%d spans", len(got))
	}

	span := spans.GetSpans()[0]
	if !span.StartTime.Equal(start) || !span.EndTime.Equal(start.Add(4*time.Second)) || span.SpanKind != trace.SpanKindServer || span.Name != "t/M" {
		t.Errorf("the span is %+v", span)
	}

	if v := valued(span); v["connectplugin.request.bytes"] != "11" || v["connectplugin.response.bytes"] != "22" || v["error.type"] != "" {
		t.Errorf("attributes %v", v)
	}

	lines := r.scrape(t)
	for _, want := range []struct{ metric, value, label string }{
		{"rpc_server_call_duration_seconds_sum", "4", `rpc_method="t/M"`},
		{"rpc_client_call_duration_seconds_sum", "3", `rpc_method="t/M"`},
		{"connectplugin_provider_wait_seconds_sum", "2", `connectplugin_type="t"`},
		{"connectplugin_provider_wait_seconds_bucket", "1", `le="2.5"`},
		{"connectplugin_provider_wait_seconds_bucket", "0", `le="0.005"`},
		{"connectplugin_router_io_bytes_total", "11", `connectplugin_direction="request"`},
		{"connectplugin_router_io_bytes_total", "22", `connectplugin_direction="response"`},
		{"rpc_server_call_duration_seconds_count", "1", `otel_scope_schema_url="https://opentelemetry.io/schemas/1.43.0"`},
	} {
		if !has(lines, want.metric, want.value, want.label) {
			t.Errorf("no %s{%s} of %s in\n%s", want.metric, want.label, want.value, strings.Join(lines, "\n"))
		}
	}
}

// Each code is written as its protocol has it, and is an error of whose fault it is. A call that went to
// nobody has no client.
func TestCodes(t *testing.T) {
	t.Parallel()

	served := []string{"unknown", "deadline_exceeded", "unimplemented", "internal", "unavailable", "data_loss"}
	for protocol, system := range map[connectplugin.Protocol]string{
		connectplugin.ProtocolConnect: "connectrpc", connectplugin.ProtocolGRPC: "grpc", connectplugin.ProtocolGRPCWeb: "grpc",
	} {
		r, spans := told(t)

		for code := connect.CodeCanceled; code <= connect.CodeUnauthenticated; code++ {
			spans.Reset()
			r.routed(t, connectplugin.RoutedCall{Start: time.Now(), Caller: "a", Type: "t", Protocol: protocol, Code: code})
			served := slices.Contains(served, code.String())

			text := code.String()
			if system == "grpc" {
				text = strings.ToUpper(strings.ReplaceAll(text, "canceled", "cancelled")) // gRPC spells it so
			}

			fault := map[bool]string{true: text}[served]
			span := spans.GetSpans()[0]
			if v := valued(span); v["rpc.response.status_code"] != text || v["rpc.system.name"] != system || v["error.type"] != fault {
				t.Errorf("%s %v: attributes %v", protocol, code, v)
			}

			if (span.Status.Code == codes.Error) != served {
				t.Errorf("%s %v: status %v", protocol, code, span.Status)
			}

			label := fmt.Sprintf(`rpc_response_status_code=%q`, text)
			if lines := r.scrape(t); !has(lines, "rpc_server_call_duration_seconds_count", "1", label) ||
				has(lines, "rpc_server_call_duration_seconds_count", "1", label, "error_type=") != served {
				t.Errorf("%s %v: no series %s", protocol, code, label)
			}
		}

		if text := strings.Join(r.scrape(t), "\n"); strings.Contains(text, "rpc_client_call") || strings.Contains(text, "provider_wait") {
			t.Errorf("%s: calls that went to nobody have a client", protocol)
		}
	}
}

// A call that the host answers itself and fails is an error of its span; where nobody traces, what a
// caller sent passes as it came.
func TestServedErrorsAndNoTracer(t *testing.T) {
	t.Parallel()

	r, spans := told(t)
	for code, want := range map[connect.Code]codes.Code{connect.CodeInternal: codes.Error, connect.CodeNotFound: codes.Unset} {
		spans.Reset()
		r.prom.CallServed(t.Context(), connectplugin.ServedCall{
			Start: time.Now(), Caller: "a", Procedure: "/h/M", Code: code, Protocol: connectplugin.ProtocolConnect, RequestBytes: 3, ResponseBytes: 4,
			Trace: connectplugin.TraceContext{Traceparent: traceparent},
		})

		span := spans.GetSpans()[0]
		if v := valued(span); span.Status.Code != want || v["connectplugin.request.bytes"] != "3" || v["connectplugin.response.bytes"] != "4" {
			t.Errorf("%v: status %v, attributes %v", code, span.Status, v)
		}
	}

	untraced, err := connectpluginotel.New(connectpluginotel.Config{})
	if err != nil {
		t.Fatal(err)
	}

	sent := connectplugin.TraceContext{Traceparent: "made up", Tracestate: "vendor=1", Baggage: "tenant=acme"}
	if _, got := untraced.CallStarted(t.Context(), connectplugin.CallStart{Start: time.Now(), Type: "t", Trace: sent}); got != sent {
		t.Errorf("nobody traces, and %+v became %+v", sent, got)
	}
}

// Whom the host does not know has no part in what is traced, whatever the sampler makes of his trace context.
func TestStrangersMakeNoSpans(t *testing.T) {
	t.Parallel()

	r, spans := told(t)
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) { c.Observer = r.prom })
	probe, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.URL+"/healthz", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}

	probe.Header.Set("Traceparent", traceparent)
	resp, err := h.Stranger(t).Do(probe)
	if err != nil {
		t.Fatal(err)
	}

	if _ = resp.Body.Close(); resp.StatusCode != http.StatusOK {
		t.Errorf("the probe is answered %s", resp.Status)
	}

	hosttest.Eventually(t, "the probe counts", func() bool {
		return has(r.scrape(t), "rpc_server_call_duration_seconds_count", "1", `rpc_method="healthz"`)
	})

	if made := spans.GetSpans(); len(made) != 0 {
		t.Errorf("the probe made spans: %v", made)
	}
}

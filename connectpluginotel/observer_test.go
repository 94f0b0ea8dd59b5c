package connectpluginotel_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/connectpluginotel"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

func TestMain(m *testing.M) { hosttest.Main(m) }

// rig is a host that is observed, a caller and a provider, each with spans of its own.
type rig struct {
	*echo.Rig

	spans  *tracetest.InMemoryExporter
	tracer trace.Tracer
	prom   *connectpluginotel.Prometheus
	seen   *echo.Recorder
}

func newRig(t *testing.T, series int, service http.Handler) *rig {
	t.Helper()
	r := &rig{spans: tracetest.NewInMemoryExporter()}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(r.spans))
	r.tracer = provider.Tracer("plugins")
	var err error
	if r.prom, err = connectpluginotel.NewPrometheus(connectpluginotel.Config{TracerProvider: provider, MaxSeries: series}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(r.prom.Shutdown(context.Background()), provider.Shutdown(context.Background())); err != nil {
			t.Error(err)
		}
	})
	r.seen = &echo.Recorder{Next: r.spanning(service)}
	r.Rig = echo.NewRig(t, r.seen, func(c *connectplugin.ServeConfig) { c.Observer = r.prom })
	return r
}

// spanning is a provider's handler with a span for each call, below the one that the request
// names.
func (r *rig) spanning(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		ctx := propagation.TraceContext{}.Extract(req.Context(), propagation.HeaderCarrier(req.Header))
		ctx, span := r.tracer.Start(ctx, "provider", trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		next.ServeHTTP(w, req.WithContext(ctx))
	})
}

// call makes a call with a span of the caller's and returns its trace.
func (r *rig) call(t *testing.T, kind string, opts []connect.ClientOption, header http.Header) (trace.TraceID, echo.Outcome) {
	t.Helper()
	ctx, span := r.tracer.Start(t.Context(), "caller", trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	header = header.Clone()
	if header == nil {
		header = http.Header{}
	}
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(header))
	return span.SpanContext().TraceID(), echo.Kinds[kind](ctx, r.ToProvider(), opts, header)
}

// traced returns the spans of a trace by name, once all are there.
func (r *rig) traced(t *testing.T, id trace.TraceID, names ...string) map[string]tracetest.SpanStub {
	t.Helper()
	var out map[string]tracetest.SpanStub
	hosttest.Eventually(t, "spans", func() bool {
		out = map[string]tracetest.SpanStub{}
		for _, s := range r.spans.GetSpans() {
			if s.SpanContext.TraceID() == id {
				out[s.Name] = s
			}
		}
		return !slices.ContainsFunc(names, func(name string) bool { _, ok := out[name]; return !ok })
	})
	if len(out) != len(names) {
		t.Errorf("%d spans: %v", len(out), out)
	}
	return out
}

// The router's span lies between those of the caller and of the provider, in every protocol.
func TestOneTrace(t *testing.T) {
	t.Parallel()

	r := newRig(t, 0, echo.Service{}.Handler())
	echo.EachOption(t, func(t *testing.T, opts []connect.ClientOption) {
		for kind, procedure := range map[string]string{"unary": "test.v1.Echo/Unary", "bidi": "test.v1.Echo/Bidi"} {
			r.seen.Take()

			id, out := r.call(t, kind, opts, http.Header{"Baggage": {"tenant=acme"}, "Tracestate": {"vendor=1"}})
			echo.Want(t, kind, out)

			spans := r.traced(t, id, "caller", procedure, "provider")
			router := spans[procedure]

			if spans["caller"].SpanContext.SpanID() != router.Parent.SpanID() || router.SpanContext.SpanID() != spans["provider"].Parent.SpanID() {
				t.Errorf("parents: router %v, provider %v", router.Parent.SpanID(), spans["provider"].Parent.SpanID())
			}

			if scope := router.InstrumentationScope; scope.SchemaURL != "https://opentelemetry.io/schemas/1.43.0" { // README and doc.go say so
				t.Errorf("scope %+v", scope)
			}

			if router.SpanKind != trace.SpanKindServer || !router.Parent.IsRemote() || router.EndTime.Before(router.StartTime) || router.Status.Code != codes.Unset {
				t.Errorf("router's span: %+v", router)
			}

			want := map[attribute.Key]string{
				"rpc.method": procedure, "connectplugin.caller": "caller", "connectplugin.provider": "provider", "connectplugin.type": "echo",
				"rpc.system.name":          map[bool]string{true: "connectrpc", false: "grpc"}[len(opts) == 0],
				"rpc.response.status_code": map[bool]string{true: "ok", false: "OK"}[len(opts) == 0],
			}
			for _, a := range router.Attributes {
				if text, ok := want[a.Key]; ok && a.Value.AsString() == text {
					delete(want, a.Key)
				}
			}

			if len(want) > 0 {
				t.Errorf("attributes %v are not among %v", want, router.Attributes)
			}

			for _, got := range r.seen.Take() {
				if got.URL.Path != "/"+procedure {
					continue
				}

				if baggage, state := got.Header.Get("Baggage"), got.Header.Get("Tracestate"); baggage != "tenant=acme" || state != "vendor=1" {
					t.Errorf("baggage %q, tracestate %q", baggage, state)
				}
			}
		}
	})
}

// A call that fails by the provider's fault is an error of the router's span, one by the
// caller's is none; a caller that sends no context begins a trace at the host.
func TestErrorsAndRoots(t *testing.T) {
	t.Parallel()

	code := connect.CodeInternal
	r := newRig(t, 0, echo.Service{Unary: func(context.Context, *connect.Request[echo.Text]) (*connect.Response[echo.Text], error) {
		return nil, connect.NewError(code, errors.New("no"))
	}}.Handler())

	for _, c := range []struct {
		code   connect.Code
		status codes.Code
	}{{connect.CodeInternal, codes.Error}, {connect.CodeInvalidArgument, codes.Unset}} {
		code = c.code
		id, _ := r.call(t, "unary", nil, nil)

		if got := r.traced(t, id, "caller", "test.v1.Echo/Unary", "provider")["test.v1.Echo/Unary"]; got.Status.Code != c.status {
			t.Errorf("%v: status %v", c.code, got.Status)
		}

		// To the provider's caller, which is the host, both are errors.
		server, client := "rpc_server_call_duration_seconds_count", "rpc_client_call_duration_seconds_count"
		label := `error_type="` + c.code.String() + `"`

		if lines := r.scrape(t); has(lines, server, "1", label) != (c.status == codes.Error) || !has(lines, client, "1", label) {
			t.Errorf("%v: errors in\n%s", c.code, strings.Join(lines, "\n"))
		}
	}

	r.spans.Reset()
	r.seen.Take()
	echo.CallUnary(t.Context(), r.ToProvider(), nil, http.Header{"Traceparent": {"00-not-a-trace"}, "Tracestate": {"vendor=1"}})
	hosttest.Eventually(t, "spans", func() bool { return len(r.spans.GetSpans()) == 2 })

	for _, s := range r.spans.GetSpans() {
		if s.Name != "provider" && s.Parent.IsValid() {
			t.Errorf("%s has the parent %v", s.Name, s.Parent)
		}
	}

	for _, got := range r.seen.Take() {
		if state := got.Header.Get("Tracestate"); state != "" {
			t.Errorf("the new trace has the state of another: %q", state)
		}
	}
}

// scrape returns the lines of metrics.
func (r *rig) scrape(t *testing.T) []string {
	t.Helper()
	w := httptest.NewRecorder()
	r.prom.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return strings.Split(w.Body.String(), "\n")
}

// has reports whether there is a series of a metric with the labels and the value.
func has(lines []string, metric, value string, labels ...string) bool {
	return slices.ContainsFunc(lines, func(line string) bool {
		for _, label := range labels {
			if !strings.Contains(line, label) {
				return false
			}
		}
		return strings.HasPrefix(line, metric+"{") && strings.HasSuffix(line, "} "+value)
	})
}

// A scrape has the names of the conventions.
func TestScrape(t *testing.T) {
	t.Parallel()

	r := newRig(t, 0, echo.Service{}.Handler())
	stop, err := r.prom.Host(r.Host.Host)
	if err != nil {
		t.Fatal(err)
	}

	for range 3 {
		_, out := r.call(t, "unary", nil, nil)
		echo.Want(t, "unary", out)
	}
	_, out := r.call(t, "server", []connect.ClientOption{connect.WithGRPC()}, nil)
	echo.Want(t, "server", out)

	stranger := r.Enrol(t, "stranger", nil)
	echo.CallUnary(t.Context(), echo.At(r.URL+"/services/echo/-", stranger.HTTPClient()), nil, nil)

	edge := []string{`connectplugin_caller="caller"`, `connectplugin_provider="provider"`, `connectplugin_type="echo"`}
	unary := append(slices.Clone(edge), `rpc_method="test.v1.Echo/Unary"`, `rpc_system_name="connectrpc"`, `rpc_response_status_code="ok"`)
	server := append(slices.Clone(edge), `rpc_method="test.v1.Echo/Server"`, `rpc_system_name="grpc"`, `rpc_response_status_code="OK"`)

	lines := r.scrape(t)
	for _, want := range []struct {
		metric, value string
		labels        []string
	}{
		{"rpc_server_call_duration_seconds_count", "3", unary},
		{"rpc_client_call_duration_seconds_count", "3", unary},
		{"rpc_server_call_duration_seconds_count", "1", server},
		{"rpc_client_call_duration_seconds_bucket", "3", append(slices.Clone(unary), `le="+Inf"`)},
		{"connectplugin_provider_wait_seconds_count", "4", edge},
		{"connectplugin_handshakes_total", "3", []string{`rpc_response_status_code="ok"`, `connectplugin_renewed="false"`}},
		{"connectplugin_refusals_total", "1", []string{`connectplugin_reason="denied"`, `connectplugin_place="request"`}},
		{"connectplugin_host_usage", "3", []string{`connectplugin_resource="identities"`}},
		{"connectplugin_host_usage", "1", []string{`connectplugin_resource="registrations"`}},
	} {
		if !has(lines, want.metric, want.value, want.labels...) {
			t.Errorf("no %s%v of %s in\n%s", want.metric, want.labels, want.value, strings.Join(lines, "\n"))
		}
	}

	for _, direction := range []string{"request", "response"} {
		if !slices.ContainsFunc(lines, func(l string) bool {
			return strings.HasPrefix(l, "connectplugin_router_io_bytes_total{") && strings.Contains(l, direction) && !strings.HasSuffix(l, " 0")
		}) {
			t.Errorf("no bytes of %ss", direction)
		}
	}

	if slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "error_type") }) {
		t.Error("nothing failed, and there is an error.type")
	}

	if err := stop(); err != nil {
		t.Fatal(err)
	}

	if slices.ContainsFunc(r.scrape(t), func(l string) bool { return strings.HasPrefix(l, "connectplugin_host_usage{") }) {
		t.Error("the host's usage is there after stop")
	}
}

// Whatever callers ask for and their accomplices answer, the series stay few, and no free text of a
// peer's is a label.
func TestPeersCannotGrowLabels(t *testing.T) {
	t.Parallel()

	const series = 20
	r := newRig(t, series, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(len(req.URL.Path)%400 + 200) // 1xx would be no answer
		_, _ = fmt.Fprintf(w, `{"code":%q}`, req.URL.Path)
	}))
	for i := range 200 {
		path := fmt.Sprintf("%s%sMadeUp%d", r.ToProvider().BaseURL(), echo.Base, i)
		switch i % 4 {
		case 0:
			path = fmt.Sprintf("%s%sfree%%20text%%20%d", r.ToProvider().BaseURL(), echo.Base, i)
		case 2:
			path = fmt.Sprintf("%s/services/made-up-%d/-/x", r.URL, i)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", fmt.Sprintf("application/made-up-%d", i))
		resp, err := r.Caller.HTTPClient().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}

	counts := 0
	for _, line := range r.scrape(t) {
		if strings.HasPrefix(line, "rpc_server_call_duration_seconds_count{") {
			counts++
		}
		if regexp.MustCompile(`made-up|free`).MatchString(line) {
			t.Errorf("a peer's text is a label: %s", line)
		}
	}

	if counts > series+2*17 {
		t.Errorf("%d series", counts)
	}

	if !slices.ContainsFunc(r.scrape(t), func(l string) bool {
		return strings.Contains(l, `connectplugin_caller="_OTHER"`) && strings.Contains(l, `rpc_method="_OTHER"`)
	}) {
		t.Error("nothing was added up under _OTHER")
	}
}

// What the host serves itself is a span below its caller's, and none where the caller traces nothing.
func TestServedCalls(t *testing.T) {
	t.Parallel()

	r := newRig(t, 0, echo.Service{}.Handler())
	ctx, span := r.tracer.Start(t.Context(), "caller", trace.WithSpanKind(trace.SpanKindClient))
	header := http.Header{}
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(header))
	span.End()

	health := func(caller string, h http.Header) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.URL+grpchealthCheck, strings.NewReader("\x00\x00\x00\x00\x00"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = h.Clone()
		req.Header.Set("Content-Type", "application/grpc-web")
		resp, err := r.Caller.HTTPClient().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _ = resp.Body.Close(); resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", caller, resp.Status)
		}
	}
	health("who traces nothing", http.Header{})
	health("who does", header)

	spans := r.traced(t, span.SpanContext().TraceID(), "caller", strings.TrimPrefix(grpchealthCheck, "/"))

	served := spans[strings.TrimPrefix(grpchealthCheck, "/")]
	if served.Parent.SpanID() != span.SpanContext().SpanID() || served.SpanKind != trace.SpanKindServer || served.EndTime.Before(served.StartTime) {
		t.Errorf("the host's span: %+v", served)
	}

	if n := len(r.spans.GetSpans()); n != 2 {
		t.Errorf("%d spans, of which nobody asked for %d", n, n-2)
	}
}

const grpchealthCheck = "/grpc.health.v1.Health/Check"

// The bounds of histograms are the operator's, if it says some.
func TestBuckets(t *testing.T) {
	t.Parallel()

	for _, bad := range [][]float64{{0}, {-1}, {1, 1}, {2, 1}, {math.NaN()}, {1, math.Inf(1)}} {
		if _, err := connectpluginotel.New(connectpluginotel.Config{Buckets: bad}); !errors.Is(err, connectpluginotel.ErrConfig) {
			t.Errorf("%v: %v", bad, err)
		}
	}

	prom, err := connectpluginotel.NewPrometheus(connectpluginotel.Config{Buckets: []float64{0.001, 0.5}})
	if err != nil {
		t.Fatal(err)
	}

	prom.CallServed(t.Context(), connectplugin.ServedCall{Duration: 2 * time.Millisecond})

	r := &rig{prom: prom}
	for bound, want := range map[string]string{"0.001": "0", "0.5": "1", "+Inf": "1"} {
		if lines := r.scrape(t); !has(lines, "rpc_server_call_duration_seconds_bucket", want, `le="`+bound+`"`) {
			t.Errorf("no bucket %s of %s in %s", bound, want, strings.Join(lines, "\n"))
		}
	}

	if lines := r.scrape(t); has(lines, "rpc_server_call_duration_seconds_bucket", "1", `le="0.005"`) {
		t.Error("there are the bounds of the conventions, too")
	}
}

// What is no call is counted, with few labels.
func TestCounts(t *testing.T) {
	t.Parallel()

	prom, err := connectpluginotel.NewPrometheus(connectpluginotel.Config{})
	if err != nil {
		t.Fatal(err)
	}

	for _, ended := range []bool{false, false, true} {
		prom.Watch(connectplugin.WatchEvent{SelfID: "a-plugin", Type: "a-type", Ended: ended})
	}

	prom.Handshake(connectplugin.HandshakeEvent{SelfID: "a-plugin", Renewed: true, Code: connect.CodeResourceExhausted})
	prom.Launch(connectplugin.LaunchEvent{Name: "store", RuntimeID: "a-plugin", Failed: true})
	prom.Exit(connectplugin.ExitEvent{Name: "store", RuntimeID: "a-plugin", Unasked: true})
	prom.Refusal(connectplugin.RefusalEvent{Kind: connectplugin.AuditLimited, Where: connectplugin.RefusedConnection, SelfID: "a-plugin"})

	r := &rig{prom: prom}

	lines := r.scrape(t)
	for metric, labels := range map[string][]string{
		"connectplugin_watches":          nil,
		"connectplugin_handshakes_total": {`connectplugin_renewed="true"`, `rpc_response_status_code="resource_exhausted"`},
		"connectplugin_launches_total":   {`connectplugin_plugin="store"`, `connectplugin_failed="true"`},
		"connectplugin_exits_total":      {`connectplugin_plugin="store"`, `connectplugin_unasked="true"`},
		"connectplugin_refusals_total":   {`connectplugin_reason="limited"`, `connectplugin_place="connection"`},
	} {
		if !has(lines, metric, "1", labels...) {
			t.Errorf("no %s%v in\n%s", metric, labels, strings.Join(lines, "\n"))
		}
	}

	if strings.Contains(strings.Join(lines, "\n"), "a-plugin") {
		t.Error("a plugin's name is a label of what it brings about at will")
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()

	if _, err := connectpluginotel.New(connectpluginotel.Config{MaxSeries: -1}); !errors.Is(err, connectpluginotel.ErrConfig) {
		t.Error(err)
	}

	if _, err := connectpluginotel.New(connectpluginotel.Config{}); err != nil {
		t.Error(err)
	}
}

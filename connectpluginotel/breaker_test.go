package connectpluginotel_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/connectpluginotel"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

func scrapeText(p *connectpluginotel.Prometheus) string {
	w := httptest.NewRecorder()
	p.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// A stranger's requests grow no label and no spans.
func TestBreaker_Stranger(t *testing.T) {
	r := newRig(t, 0, echo.Service{}.Handler())
	c := r.Stranger(t)
	lines := 0
	for round := range 3 {
		for i := range 150 {
			for _, path := range []string{
				fmt.Sprintf("/connectplugin.v1.Registry/Make%d_%d", round, i), fmt.Sprintf("/services/echo/prov-%d-%d/x", round, i),
				fmt.Sprintf("/capabilities/c%d_%d", round, i), fmt.Sprintf("/grpc.health.v1.Health/E%d_%d", round, i), fmt.Sprintf("/healthz/%d_%d", round, i),
			} {
				req, _ := http.NewRequest(http.MethodPost, r.URL+path, strings.NewReader("{}"))
				req.Header.Set("Content-Type", []string{"application/json", "application/grpc", "application/grpc-web+proto", fmt.Sprintf("x/%d", i)}[i%4])
				req.Header.Set("Traceparent", fmt.Sprintf("00-%032x-%016x-01", i+1+round*1000, i+1))
				req.Header.Set("Tracestate", "v="+strings.Repeat("x", 3000))
				res, err := c.Do(req)
				if err != nil {
					continue
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
			if i%10 == 0 {
				_, _ = connectplugin.NewClient(connectplugin.ClientConfig{})
				cfg := r.ClientConfig(t, fmt.Sprintf("nobody-%d-%d", round, i))
				_, err := hosttest.EnrolOnce(t.Context(), cfg)
				if err == nil {
					t.Error("a nobody enrolled")
				}
			}
		}
		text := scrapeText(r.prom)
		n := strings.Count(text, "\n")
		t.Logf("round %d: %d lines of metrics, %d spans", round, n, len(r.spans.GetSpans()))
		if round == 2 && n > lines+30 {
			t.Errorf("%d lines, %d before", n, lines)
		}
		lines = n
		for _, bad := range []string{"nobody-", "Make", "prov-", "healthz/"} {
			if strings.Contains(text, bad) {
				t.Errorf("a label has %q", bad)
			}
		}
	}
	if n := len(r.spans.GetSpans()); n > 0 {
		s := r.spans.GetSpans()[0]
		t.Errorf("%d spans of strangers, first %q parent %v attrs %v", n, s.Name, s.Parent.TraceID(), s.Attributes)
	}
}

// Hostile trace fields neither break a call nor grow.
func TestBreaker_TraceFields(t *testing.T) {
	r := newRig(t, 0, echo.Service{}.Handler())
	for name, h := range map[string]http.Header{
		"big baggage":      {"Baggage": {"a=" + strings.Repeat("b", 7000)}},
		"many baggages":    {"Baggage": strings.Split(strings.Repeat("a=b,", 1500), ",")},
		"big tracestate":   {"Tracestate": {"v=" + strings.Repeat("x", 7000)}},
		"many tracestates": {"Tracestate": strings.Split(strings.Repeat("a=b,", 900), ",")},
		"33 members": {"Tracestate": {strings.TrimSuffix(func() (s string) {
			for i := range 33 {
				s += fmt.Sprintf("k%d=v,", i)
			}
			return
		}(), ",")}},
		"hostile bytes": {"Baggage": {"\x80\xff=1;;;,,,"}, "Tracestate": {"=,=,\x80"}},
	} {
		r.seen.Take()
		_, out := r.call(t, "unary", nil, h)
		got := r.seen.Take()
		size := 0
		for _, g := range got {
			size = len(fmt.Sprint(g))
		}
		t.Logf("%-18s out %+v; provider saw %d requests of %d bytes", name, strings.ReplaceAll(fmt.Sprintf("%.80v", out), "\n", " "), len(got), size)
	}
	_, out := r.call(t, "unary", nil, nil)
	echo.Want(t, "unary", out)
}

type slowExporter struct{ time.Duration }

func (s slowExporter) ExportSpans(ctx context.Context, _ []sdktrace.ReadOnlySpan) error {
	select {
	case <-time.After(s.Duration):
	case <-ctx.Done():
	}
	return nil
}
func (slowExporter) Shutdown(context.Context) error { return nil }

// An exporter that is slow costs calls nothing, where it is batched as the SDK advises.
func TestBreaker_SlowExporter(t *testing.T) {
	tp := sdktrace.NewTracerProvider(sdktrace.WithBatcher(slowExporter{time.Hour}, sdktrace.WithExportTimeout(100*time.Millisecond), sdktrace.WithMaxQueueSize(16), sdktrace.WithBatchTimeout(time.Millisecond)))
	t.Cleanup(func() {
		ctx, c := context.WithTimeout(context.Background(), time.Second)
		defer c()
		_ = tp.Shutdown(ctx)
	})
	p, err := connectpluginotel.NewPrometheus(connectpluginotel.Config{TracerProvider: tp})
	if err != nil {
		t.Fatal(err)
	}
	rig := echo.NewRig(t, echo.Service{}.Handler(), func(c *connectplugin.ServeConfig) {
		c.Observer, c.Metrics, c.MetricsAddr, c.HealthAddr = p, p.Handler(), "127.0.0.1:0", "127.0.0.1:0"
	})
	begin := time.Now()
	for range 300 {
		echo.Want(t, "unary", echo.Kinds["unary"](t.Context(), rig.ToProvider(), nil, nil))
	}
	t.Logf("300 calls in %v", time.Since(begin))
	plain := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(plain.CloseIdleConnections)
	for _, ask := range []struct{ addr, method, path, host string }{
		{rig.MetricsAddr(), "GET", "/metrics", ""}, {rig.MetricsAddr(), "GET", "/metrics", "evil.example"}, {rig.MetricsAddr(), "GET", "/metrics", "evil.example:80"},
		{rig.MetricsAddr(), "GET", "/metrics", "localhost:9464"}, {rig.MetricsAddr(), "GET", "/metrics", "[::1]:9464"}, {rig.MetricsAddr(), "POST", "/metrics", ""}, {rig.MetricsAddr(), "GET", "/", ""}, {rig.MetricsAddr(), "GET", "/healthz", ""}, {rig.MetricsAddr(), "GET", "/metrics/", ""},
		{rig.HealthAddr(), "GET", "/metrics", ""}, {rig.HealthAddr(), "GET", "//metrics", ""}, {rig.HealthAddr(), "GET", "/healthz/../metrics", ""}, {rig.HealthAddr(), "GET", "/healthz", ""}, {rig.HealthAddr(), "GET", "/debug/pprof/", ""},
	} {
		req, _ := http.NewRequest(ask.method, "http://"+ask.addr+ask.path, nil)
		if ask.host != "" {
			req.Host = ask.host
			req.Header.Set("Origin", "http://evil.example")
			req.Header.Set("Sec-Fetch-Site", "cross-site")
		}
		res, err := plain.Do(req)
		if err != nil {
			t.Error(err)
			continue
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if strings.HasPrefix(ask.host, "evil") && res.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("%+v: %s", ask, res.Status)
		}
		t.Logf("%+v: %s, %d bytes, names plugins: %v", ask, res.Status, len(b), strings.Contains(string(b), `caller="caller"`) || strings.Contains(string(b), "connectplugin_caller"))
	}
	for _, path := range []string{"/metrics", "/debug/vars"} {
		res, err := rig.Stranger(t).Get(rig.URL + path)
		if err == nil {
			t.Logf("host's own address %s: %s", path, res.Status)
			_ = res.Body.Close()
		}
	}
}

// A plugin that provides and one that calls it cannot take all series, so that the edges of others that come
// later have no name.
func TestBreaker_OneEdgeTakesAllSeries(t *testing.T) {

	codes := []string{"canceled", "unknown", "invalid_argument", "deadline_exceeded", "not_found", "already_exists", "permission_denied", "resource_exhausted",
		"failed_precondition", "aborted", "out_of_range", "unimplemented", "internal", "unavailable", "data_loss", "unauthenticated"}
	hostile := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusConflict)
		_, _ = fmt.Fprintf(w, `{"code":%q}`, r.Header.Get("Connect-Timeout-Ms-X")+r.URL.Query().Get("c"))
	})
	r := newRig(t, 0, hostile)
	calls := 0
	for _, code := range append([]string{"not_found"}, codes...) {
		for i := range 64 {
			req, _ := http.NewRequest(http.MethodPost, fmt.Sprintf("%s%sP%d?c=%s", r.ToProvider().Base, echo.Base, i, code), strings.NewReader("{}"))
			req.Header.Set("Content-Type", "application/json")
			res, err := r.Caller.HTTPClient().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			calls++
		}
	}
	other := r.Provide(t, "other", echo.Service{}.Handler(), nil)
	echo.Want(t, "unary", echo.Kinds["unary"](t.Context(), r.Route(other.Client.RuntimeID()), nil, nil))
	text := scrapeText(r.prom)
	t.Logf("after %d calls: %d lines", calls, strings.Count(text, "\n"))
	if !strings.Contains(text, `connectplugin_provider="other"`) {
		t.Error("the honest edge has no name")
	}
}

package metrics_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/metrics"
)

// series are calls of one edge with a code, of which so many took up to 1 ms, up to 5 ms and longer.
func series(method, code, one, five, all string) string {
	labels := `{connectplugin_caller="demo",connectplugin_provider="api",connectplugin_type="shortener",rpc_method="` + method +
		`",rpc_response_status_code="` + code + `"`

	text := ""
	for bound, n := range map[string]string{"0.001": one, "0.005": five, "+Inf": all} {
		text += "rpc_server_call_duration_seconds_bucket" + labels + `,le="` + bound + `"} ` + n + "\n"
	}

	return text + "rpc_server_call_duration_seconds_sum" + labels + "} 0.25\nrpc_server_call_duration_seconds_count" + labels + "} " + all + "\n"
}

func TestScrape(t *testing.T) {
	t.Parallel()

	text := "# HELP rpc_server_call_duration_seconds x\nrpc_client_call_duration_seconds_count{connectplugin_caller=\"demo\"} 7\n" +
		series("a/Get", "ok", "90", "99", "100") + series("a/Get", "OK", "1", "1", "1") + series("a/Get", "unavailable", "0", "0", "2") +
		series("a/Other", "ok", "5", "5", "5")

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }))
	defer server.Close()

	scrape := func() metrics.Calls {
		t.Helper()

		calls, err := metrics.Scrape(t.Context(), server.URL, func(l metrics.Labels) bool {
			return l == metrics.Labels{Caller: "demo", Provider: "api", Type: "shortener", Method: "a/Get"}
		})
		if err != nil {
			t.Fatal(err)
		}

		return calls
	}

	first := scrape()
	if first.Count != 103 || first.Failed != 2 || first.Quantile(0.5) != time.Millisecond || first.Quantile(0.99) != 5*time.Millisecond {
		t.Errorf("%+v: median %v, p99 %v", first, first.Quantile(0.5), first.Quantile(0.99))
	}

	text = series("a/Get", "ok", "90", "119", "120") + series("a/Get", "OK", "1", "1", "1") + series("a/Get", "unavailable", "0", "0", "2")
	if d := scrape().Minus(first); d.Count != 20 || d.Failed != 0 || d.Quantile(0.5) != 5*time.Millisecond {
		t.Errorf("later: %+v, median %v", d, d.Quantile(0.5))
	}

	if sum := first.Plus(first); sum.Count != 206 || sum.Quantile(0.99) != first.Quantile(0.99) {
		t.Errorf("twice: %+v", sum)
	}

	text = "rpc_server_call_duration_seconds_count{connectplugin_caller=\"demo\"} many\n"

	if _, err := metrics.Scrape(t.Context(), server.URL, func(metrics.Labels) bool { return true }); err == nil {
		t.Error("a count that is no number is read")
	}
}

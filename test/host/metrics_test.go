package host_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

var metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1\n") })

// MetricsAddr answers scrapes in plaintext, and nothing else; no other address does.
func TestMetricsAddr(t *testing.T) {
	t.Parallel()

	host, probes := withProbes(t, func(c *connectplugin.ServeConfig) { c.MetricsAddr, c.Metrics = "127.0.0.1:0", metrics })
	url := "http://" + host.MetricsAddr()

	for name, client := range clients(t) {
		if got, text := get(t, client, url+"/metrics", "localhost"); got != http.StatusOK || text != "up 1\n" {
			t.Errorf("%s: %d %q", name, got, text)
		}

		for _, elsewhere := range []string{
			url + "/", url + "/metrics/", url + "/healthz", url + "/connectplugin.v1.HandshakeService/Handshake", probes + "/metrics",
		} {
			if got, text := get(t, client, elsewhere, "localhost"); got != http.StatusNotFound || strings.Contains(text, "up") {
				t.Errorf("%s %s: %d %q", name, elsewhere, got, text)
			}
		}

		for method, body := range map[string]string{http.MethodPost: "x", http.MethodDelete: "", http.MethodGet: "a body"} {
			req, err := http.NewRequestWithContext(t.Context(), method, url+"/metrics", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if _ = resp.Body.Close(); resp.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", name, method, resp.StatusCode)
			}
		}

		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/metrics", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Long", strings.Repeat("x", 64<<10))
		if resp, err := client.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("%s: headers of 64 KiB get %d", name, resp.StatusCode)
			}
		}
	}

	if got, _ := get(t, host.Stranger(t), host.URL+"/metrics", ""); got != http.StatusNotFound {
		t.Errorf("on the host's own address: %d", got)
	}

	host.Stop(t)

	if resp, err := http.Get(url + "/metrics"); err == nil {
		_ = resp.Body.Close()
		t.Error("scrapes are answered after the end")
	}
}

// On loopback a name that could be anybody's gets nothing: a web page may have its own mean this machine.
func TestMetrics_NamesOnLoopback(t *testing.T) {
	t.Parallel()

	host, _ := withProbes(t, func(c *connectplugin.ServeConfig) { c.MetricsAddr, c.Metrics = "127.0.0.1:0", metrics })

	for name, client := range clients(t) {
		for as, want := range map[string]int{
			"": http.StatusOK, "localhost": http.StatusOK, "LOCALHOST:9464": http.StatusOK, "127.0.0.1": http.StatusOK, "[::1]:9464": http.StatusOK,
			"[::1]": http.StatusOK, "page.example": http.StatusMisdirectedRequest, "page.example:9464": http.StatusMisdirectedRequest,
			"localhost.page.example": http.StatusMisdirectedRequest, "127.0.0.1.page.example": http.StatusMisdirectedRequest,
		} {
			if got, text := get(t, client, "http://"+host.MetricsAddr()+"/metrics", as); got != want || (want == http.StatusOK) != (text == "up 1\n") {
				t.Errorf("%s as %q: %d %q, want %d", name, as, got, text, want)
			}
		}
	}
}

// A mistake of the operator's is an error that names the field.
func TestMetricsFieldsThatCannotBe(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		addr, health, metricsAddr string
		metrics                   http.Handler
		want                      string
	}{
		"an address without a handler": {metricsAddr: "127.0.0.1:9464", want: ": Metrics: "},
		"a handler without an address": {metrics: metrics, want: ": MetricsAddr: "},
		"no port":                      {metricsAddr: "127.0.0.1", metrics: metrics, want: ": MetricsAddr: "},
		"that of Addr":                 {addr: "127.0.0.1:9464", metricsAddr: "127.0.0.1:9464", metrics: metrics, want: ": MetricsAddr: is that of Addr"},
		"that of Addr unless set":      {metricsAddr: "127.0.0.1:8443", metrics: metrics, want: ": MetricsAddr: is that of Addr"},
		"that of HealthAddr":           {health: "127.0.0.1:9464", metricsAddr: "127.0.0.1:9464", metrics: metrics, want: ": MetricsAddr: is that of HealthAddr"},
		"every address, beside Addr": {
			addr: "127.0.0.1:9464", metricsAddr: ":9464", metrics: metrics,
			want: `: MetricsAddr: ":9464" has the port of Addr, "127.0.0.1:9464", and one of them is every address; write another port`,
		},
		"beside every address": {
			addr: "0.0.0.0:9464", metricsAddr: "127.0.0.1:9464", metrics: metrics,
			want: `: MetricsAddr: "127.0.0.1:9464" has the port of Addr, "0.0.0.0:9464"`,
		},
		"every address, beside HealthAddr": {
			health: "[::]:9464", metricsAddr: "127.0.0.1:9464", metrics: metrics, want: `: MetricsAddr: "127.0.0.1:9464" has the port of HealthAddr, "[::]:9464"`,
		},
	} {
		cfg := &connectplugin.ServeConfig{
			Authority: hosttest.NewAuthority(t), Addr: c.addr, HealthAddr: c.health, MetricsAddr: c.metricsAddr, Metrics: c.metrics,
		}
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}

	for _, c := range []struct{ addr, metricsAddr string }{
		{"", "127.0.0.1:0"},
		{"", "127.0.0.1:9464"},
		{":8443", ":0"},
		{":0", "127.0.0.1:0"},
		{":8443", "127.0.0.1:9464"},
		{":8443", "127.0.0.1:"},
		{"", ":8443"}, // who leaves Addr out may serve on a listener of its own
	} {
		cfg := &connectplugin.ServeConfig{Authority: hosttest.NewAuthority(t), Addr: c.addr, MetricsAddr: c.metricsAddr, Metrics: metrics}
		if err := cfg.Validate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

package ctl_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/console/ctl"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// begin runs a command until the test ends it, which has to succeed.
func begin(t *testing.T, args ...string) *buffer {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs buffer
	code := make(chan int, 1)
	go func() { code <- ctl.Run(ctx, args, ctl.Streams{Out: &out, Err: &errs}) }()
	t.Cleanup(func() {
		cancel()
		if got := <-code; got != 0 {
			t.Errorf("connectpluginctl %q: exit %d, %s", args, got, errs.String())
		}
	})
	return &out
}

// Single calls are shown as they end, those that fail too, and only what was asked for.
func TestTailCalls(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	logger := r.startLogger(t)
	api := r.Enrol(t, "api", hosttest.Requiring("logger"))
	calls := loggerv1connect.NewLoggerClient(api.HTTPClient(), r.URL+"/services/logger/-")
	all, failed, decided := begin(t, r.as("tail")...), begin(t, r.as("tail", "--failed")...), begin(t, r.as("tail", "--no-calls")...)
	asJSON := begin(t, r.as("tail", "-o", "json")...)
	hosttest.Eventually(t, "all follow", func() bool {
		for _, b := range []*buffer{all, failed, decided, asJSON} {
			if !strings.Contains(b.String(), logger.Client.RuntimeID()) {
				return false
			}
		}
		return true
	})
	if _, err := calls.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{Message: "m"})); err != nil {
		t.Fatal(err)
	}
	logger.Stop(t)
	if _, err := calls.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{Message: "m"})); err == nil {
		t.Fatal("nobody answers")
	}
	const answered, broken = "call api -> logger " + loggerv1connect.LoggerLogProcedure + " connect ok", "call api -> nobody"
	hosttest.Eventually(t, "both calls are there", func() bool {
		return strings.Contains(all.String(), answered) && strings.Contains(all.String(), broken) && strings.Contains(failed.String(), broken) &&
			strings.Contains(asJSON.String(), `"unavailable"`) && strings.Contains(decided.String(), "ended")
	})
	if strings.Contains(failed.String(), answered) || strings.Contains(decided.String(), "call api") {
		t.Errorf("more than was asked for:\n%s\n%s", failed.String(), decided.String())
	}
}

// The page over TLS lets in who shows the operator's certificate, and whoever is named.
func TestPageOverTLS(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	out := begin(t, r.as("page", "--tls", "--allow", "spiffe://ctl.example/plugin/auditor")...)
	var link string
	hosttest.Eventually(t, "the page is served", func() bool {
		_, after, ok := strings.Cut(out.String(), "open ")
		link, _, _ = strings.Cut(after, "\n")
		return ok && strings.Contains(after, "\n")
	})
	base, _, _ := strings.Cut(link, "/#")
	if !strings.HasPrefix(base, "https://127.0.0.1:") {
		t.Fatalf("link %q", link)
	}
	for selfID, want := range map[string]int{"operator": http.StatusOK, "auditor": http.StatusOK, "logger": http.StatusUnauthorized, "": http.StatusUnauthorized} {
		if got := r.look(t, base, selfID); got != want {
			t.Errorf("%q: status %d, want %d", selfID, got, want)
		}
	}
}

// look asks a page for what happens, with the certificate of a self id or without any.
func (r *rig) look(t *testing.T, base, selfID string) int {
	t.Helper()
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: r.Authority.CertPool()}
	if selfID != "" {
		dir := filepath.Join(r.dir, "look", selfID)
		if err := r.Authority.WriteCredentials(dir, selfID); err != nil {
			t.Fatal(err)
		}
		own, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		cfg.GetClientCertificate = own.GetClientCertificate
	}
	transport := &http.Transport{TLSClientConfig: cfg}
	defer transport.CloseIdleConnections()
	ask := func(method, path, key string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Origin": {base}, "Content-Type": {"application/json"}, "Connectplugin-Page-Key": {key}}
		res, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	entered := ask(http.MethodPost, "/enter", "")
	var answer struct{ Key string }
	_ = json.NewDecoder(entered.Body).Decode(&answer)
	_ = entered.Body.Close()
	res := ask(http.MethodGet, "/events", answer.Key)
	_ = res.Body.Close()
	return res.StatusCode
}

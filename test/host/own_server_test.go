package host_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// On a server of the user's own nobody listens on HealthAddr and MetricsAddr. The operator is told so, once, and only where it is so.
func TestOwnServer_WarnsOfAddressesOnWhichNobodyListens(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit func(*connectplugin.ServeConfig)
		want []string
	}{
		"neither": {func(*connectplugin.ServeConfig) {}, nil},
		"probes":  {func(c *connectplugin.ServeConfig) { c.HealthAddr = "127.0.0.1:0" }, []string{"HealthAddr: nobody listens there"}},
		"both": {func(c *connectplugin.ServeConfig) {
			c.HealthAddr, c.MetricsAddr, c.Metrics = "127.0.0.1:0", "127.0.0.1:0", http.NotFoundHandler()
		}, []string{"HealthAddr: nobody listens there", "MetricsAddr: nobody listens there"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := hosttest.NewCA(t)
			cfg := ca.TLS(ca.Certify(t, hosttest.Loopback))
			var log hosttest.Buffer
			config := &connectplugin.ServeConfig{TLS: cfg, Logger: slog.New(slog.NewTextHandler(&log, nil))}
			c.edit(config)
			host, err := connectplugin.NewHost(config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = host.Shutdown(t.Context()) })
			l := hosttest.Listen(t)
			server := &http.Server{Handler: host.Handler(), TLSConfig: cfg}
			go func() { _ = server.ServeTLS(l, "", "") }()
			t.Cleanup(func() { _ = server.Close() })
			for range 2 {
				if got, err := ask(t, ca, l.Addr().String(), "127.0.0.1", "127.0.0.1"); err != nil || got != served {
					t.Fatalf("%d, %v", got, err)
				}
			}
			said := log.String()
			if got := strings.Count(said, "nobody listens there"); got != len(c.want) {
				t.Errorf("%d warnings, want %d:\n%s", got, len(c.want), said)
			}
			for _, want := range c.want {
				if !strings.Contains(said, want) {
					t.Errorf("%q is not in the log:\n%s", want, said)
				}
			}
		})
	}
}

// A host that listens itself, too, answers there.
func TestOwnServer_IsNotWarnedOfWhereTheHostServesToo(t *testing.T) {
	t.Parallel()
	var log hosttest.Buffer
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.HealthAddr, c.Logger = "127.0.0.1:0", slog.New(slog.NewTextHandler(&log, nil))
	})
	host.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/healthz", http.NoBody))
	if strings.Contains(log.String(), "nobody listens there") {
		t.Error(log.String())
	}
}

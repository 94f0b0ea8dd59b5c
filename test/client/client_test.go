package client_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

func TestAudit_H61_ClientFollowsNoRedirectAndEndsWithClose(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	c := host.Enrol(t, "api", hosttest.Requiring("logger"))
	// A server that the client trusts, elsewhere: it must not be asked at all.
	var stolen atomic.Int64
	cfg, err := host.Authority.HostTLS()
	if err != nil {
		t.Fatal(err)
	}
	thief := &http.Server{
		TLSConfig: cfg, ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stolen.Add(1) }),
	}
	l := hosttest.Listen(t)
	go func() { _ = thief.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = thief.Close() })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+l.Addr().String()+"/steal", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := c.HTTPClient().Do(req); err == nil {
		_ = resp.Body.Close()
	}
	if stolen.Load() != 0 {
		t.Error("the client sent a request with credentials to another server")
	}
	if req.Header.Get("Authorization") != "" {
		t.Error("the credentials were left in the caller's request")
	}
	conn, err := c.Service(t.Context(), "logger", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"Connect":      c.Connect(t.Context()),
		"ReportHealth": c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil),
		"second Close": errOrClosed(c.Close()),
		"Service":      hosttest.ErrorOf(c.Service(t.Context(), "logger", "")),
		"Capability":   hosttest.ErrorOf(c.Capability(t.Context(), "logger", "")),
		"Dispense":     hosttest.ErrorOf(c.Dispense("logger")),
		"call": func() error {
			_, err := loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL()).Log(context.Background(), connect.NewRequest(&loggerv1.LogRequest{}))
			return err
		}(),
	} {
		if !errors.Is(err, connectplugin.ErrClientClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
}

func errOrClosed(err error) error {
	if err == nil {
		return connectplugin.ErrClientClosed
	}
	return err
}

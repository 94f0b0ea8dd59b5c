package recovery_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// narrow runs a provider that takes one stream on each of its connections.
func narrow(t *testing.T, host *hosttest.Restartable) {
	t.Helper()
	c := host.Enrol(t, "provider", hosttest.Providing(echoType))
	cfg, err := host.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	cfg.NextProtos = []string{"h2"}
	mux := http.NewServeMux()
	mux.Handle("/echo.v1.Echo/", echoHandler())
	mux.Handle(connectpluginv1connect.NewPluginControlHandler(control{id: c.RuntimeID}))
	server := &http.Server{
		Handler: mux, TLSConfig: cfg, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	l := hosttest.Listen(t)
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = server.Close(); <-served })
	err = hosttest.RegisterWith(t, c, &connectpluginv1.RegisterServiceRequest{
		ServiceType: echoType, Version: "1.0.0", EndpointPath: "/", Metadata: map[string]string{"base_url": "https://" + l.Addr().String()},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A stream beyond what a provider takes is told so within a bound, with a code and in the host's
// log; another caller is served meanwhile, and the first one once there is room.
func TestAudit_USE46_BeyondWhatAProviderTakes(t *testing.T) {
	t.Parallel()
	const enough = 100 // more than all connections to one provider take
	var log hosttest.Buffer
	host := start(t, func(c *connectplugin.ServeConfig) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		c.HealthProbe.Disabled = true
		c.Policy.Plugins["another"] = c.Policy.Plugins["api"]
	})
	narrow(t, host)
	greedy, sibling := service(t, caller(t, host)), service(t, caller(t, host))
	other := service(t, host.Enrol(t, "another", hosttest.Requiring(echoType)))
	ctx, cancel := context.WithTimeout(t.Context(), hosttest.Wait)
	defer cancel()
	open := func() error {
		stream, err := echo(greedy, sayOn).CallServerStream(ctx, connect.NewRequest(&text{Value: "x"}))
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = stream.Close() })
		if stream.Receive() {
			return nil
		}
		return stream.Err()
	}
	var full error
	for n := 0; n < enough && full == nil; n++ {
		full = open()
	}
	if connect.CodeOf(full) != connect.CodeResourceExhausted {
		t.Fatalf("a stream too many: %v", full)
	}
	if coded, ok := errors.AsType[*connect.Error](full); !ok || len(coded.Details()) != 1 || coded.Details()[0].Type() != "google.rpc.RetryInfo" {
		t.Errorf("it is not told when to come again: %v", full)
	}
	told := slices.DeleteFunc(host.Audit.Events(), func(e connectplugin.AuditEvent) bool { return e.Kind != connectplugin.AuditLimited })
	if len(told) != 1 || told[0].Subject != echoType || told[0].SelfID == "" || told[0].Peer != "127.0.0.1" {
		t.Errorf("the audit has %v", told)
	}
	if err := once(t.Context(), other); err != nil {
		t.Errorf("another caller: %v", err)
	}
	hosttest.Eventually(t, "another instance of the plugin that has as many as it may is refused, too", func() bool {
		for full = nil; full == nil; { // where there is room again
			full = open()
		}
		return connect.CodeOf(once(t.Context(), sibling)) == connect.CodeResourceExhausted
	})
	if !strings.Contains(log.String(), "provider has no room for the call") {
		t.Errorf("the log says nothing of it: %s", log.String())
	}
	cancel()
	hosttest.Eventually(t, "there is room again", func() bool { return once(t.Context(), greedy) == nil })
}

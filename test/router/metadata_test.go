package router_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// What the operator adds passes in both directions, on both routes and to plugins in the
// host's own process; what is dropped is in the log once for each name.
func TestAudit_USE13_MetadataThatIsAddedAndDropped(t *testing.T) {
	t.Parallel()
	var log hosttest.Buffer
	answers := echo.Service{Unary: func(_ context.Context, req *connect.Request[echo.Text]) (*connect.Response[echo.Text], error) {
		resp := connect.NewResponse(req.Msg)
		for _, name := range []string{"X-Api-Key", "X-Session-Id", "X-Tenant"} {
			resp.Header().Set(name, "of the provider")
			resp.Trailer().Set(name, "of the provider")
		}
		return resp, nil
	}}
	seen := &echo.Recorder{Next: answers.Handler()}
	rig := echo.NewRig(t, seen, func(c *connectplugin.ServeConfig) {
		c.PassMetadata = []string{"x-api-key"}
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	conn, err := rig.Caller.Service(t.Context(), echo.Type, "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for route, to := range map[string]echo.Reachable{"named": rig.ToProvider(), "any": conn} {
		for protocol, opts := range hosttest.Protocols {
			seen.Take()
			out := echo.CallUnary(t.Context(), to, opts, http.Header{"X-Api-Key": {"k"}, "X-Session-Id": {"s"}, "X-Tenant": {"t"}})
			if out.Err != nil {
				t.Fatal(out.Err)
			}
			got := seen.Take()[0].Header
			if got.Get("X-Api-Key") != "k" || got.Get("X-Tenant") != "t" || got.Get("X-Session-Id") != "" {
				t.Errorf("%s, %s: the provider saw %v", route, protocol, got)
			}
			for where, back := range map[string]http.Header{"header": out.Header, "trailer": out.Trailer} {
				if where == "trailer" && protocol == "grpc-web" {
					continue // it is a part of the body
				}
				if back.Get("X-Api-Key") == "" || back.Get("X-Tenant") == "" || back.Get("X-Session-Id") != "" {
					t.Errorf("%s, %s: the caller saw %v", route, protocol, back)
				}
			}
		}
	}
	for name, want := range map[string]int{"X-Session-Id": 1, "X-Tenant": 0, "X-Api-Key": 0, "Authorization": 0} {
		if n := strings.Count(log.String(), "does not pass between plugins; ServeConfig.PassMetadata can let it\" name="+name+" "); n != want {
			t.Errorf("%s: %d lines, want %d", name, n, want)
		}
	}
	if strings.Contains(log.String(), "of the provider") {
		t.Error("the log has values")
	}
}

// A name that can never pass is refused with the configuration.
func TestAudit_USE13_NamesThatCannotPass(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Authorization", "x-plugin-runtime-id", "Connection", "grpc-status", "", "a b", "Www-Authenticate"} {
		cfg := &connectplugin.ServeConfig{Authority: hosttest.NewAuthority(t), PassMetadata: []string{"X-Api-Key", name}}
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "PassMetadata[1]") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

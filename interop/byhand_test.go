package main

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// tool finds a program on the PATH or among the tools that make built.
func tool(t *testing.T, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip(err)
	}
	found, _ := filepath.Glob(filepath.Join(cache, "connectplugin", "tools", "*", name))
	if len(found) == 0 {
		t.Skipf("%s is not installed", name)
	}
	return found[0]
}

// provideReflection starts a plugin on gRPC-Go that serves health and reflection, below one
// type with an empty path.
func provideReflection(t *testing.T, s *stage) {
	t.Helper()
	server := grpc.NewServer()
	reflection.Register(server)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	dir, err := s.credentials("provider")
	if err != nil {
		t.Fatal(err)
	}
	tls, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
			Client:   connectplugin.ClientConfig{HostURL: "https://" + s.addr, SelfID: "provider", Secret: []byte(secret), TLS: tls},
			Services: []connectplugin.PluginService{{Type: "tried", Version: "1.0.0", Path: "/", Handler: server}},
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	conn, err := s.caller.Service(ctx, "tried", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for deadline := time.Now().Add(time.Minute); conn.State() != 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the provider did not come")
		}
	}
}

// TestByHand calls a provider through the host as docs/troubleshooting.md says, with reflection
// that the provider serves, and the host's own services.
func TestByHand(t *testing.T) {
	s, err := newStage(t.Context(), slog.New(slog.DiscardHandler), []string{"tried"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	provideReflection(t, s)
	dir, err := s.credentials(callerID)
	if err != nil {
		t.Fatal(err)
	}
	identity := []string{
		"X-Plugin-Runtime-Id: " + s.caller.RuntimeID(), "Authorization: Bearer " + s.caller.RuntimeToken(), "X-Plugin-Constraint: >=1.0",
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	headers := func(flag string) (args []string) {
		for _, h := range identity {
			args = append(args, flag, h)
		}
		return args
	}
	mutual := []string{"--cacert", at("ca.crt"), "--cert", at("tls.crt"), "--key", at("tls.key")}
	buf := slices.Concat([]string{"curl"}, mutual, headers("-H"))
	registry := "https://" + s.addr + "/connectplugin.v1.ServiceRegistry/DiscoverService"
	route := "https://" + s.addr + "/services/tried/-"
	reflecting := slices.Concat(buf, headers("--reflect-header"), []string{"--protocol", "grpc", "--reflect"})
	for name, c := range map[string]struct {
		tool string
		args []string
		want string
	}{
		"buf, with reflection": {"buf", slices.Concat(reflecting, []string{"-d", "{}", route + "/grpc.health.v1.Health/Check"}), `"status":"SERVING"`},
		"buf, the methods":     {"buf", slices.Concat(reflecting, []string{"--list-methods", route}), "grpc.health.v1.Health/Check"},
		"buf, the host": {"buf", slices.Concat(buf, []string{
			"--schema", "../proto", "-d", `{"serviceType":"tried"}`, registry,
		}), "/services/tried/provider-"},
		"grpcurl, the host": {"grpcurl", slices.Concat(headers("-H"), []string{
			"-cacert", at("ca.crt"), "-cert", at("tls.crt"), "-key", at("tls.key"), "-import-path", "../proto", "-proto", "plugin/v1/registry.proto",
			"-d", `{"service_type":"tried"}`, s.addr, "connectplugin.v1.ServiceRegistry/DiscoverService",
		}), "/services/tried/provider-"},
		"curl, the host": {"curl", slices.Concat(mutual, headers("-H"), []string{
			"-sS", "-H", "Content-Type: application/json", "-d", `{"serviceType":"tried"}`, registry,
		}), "/services/tried/provider-"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			out, err := exec.CommandContext(ctx, tool(t, c.tool), c.args...).CombinedOutput()
			if err != nil || !strings.Contains(strings.ReplaceAll(string(out), " ", ""), strings.ReplaceAll(c.want, " ", "")) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// tries counts how often calls were sent.
type tries struct{ n atomic.Int64 }

// TagRPC implements stats.Handler.
func (*tries) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn implements stats.Handler.
func (*tries) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (*tries) HandleConn(context.Context, stats.ConnStats) {}

// HandleRPC implements stats.Handler.
func (t *tries) HandleRPC(_ context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutHeader); ok {
		t.n.Add(1)
	}
}

// TestRetryPolicy has the service config of a caller of gRPC-Go try again what the host itself answers.
func TestRetryPolicy(t *testing.T) {
	t.Parallel()
	s, err := newStage(t.Context(), slog.New(slog.DiscardHandler), []string{"absent"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	var sent tries
	conn, err := grpc.NewClient("passthrough:///"+s.addr, grpc.WithTransportCredentials(credentials.NewTLS(s.clientTLS())),
		grpc.WithStatsHandler(&sent), grpc.WithDefaultServiceConfig(`{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 3,
			"initialBackoff": "0.001s", "maxBackoff": "0.001s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-plugin-runtime-id", s.caller.RuntimeID(), "authorization", "Bearer "+s.caller.RuntimeToken())
	err = conn.Invoke(ctx, "/services/absent/-/grpc.health.v1.Health/Check", new(grpc_health_v1.HealthCheckRequest), new(grpc_health_v1.HealthCheckResponse))
	// gRPC-Go has the code of the last attempt only if that was answered after its message was sent.
	if n := sent.n.Load(); err == nil || n != 3 {
		t.Errorf("%v, sent %d times", err, n)
	}
}

// TestChallenge has gRPC-Go show the challenge of a host that does not know an identity: docs/protocol.md says where.
func TestChallenge(t *testing.T) {
	t.Parallel()
	s, err := newStage(t.Context(), slog.New(slog.DiscardHandler), []string{"absent"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	conn, err := grpc.NewClient("passthrough:///"+s.addr, grpc.WithTransportCredentials(credentials.NewTLS(s.clientTLS())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-plugin-runtime-id", s.caller.RuntimeID(), "authorization", "Bearer of-nobody")
	var header, trailer metadata.MD
	err = conn.Invoke(ctx, "/services/absent/-/grpc.health.v1.Health/Check", new(grpc_health_v1.HealthCheckRequest), new(grpc_health_v1.HealthCheckResponse),
		grpc.Header(&header), grpc.Trailer(&trailer))
	if status.Code(err) != codes.Unauthenticated || !slices.Equal(trailer.Get("www-authenticate"), []string{"Bearer"}) || len(header.Get("www-authenticate")) > 0 {
		t.Errorf("%v, header %q, trailer %q", err, header.Get("www-authenticate"), trailer.Get("www-authenticate"))
	}
}

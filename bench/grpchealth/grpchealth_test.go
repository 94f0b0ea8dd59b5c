// Package grpchealth_test is a program that links gRPC's own health service and go-plugin
// beside a host. Protobuf registers descriptors for the whole program, and panics before main
// where two of a name are linked: that this test runs at all is its first half.
package grpchealth_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

var (
	_ plugin.Plugin         = (*plugin.NetRPCUnsupportedPlugin)(nil)
	_ healthpb.HealthServer = (*health.Server)(nil)
)

// gRPC's client asks a host that serves no descriptor of gRPC's, on both of its addresses.
func TestClientOfGRPCAsks(t *testing.T) {
	t.Parallel()
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{TrustDomain: "test.example"})
	if err != nil {
		t.Fatal(err)
	}
	statuses := connectplugin.NewHealthServer()
	statuses.SetServingStatus("db", connectpluginv1.ServingStatus_SERVING_STATUS_NOT_SERVING)
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: authority, Addr: "127.0.0.1:0", HealthAddr: "127.0.0.1:0", HealthService: statuses,
		Policy: &connectplugin.Policy{Public: []string{"health", "db"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- host.ListenAndServe(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(time.Minute); host.Addr() == "" && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	for addr, c := range map[string]credentials.TransportCredentials{
		host.Addr(): credentials.NewTLS(authority.ClientTLS()), host.HealthAddr(): insecure.NewCredentials(),
	} {
		conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(c))
		if err != nil {
			t.Fatal(err)
		}
		ask(t, healthpb.NewHealthClient(conn), statuses)
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

func ask(t *testing.T, client healthpb.HealthClient, statuses *connectplugin.HealthServer) {
	t.Helper()
	statuses.SetServingStatus("", connectpluginv1.ServingStatus_SERVING_STATUS_SERVING)
	for service, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"": healthpb.HealthCheckResponse_SERVING, "db": healthpb.HealthCheckResponse_NOT_SERVING,
	} {
		if got, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service}); err != nil || got.GetStatus() != want {
			t.Errorf("%q: %v, %v", service, got, err)
		}
	}
	if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "unknown"}); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown service: %v", err)
	}
	watch, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []healthpb.HealthCheckResponse_ServingStatus{healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING} {
		if got, err := watch.Recv(); err != nil || got.GetStatus() != want {
			t.Errorf("watch: %v, %v; want %v", got, err, want)
		}
		statuses.SetServingStatus("", connectpluginv1.ServingStatus_SERVING_STATUS_NOT_SERVING)
	}
}

// The names of gRPC's health service belong to gRPC's module.
func TestDescriptorsAreThoseOfGRPC(t *testing.T) {
	t.Parallel()
	d, err := protoregistry.GlobalFiles.FindDescriptorByName("grpc.health.v1.Health")
	if err != nil || d.ParentFile().Path() != healthpb.File_grpc_health_v1_health_proto.Path() {
		t.Errorf("%v, %v", d, err)
	}
	if _, ok := d.(protoreflect.ServiceDescriptor); !ok {
		t.Error(errors.New("it is no service"))
	}
}

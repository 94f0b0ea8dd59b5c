#!/usr/bin/env bash
# Guess: behind connectrpc.com/vanguard, which translates between protocols, a gRPC caller gets a unary error as the handler
# made it: code, text, details, metadata.
# Seen: where vanguard v0.4.0 translates gRPC to Connect or to gRPC-Web, the error comes with grpc-status and grpc-message
# twice. A caller of connect-go 1.21.1 or of gRPC-Go 1.85.0 gets the right code and no details, though the field with them
# is there, once. A service that speaks gRPC itself, so that nothing is translated, keeps them.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	connectrpc.com/grpchealth v1.5.0
	connectrpc.com/vanguard v0.4.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/vanguard"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type failing struct{}

func (failing) Check(context.Context, *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	err := connect.NewError(connect.CodeAborted, errors.New("no"))
	detail, _ := connect.NewErrorDetail(wrapperspb.String("detail"))
	err.AddDetail(detail)
	return nil, err
}

func main() {
	path, handler := grpchealth.NewHandler(failing{})
	var seen []string
	for _, target := range []vanguard.Protocol{vanguard.ProtocolGRPC, vanguard.ProtocolGRPCWeb, vanguard.ProtocolConnect} {
		front, err := vanguard.NewTranscoder([]*vanguard.Service{vanguard.NewService(path, handler, vanguard.WithTargetProtocols(target))})
		if err != nil {
			panic(err)
		}
		seen = append(seen, target.String()+": "+ask(front, path))
	}
	fmt.Println(strings.Join(seen, "\n"))
	want := "gRPC: aborted details 1 statuses 1, Aborted details 1\n" +
		"gRPC-Web: aborted details 0 statuses 2, Aborted details 0\n" +
		"Connect: aborted details 0 statuses 2, Aborted details 0"
	if strings.Join(seen, "\n") != want {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}

// ask calls as connect-go does, and as gRPC-Go does.
func ask(front http.Handler, path string) string {
	server := httptest.NewUnstartedServer(front)
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()

	client := connect.NewClient[grpc_health_v1.HealthCheckRequest, grpc_health_v1.HealthCheckResponse](server.Client(), server.URL+path+"Check", connect.WithGRPC())
	_, err := client.CallUnary(context.Background(), connect.NewRequest(&grpc_health_v1.HealthCheckRequest{}))
	var first *connect.Error
	if !errors.As(err, &first) {
		return fmt.Sprint(err)
	}
	pool := credentials.NewTLS(server.Client().Transport.(*http.Transport).TLSClientConfig.Clone())
	conn, err := grpc.NewClient(strings.TrimPrefix(server.URL, "https://"), grpc.WithTransportCredentials(pool))
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	_, err = grpc_health_v1.NewHealthClient(conn).Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
	second := status.Convert(err)
	return fmt.Sprintf("%v details %d statuses %d, %v details %d", first.Code(), len(first.Details()), len(first.Meta().Values("Grpc-Status")), second.Code(), len(second.Details()))
}
EOT
export GOFLAGS=-mod=mod GOTOOLCHAIN=local
go mod tidy > /dev/null 2>&1
go list -m connectrpc.com/connect connectrpc.com/vanguard google.golang.org/grpc
go run .

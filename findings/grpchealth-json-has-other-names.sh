#!/usr/bin/env bash
# Guess: a health check in JSON is answered with the names of grpc.health.v1, {"status":"SERVING"}, and a client that was
# generated from the published .proto file reads them.
# Seen: connectrpc.com/grpchealth v1.5.0 has a .proto file of its own, in which the values are called SERVING_STATUS_SERVING
# and so on. In binary nobody notices. In JSON that is what the answer holds: a client of connect-go 1.21.1 with
# google.golang.org/grpc/health/grpc_health_v1 of gRPC-Go 1.85.0 drops the name that it does not know and reports
# UNKNOWN for a service that serves, without an error.
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
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	mux := http.NewServeMux()
	mux.Handle(grpchealth.NewHandler(grpchealth.NewStaticChecker("e.Echo")))
	server := httptest.NewServer(mux)
	defer server.Close()

	url := server.URL + "/grpc.health.v1.Health/Check"
	var seen []string
	for _, options := range [][]connect.ClientOption{nil, {connect.WithProtoJSON()}} {
		client := connect.NewClient[grpc_health_v1.HealthCheckRequest, grpc_health_v1.HealthCheckResponse](server.Client(), url, options...)
		answer, err := client.CallUnary(context.Background(), connect.NewRequest(&grpc_health_v1.HealthCheckRequest{Service: "e.Echo"}))
		if err != nil {
			seen = append(seen, err.Error())
			continue
		}
		seen = append(seen, answer.Msg.GetStatus().String())
	}
	response, err := http.Post(url, "application/json", strings.NewReader(`{"service":"e.Echo"}`))
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		panic(err)
	}
	seen = append(seen, strings.ReplaceAll(string(body), " ", ""))
	fmt.Println("binary, JSON, the JSON itself:", seen)
	if strings.Join(seen, " ") != `SERVING UNKNOWN {"status":"SERVING_STATUS_SERVING"}` {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
export GOFLAGS=-mod=mod GOTOOLCHAIN=local
go mod tidy > /dev/null 2>&1
go list -m connectrpc.com/connect connectrpc.com/grpchealth google.golang.org/grpc
go run .

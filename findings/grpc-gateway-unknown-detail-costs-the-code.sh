#!/usr/bin/env bash
# Guess: an error of a service keeps its code behind grpc-gateway whatever its details are: a detail whose type the gateway was not built with, as those of
# the plugins of a host are, is left out of the JSON, or stands there in base64 as the Connect protocol has it.
# Seen: with github.com/grpc-ecosystem/grpc-gateway/v2 v2.33.0 (runtime), google.golang.org/grpc v1.85.0 and google.golang.org/protobuf v1.36.12 one such
# detail, beside others that it knows or alone, costs the caller code, text and all details: of not_found, "no such plugin", HTTP 404, is made HTTP 500,
# "failed to marshal error message", code 13. The gateway's own log has the reason. So a service that begins to add a detail turns errors of callers into
# internal ones, which retries and alerts go by. connectrpc.com/connect v1.21.1 gives 404, not_found and the detail in JSON, whoever knows its type.
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
	github.com/grpc-ecosystem/grpc-gateway/v2 v2.33.0
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261110000943-09e21b237f2c
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// details are of a type that this program has, of one that it has not, or of both.
func details(which string) []*anypb.Any {
	known := must(anypb.New(&errdetails.ErrorInfo{Reason: "GONE", Domain: "example.com"}))
	unknown := &anypb.Any{TypeUrl: "type.googleapis.com/example.v1.Hint", Value: known.GetValue()}
	switch which {
	case "known":
		return []*anypb.Any{known}
	case "unknown":
		return []*anypb.Any{unknown}
	default:
		return []*anypb.Any{known, unknown}
	}
}

type service struct {
	grpc_health_v1.UnimplementedHealthServer
}

func (service) Check(_ context.Context, request *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	return nil, status.ErrorProto(&statuspb.Status{Code: int32(codes.NotFound), Message: "no such plugin", Details: details(request.GetService())})
}

func connectCheck(_ context.Context, request *connect.Request[grpc_health_v1.HealthCheckRequest]) (*connect.Response[grpc_health_v1.HealthCheckResponse], error) {
	err := connect.NewError(connect.CodeNotFound, errors.New("no such plugin"))
	for _, detail := range details(request.Msg.GetService()) {
		err.AddDetail(must(connect.NewErrorDetail(detail)))
	}
	return nil, err
}

func say(what string, response *http.Response, err error) string {
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	var body struct {
		Code    any
		Message string
		Details []any
	}
	if err := json.Unmarshal(must(io.ReadAll(response.Body)), &body); err != nil {
		panic(err)
	}
	return fmt.Sprintf("%s: HTTP %d, code %v, %q, details: %d", what, response.StatusCode, body.Code, body.Message, len(body.Details))
}

func main() {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, service{})
	go server.Serve(listener)
	conn := must(grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())))
	gateway := httptest.NewServer(runtime.NewServeMux(runtime.WithHealthzEndpoint(grpc_health_v1.NewHealthClient(conn))))
	inConnect := httptest.NewServer(connect.NewUnaryHandler("/check", connectCheck))

	var seen []string
	for _, which := range []string{"known", "unknown", "both"} {
		response, err := http.Get(gateway.URL + "/healthz?service=" + which)
		seen = append(seen, say("grpc-gateway, "+which, response, err))
		response, err = http.Post(inConnect.URL+"/check", "application/json", strings.NewReader(`{"service":"`+which+`"}`))
		seen = append(seen, say("connect-go, "+which, response, err))
	}
	fmt.Println(strings.Join(seen, "\n"))
	if !slices.Equal(seen, []string{
		`grpc-gateway, known: HTTP 404, code 5, "no such plugin", details: 1`,
		`connect-go, known: HTTP 404, code not_found, "no such plugin", details: 1`,
		`grpc-gateway, unknown: HTTP 500, code 13, "failed to marshal error message", details: 0`,
		`connect-go, unknown: HTTP 404, code not_found, "no such plugin", details: 1`,
		`grpc-gateway, both: HTTP 500, code 13, "failed to marshal error message", details: 0`,
		`connect-go, both: HTTP 404, code not_found, "no such plugin", details: 2`,
	}) {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/grpc-ecosystem/grpc-gateway/v2 google.golang.org/grpc google.golang.org/protobuf connectrpc.com/connect
GOTOOLCHAIN=local timeout 120 go run .

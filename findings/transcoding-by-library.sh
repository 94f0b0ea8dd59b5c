#!/usr/bin/env bash
# Guess: one service with google.api.http in its .proto file takes the same URLs and bodies behind grpc-gateway and behind Vanguard, which is made to
# take its place: what a path, a query and a body mean is written down with that option.
# Seen: with github.com/grpc-ecosystem/grpc-gateway/v2 v2.33.0 and connectrpc.com/vanguard v0.4.0 before one gRPC-Go v1.85.0 server each refuses what the other takes. (1) A
# ":" in the last part of a path, as in /v1/things/a:b or in a time, is for Vanguard the beginning of a verb: 404. (2) A field mask in a query is name,some_name
# for the gateway (name,someName ends with 500), and name,someName for Vanguard. (3) The gateway alone takes labels[k]=v, ttl=1m, flag=1, big=%2B5, sv= and v=5 (a map, a
# duration, a bool, an integer, an empty StringValue, a Value). (4) A parameter that the message has not is ignored by the gateway and ends with 500 in
# Vanguard. (5) POST without a body is an empty message for the gateway, and 500 in Vanguard. (6) PATCH fills in the mask in the gateway alone.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @bufbuild/buf@1.75.0 > /dev/null 2>&1
mkdir -p proto/google/api gen
cat > proto/google/api/annotations.proto <<'EOT'
syntax = "proto3";
package google.api;
import "google/api/http.proto";
import "google/protobuf/descriptor.proto";
option go_package = "google.golang.org/genproto/googleapis/api/annotations;annotations";
extend google.protobuf.MethodOptions { HttpRule http = 72295728; }
EOT
cat > proto/google/api/http.proto <<'EOT'
syntax = "proto3";
package google.api;
option go_package = "google.golang.org/genproto/googleapis/api/annotations;annotations";
message Http { repeated HttpRule rules = 1; bool fully_decode_reserved_expansion = 2; }
message HttpRule {
  string selector = 1;
  oneof pattern { string get = 2; string put = 3; string post = 4; string delete = 5; string patch = 6; CustomHttpPattern custom = 8; }
  string body = 7;
  string response_body = 12;
  repeated HttpRule additional_bindings = 11;
}
message CustomHttpPattern { string kind = 1; string path = 2; }
EOT
cat > proto/e.proto <<'EOT'
syntax = "proto3";
package e;
option go_package = "finding/gen";
import "google/api/annotations.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/wrappers.proto";
message Thing {
  string name = 1;
  string some_name = 2;
  map<string, string> labels = 3;
  google.protobuf.Duration ttl = 4;
  google.protobuf.FieldMask mask = 5;
  bool flag = 6;
  int64 big = 7;
  google.protobuf.StringValue sv = 8;
  google.protobuf.Value v = 9;
  Thing child = 10;
}
service Things {
  rpc Get(Thing) returns (Thing) {
    option (google.api.http) = {get: "/v1/things/{name}"};
  }
  rpc Make(Thing) returns (Thing) {
    option (google.api.http) = {post: "/v1/things" body: "*"};
  }
  rpc Update(Thing) returns (Thing) {
    option (google.api.http) = {patch: "/v1/things/{name}" body: "child"};
  }
}
EOT
cat > gen/x.go <<'EOT'
package gen

import _ "google.golang.org/genproto/googleapis/api/annotations"
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/vanguard v0.4.0
	github.com/grpc-ecosystem/grpc-gateway/v2 v2.33.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)

tool (
	github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway
	google.golang.org/grpc/cmd/protoc-gen-go-grpc
	google.golang.org/protobuf/cmd/protoc-gen-go
)
EOT
cat > buf.gen.yaml <<'EOT'
version: v2
plugins:
  - {local: bin/protoc-gen-go, out: gen, opt: [paths=source_relative]}
  - {local: bin/protoc-gen-go-grpc, out: gen, opt: [paths=source_relative]}
  - {local: bin/protoc-gen-grpc-gateway, out: gen, opt: [paths=source_relative]}
EOT
cat > main.go <<'EOT'
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"connectrpc.com/vanguard/vanguardgrpc"
	"finding/gen"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// things answers each call with what it was asked.
type things struct{ gen.UnimplementedThingsServer }

func (things) Get(_ context.Context, t *gen.Thing) (*gen.Thing, error)    { return t, nil }
func (things) Make(_ context.Context, t *gen.Thing) (*gen.Thing, error)   { return t, nil }
func (things) Update(_ context.Context, t *gen.Thing) (*gen.Thing, error) { return t, nil }

func listen() net.Listener { return must(net.Listen("tcp", "127.0.0.1:0")) }

// ask gives the status, and of a message what is set.
func ask(l net.Listener, method, path, body string) string {
	request := must(http.NewRequest(method, "http://"+l.Addr().String()+path, strings.NewReader(body)))
	request.Header.Set("Content-Type", "application/json")
	response := must(http.DefaultClient.Do(request))
	defer response.Body.Close()
	text := must(io.ReadAll(response.Body))
	if response.StatusCode != http.StatusOK {
		return fmt.Sprint(response.StatusCode)
	}
	var thing gen.Thing
	if err := protojson.Unmarshal(text, &thing); err != nil {
		panic(err)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, must(protojson.Marshal(&thing))); err != nil {
		panic(err)
	}
	return strings.NewReplacer(`,"v":null`, "", `"v":null`, "").Replace(out.String()) // a Value that is not set
}

func main() {
	server := grpc.NewServer()
	gen.RegisterThingsServer(server, things{})
	backend, gateway, vanguard := listen(), listen(), listen()
	go server.Serve(backend)
	mux := runtime.NewServeMux()
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if err := gen.RegisterThingsHandlerFromEndpoint(context.Background(), mux, backend.Addr().String(), options); err != nil {
		panic(err)
	}
	go http.Serve(gateway, mux)
	go http.Serve(vanguard, must(vanguardgrpc.NewTranscoder(server)))
	holds := true
	for _, c := range [][5]string{
		{"GET", "/v1/things/a?some_name=x", "", `{"name":"a","someName":"x"}`, `{"name":"a","someName":"x"}`},
		{"GET", "/v1/things/a:b", "", `{"name":"a:b"}`, "404"},
		{"GET", "/v1/things/a?mask=name,some_name", "", `{"name":"a","mask":"name,someName"}`, "400"},
		{"GET", "/v1/things/a?mask=name,someName", "", "500", `{"name":"a","mask":"name,someName"}`},
		{"GET", "/v1/things/a?labels[k]=v", "", `{"name":"a","labels":{"k":"v"}}`, "500"},
		{"GET", "/v1/things/a?ttl=1m", "", `{"name":"a","ttl":"60s"}`, "400"},
		{"GET", "/v1/things/a?ttl=60s", "", `{"name":"a","ttl":"60s"}`, `{"name":"a","ttl":"60s"}`},
		{"GET", "/v1/things/a?flag=1", "", `{"name":"a","flag":true}`, "400"},
		{"GET", "/v1/things/a?big=%2B5", "", `{"name":"a","big":"5"}`, "400"},
		{"GET", "/v1/things/a?sv=", "", `{"name":"a","sv":""}`, "400"},
		{"GET", "/v1/things/a?v=5", "", `{"name":"a","v":5}`, "400"},
		{"GET", "/v1/things/a?unknown=1", "", `{"name":"a"}`, "500"},
		{"POST", "/v1/things", "", "{}", "500"},
		{"PATCH", "/v1/things/a", `{"flag":true}`, `{"name":"a","mask":"flag","child":{"flag":true}}`, `{"name":"a","child":{"flag":true}}`},
	} {
		first, second := ask(gateway, c[0], c[1], c[2]), ask(vanguard, c[0], c[1], c[2])
		fmt.Printf("%s %s %s: grpc-gateway %s, Vanguard %s\n", c[0], c[1], c[2], first, second)
		holds = holds && first == c[3] && second == c[4]
	}
	if !holds {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
export GOBIN=$dir/bin GOTOOLCHAIN=local
GOFLAGS=-mod=mod go mod tidy > /dev/null 2>&1
go install tool
./node_modules/.bin/buf generate proto --path proto/e.proto
GOFLAGS=-mod=mod go mod tidy > /dev/null 2>&1
go list -m connectrpc.com/vanguard github.com/grpc-ecosystem/grpc-gateway/v2
go build -o finding .
timeout 120 ./finding 2> /dev/null

#!/usr/bin/env bash
# Guess: a client of Connect that has HTTP/2 pings on, so that it notices a dead peer under a watch that is silent, keeps the watch at a server of gRPC-Go
# just as at one of net/http: pings are part of HTTP/2, and who sends them has no call fail for it.
# Seen: a server of google.golang.org/grpc v1.85.0 as it comes takes one ping in five minutes, and ends the connection at the fourth that comes sooner
# ("too_many_pings"), with all calls on it, when nothing was sent to the client meanwhile. connectrpc.com/connect v1.21.1 on net/http of Go 1.26 with
# http.HTTP2Config.SendPingTimeout of 1 s has internal for it, "protocol error: incomplete envelope", and so has @connectrpc/connect-node 2.3.0 with
# pingIntervalMs of 1000, "Session closed with error code 11". So neither looks like a connection that broke, which would be unavailable, the code that
# retry policies take. A server of net/http answers the pings. With keepalive.EnforcementPolicy's MinTime smaller than the interval gRPC-Go does, too.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @connectrpc/connect@2.3.0 @connectrpc/connect-node@2.3.0 @bufbuild/protobuf@2.17.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	google.golang.org/grpc v1.85.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
)

type (
	request  = grpc_health_v1.HealthCheckRequest
	response = grpc_health_v1.HealthCheckResponse
)

const procedure = "/grpc.health.v1.Health/Watch"

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// grpcGo serves health, whose Watch says one thing and is silent then.
func grpcGo(options ...grpc.ServerOption) string {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	server := grpc.NewServer(options...)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	go server.Serve(listener)
	return "http://" + listener.Addr().String()
}

func netHTTP() string {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	server := &http.Server{Protocols: h2c(), Handler: connect.NewServerStreamHandler(procedure, func(ctx context.Context, _ *connect.Request[request], stream *connect.ServerStream[response]) error {
		if err := stream.Send(&response{Status: grpc_health_v1.HealthCheckResponse_SERVING}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	})}
	go server.Serve(listener)
	return "http://" + listener.Addr().String()
}

func h2c() *http.Protocols {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	return &protocols
}

// watch says how a watch of eight seconds ends.
func watch(url string, ping time.Duration) string {
	client := &http.Client{Transport: &http.Transport{Protocols: h2c(), HTTP2: &http.HTTP2Config{SendPingTimeout: ping}}}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	stream := must(connect.NewClient[request, response](client, url+procedure, connect.WithGRPC()).CallServerStream(ctx, connect.NewRequest(&request{})))
	received := 0
	for stream.Receive() {
		received++
	}
	var coded *connect.Error
	if !errors.As(stream.Err(), &coded) {
		return fmt.Sprint("ended with ", stream.Err())
	}
	if strings.Contains(coded.Message(), "too_many_pings") {
		text, _, _ := strings.Cut(coded.Message(), ": http2")
		return fmt.Sprintf("received %d, then %s (%s, too_many_pings)", received, coded.Code(), text)
	}
	return fmt.Sprintf("received %d, then %s", received, coded.Code())
}

func main() {
	plain, lenient, connectGo := grpcGo(), grpcGo(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second / 2})), netHTTP()
	ways := []struct {
		what, want string
		end        func() string
	}{
		{"connect-go without pings, gRPC-Go", "received 1, then deadline_exceeded", func() string { return watch(plain, 0) }},
		{"connect-go with pings, gRPC-Go", "received 1, then internal (protocol error: incomplete envelope, too_many_pings)", func() string { return watch(plain, time.Second) }},
		{"connect-go with pings, gRPC-Go with MinTime", "received 1, then deadline_exceeded", func() string { return watch(lenient, time.Second) }},
		{"connect-go with pings, net/http", "received 1, then deadline_exceeded", func() string { return watch(connectGo, time.Second) }},
	}
	for _, way := range []struct{ what, url, want string }{
		{"gRPC-Go", plain, "received 1, then Internal ([internal] Session closed with error code 11)"},
		{"gRPC-Go with MinTime", lenient, "received 1, then Canceled (it was left after eight seconds)"},
		{"net/http", connectGo, "received 1, then Canceled (it was left after eight seconds)"},
	} {
		ways = append(ways, struct {
			what, want string
			end        func() string
		}{"connect-node with pings, " + way.what, way.want, func() string {
			return strings.TrimSpace(string(must(exec.Command("node", "main.mjs", way.url).Output())))
		}})
	}
	ends := make([]chan string, len(ways))
	for i, way := range ways {
		ends[i] = make(chan string, 1)
		go func() { ends[i] <- way.end() }()
	}
	changed := false
	for i, way := range ways {
		end := <-ends[i]
		fmt.Printf("%s: %s\n", way.what, end)
		changed = changed || end != way.want
	}
	if changed {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
cat > main.mjs <<'EOT'
import { create, createFileRegistry } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, FileDescriptorSetSchema, file_google_protobuf_empty } from '@bufbuild/protobuf/wkt';
import { Code, createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';

// The messages of health are read as empty ones: all that counts here is that they come.
const type = '.google.protobuf.Empty';
const file = create(FileDescriptorProtoSchema, {
  name: 'h.proto', package: 'grpc.health.v1', syntax: 'proto3', dependency: ['google/protobuf/empty.proto'],
  service: [{ name: 'Health', method: [{ name: 'Watch', inputType: type, outputType: type, serverStreaming: true }] }],
});
const service = createFileRegistry(create(FileDescriptorSetSchema, { file: [file_google_protobuf_empty.proto, file] })).getService('grpc.health.v1.Health');
const client = createClient(service, createGrpcTransport({ baseUrl: process.argv[2], pingIntervalMs: 1000 }));
const left = AbortSignal.timeout(8000);
let received = 0;
try {
  for await (const _ of client.watch({}, { signal: left })) received++;
  console.log('ended well');
} catch (e) {
  console.log(`received ${received}, then ${Code[e.code]} (${left.aborted ? 'it was left after eight seconds' : e.message})`);
}
process.exit(0);
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go version
go list -m connectrpc.com/connect google.golang.org/grpc
node -p "'node ' + process.version + ', connect-node ' + JSON.parse(require('fs').readFileSync('node_modules/@connectrpc/connect-node/package.json')).version"
GOTOOLCHAIN=local timeout 120 go run .

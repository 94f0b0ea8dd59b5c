#!/usr/bin/env bash
# Guess: what a host in Go and a plugin in Node have to tell a collector of OpenTelemetry by OTLP over HTTP survives that it restarts, in both: the specification has clients try again where they
# cannot connect, and where they are told how long to wait (503 with Retry-After) wait that long.
# Seen: go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp v1.47.0 gives up at once where the connection is refused, or closed without an answer: the spans are lost, with an error.
# otlptracegrpc v1.47.0 and @opentelemetry/exporter-trace-otlp-proto 0.223.1 (npm) try again, and the collector has them when it is back. Told to come back after 1 s, Node does; Go's exporter over
# HTTP waits for the longer of that and its own pause, which is 5 s more or less as it comes (10 s here, so that it shows).
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @opentelemetry/exporter-trace-otlp-proto@0.223.1 @opentelemetry/sdk-trace-base@2.12.1 @opentelemetry/api@1.9.1 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc v1.47.0
	go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp v1.47.0
	go.opentelemetry.io/otel/sdk v1.47.0
	go.opentelemetry.io/proto/otlp v1.11.0
	google.golang.org/grpc v1.85.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

var spans = []sdk.ReadOnlySpan{tracetest.SpanStub{Name: "call"}.Snapshot()}

// exporters send one span each to an address.
var exporters = []struct {
	name   string
	export func(ctx context.Context, address string) error
}{
	{"Go, HTTP", func(ctx context.Context, address string) error {
		exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpoint(address), otlptracehttp.WithInsecure(), otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled:         true,
			InitialInterval: 10 * time.Second,
			MaxInterval:     10 * time.Second,
			MaxElapsedTime:  time.Minute,
		}))
		must(err)
		return exporter.ExportSpans(ctx, spans)
	}},
	{"Go, gRPC", func(ctx context.Context, address string) error {
		exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpoint(address), otlptracegrpc.WithInsecure())
		must(err)
		return exporter.ExportSpans(ctx, spans)
	}},
	{"Node, HTTP", func(ctx context.Context, address string) error {
		node := exec.CommandContext(ctx, "node", "main.cjs", "http://"+address+"/v1/traces")
		node.Stderr = os.Stderr
		return node.Run()
	}},
}

// service is a collector that may treat its first request in its own way.
type service struct {
	collector.UnimplementedTraceServiceServer
	first http.HandlerFunc

	mu    sync.Mutex
	times []time.Time
}

func (s *service) came() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times = append(s.times, time.Now())
	return len(s.times)
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.came() == 1 && s.first != nil {
		s.first(w, r)
	}
}

func (s *service) Export(context.Context, *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.came()
	return &collector.ExportTraceServiceResponse{}, nil
}

func (s *service) serve(listener net.Listener, name string) {
	if name == "Go, gRPC" {
		server := grpc.NewServer()
		collector.RegisterTraceServiceServer(server, s)
		go server.Serve(listener)
		return
	}
	go http.Serve(listener, s)
}

func main() {
	for _, e := range exporters {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		must(err)
		address := listener.Addr().String()
		listener.Close()
		s := &service{}
		back := time.AfterFunc(500*time.Millisecond, func() {
			listener, err := net.Listen("tcp", address)
			must(err)
			s.serve(listener, e.name)
		})
		ctx, cancel := context.WithTimeout(context.Background(), 110*time.Second)
		err = e.export(ctx, address)
		cancel()
		back.Stop()
		fmt.Printf("%s, refused at first: arrived %t, error %t\n", e.name, len(s.times) > 0, err != nil)
	}

	for _, e := range []int{0, 2} {
		s, err := run(e, func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			must(err)
			conn.Close()
		})
		fmt.Printf("%s, closed at first: requests %d, error %t\n", exporters[e].name, len(s.times), err != nil)
	}
	for _, e := range []int{0, 2} {
		s, err := run(e, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		fmt.Printf("%s, 503 with Retry-After 1 at first: requests %d, error %t, within 4.5 s %t\n", exporters[e].name, len(s.times), err != nil, s.times[1].Sub(s.times[0]) < 4500*time.Millisecond)
	}
}

func run(exporter int, first http.HandlerFunc) (*service, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	s := &service{first: first}
	s.serve(listener, exporters[exporter].name)
	ctx, cancel := context.WithTimeout(context.Background(), 110*time.Second)
	defer cancel()
	return s, exporters[exporter].export(ctx, listener.Addr().String())
}
EOT
cat > main.cjs <<'EOT'
const { OTLPTraceExporter } = require('@opentelemetry/exporter-trace-otlp-proto');
const { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } = require('@opentelemetry/sdk-trace-base');

const memory = new InMemorySpanExporter();
const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(memory)] });
provider.getTracer('plugin').startSpan('call').end();
provider.forceFlush().then(() => {
  new OTLPTraceExporter({ url: process.argv[2], timeoutMillis: 60000 }).export(memory.getFinishedSpans(), (result) => process.exit(result.code));
});
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc
node -p '"@opentelemetry/exporter-trace-otlp-proto " + JSON.parse(require("fs").readFileSync("node_modules/@opentelemetry/exporter-trace-otlp-proto/package.json")).version'
GOTOOLCHAIN=local go build -o exporters .
timeout 400 ./exporters | tee seen
cat > want <<'EOT'
Go, HTTP, refused at first: arrived false, error true
Go, gRPC, refused at first: arrived true, error false
Node, HTTP, refused at first: arrived true, error false
Go, HTTP, closed at first: requests 1, error true
Node, HTTP, closed at first: requests 2, error false
Go, HTTP, 503 with Retry-After 1 at first: requests 2, error false, within 4.5 s false
Node, HTTP, 503 with Retry-After 1 at first: requests 2, error false, within 4.5 s true
EOT
cmp -s seen want || { echo CHANGED; exit 1; }

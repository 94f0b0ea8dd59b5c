#!/usr/bin/env bash
# Guess: the variables by which an operator sets OpenTelemetry, OTEL_ and the rest, mean the same to a host in Go and to its plugins in Node, as the
# specification describes each of them; what one has not it refuses or leaves alone with a word.
# Seen: go.opentelemetry.io/otel/sdk v1.47.0 with contrib's autoexport v0.72.0 and @opentelemetry/sdk-node 0.301.0 (npm) go separate ways, most of them in
# silence. (1) One entry of OTEL_RESOURCE_ATTRIBUTES without a value, or with a "%" that encodes nothing, costs Node all of them, service.name with it, so
# that its spans are of "unknown_service"; Go keeps the others. (2) OTEL_SDK_DISABLED=true ends Node's telemetry, and not Go's. (3)
# OTEL_TRACES_SAMPLER=ALWAYS_OFF in capital letters turns Go's traces off, and leaves Node's on. (4) OTEL_TRACES_EXPORTER=otlp,console, two of them, and
# OTEL_EXPORTER_OTLP_PROTOCOL=http/json are errors in Go and work in Node.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @opentelemetry/{api@1.10.0,sdk-node@0.301.0} > /dev/null 2>&1
cat > main.mjs <<'EOT'
import { trace } from '@opentelemetry/api';
import { NodeSDK } from '@opentelemetry/sdk-node';

const sdk = new NodeSDK();
sdk.start();
trace.getTracer('t').startSpan('call').end();
await sdk.shutdown();
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	go.opentelemetry.io/contrib/exporters/autoexport v0.72.0
	go.opentelemetry.io/otel/sdk v1.47.0
	go.opentelemetry.io/proto/otlp v1.11.1
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// table has variables, and what comes from Go and from Node: the service that a span is of, or nothing.
var table = [][3]string{
	{"OTEL_SERVICE_NAME=kv", "kv", "kv"},
	{"OTEL_RESOURCE_ATTRIBUTES=service.name=kv,team=a", "kv", "kv"},
	{"OTEL_RESOURCE_ATTRIBUTES=service.name=kv,team", "kv", "unknown_service"},
	{"OTEL_RESOURCE_ATTRIBUTES=service.name=kv,share=50%", "kv", "unknown_service"},
	{"OTEL_SDK_DISABLED=true", "unknown_service", "nothing"},
	{"OTEL_TRACES_SAMPLER=always_off", "nothing", "nothing"},
	{"OTEL_TRACES_SAMPLER=ALWAYS_OFF", "nothing", "unknown_service"},
	{"OTEL_TRACES_EXPORTER=otlp,console", "refused", "unknown_service"},
	{"OTEL_EXPORTER_OTLP_PROTOCOL=http/json", "refused", "unknown_service"},
}

func main() {
	if len(os.Args) > 1 {
		program()
		return
	}
	var mu sync.Mutex
	var from string
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data := must(io.ReadAll(r.Body))
		var request collector.ExportTraceServiceRequest
		unmarshal := proto.Unmarshal
		if r.Header.Get("Content-Type") == "application/json" {
			unmarshal = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal
		}
		if err := unmarshal(data, &request); err != nil {
			panic(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, spans := range request.ResourceSpans {
			for _, attribute := range spans.Resource.Attributes {
				if attribute.Key == "service.name" {
					from, _, _ = strings.Cut(attribute.Value.GetStringValue(), ":")
				}
			}
		}
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	}))
	holds := true
	for _, row := range table {
		var seen [2]string
		for i, cmd := range []*exec.Cmd{exec.Command(os.Args[0], "program"), exec.Command("node", "main.mjs")} {
			mu.Lock()
			from = "nothing"
			mu.Unlock()
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "OTEL_METRICS_EXPORTER=none", "OTEL_LOGS_EXPORTER=none",
				"OTEL_NODE_RESOURCE_DETECTORS=env", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_EXPORTER_OTLP_ENDPOINT=http://" + l.Addr().String(), row[0]}
			out, _ := cmd.CombinedOutput()
			mu.Lock()
			if seen[i] = from; strings.HasPrefix(string(out), "refused") {
				seen[i] = "refused"
			}
			mu.Unlock()
		}
		fmt.Printf("%s: Go %s, Node %s\n", row[0], seen[0], seen[1])
		holds = holds && seen[0] == row[1] && seen[1] == row[2]
	}
	if !holds {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}

// program is one in Go that goes by its environment.
func program() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	exporter, err := autoexport.NewSpanExporter(ctx)
	if err != nil {
		fmt.Println("refused:", err)
		return
	}
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter))
	_, span := provider.Tracer("t").Start(ctx, "call")
	span.End()
	if err := provider.Shutdown(ctx); err != nil {
		fmt.Println("shutdown:", err)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m go.opentelemetry.io/otel/sdk go.opentelemetry.io/contrib/exporters/autoexport
node -p "'sdk-node ' + JSON.parse(require('fs').readFileSync('node_modules/@opentelemetry/sdk-node/package.json')).version"
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding

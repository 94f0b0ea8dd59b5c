#!/usr/bin/env bash
# Guess: OpenTelemetry's configuration file, which was made so that one file serves each language, sets up a host in Go and its plugins in Node alike:
# variables that it names are put in once it has been read as YAML, as the specification says, and what one has not it refuses.
# Seen: go.opentelemetry.io/contrib/otelconf v0.27.0 and @opentelemetry/sdk-node 0.301.0 (npm) differ. (1) Go puts variables into the text, before it is YAML: a value "a #1"
# loses what comes after the blank, "a: b" and the "'" of "it's" in quotes are errors, and 0123 is 83. Node has the values as they are (0123 is 123). One that is
# not set is the text "<nil>" in Go, and left out in Node. (2) Go takes resource.attributes_list and has no attributes of it, and of a list of
# integers it makes a text. (3) encoding: json, and a "=" in headers_list, as in Basic YWJj==, are refused by Go. (4) A field that the
# schema has not, and file_format: 1.0 without quotes, are refused by Node, so that it has no telemetry, and taken by Go.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @opentelemetry/{api@1.10.0,sdk-node@0.301.0} > /dev/null 2>&1
cat > main.mjs <<'EOT'
import { trace } from '@opentelemetry/api';
import { startNodeSDK } from '@opentelemetry/sdk-node';

const sdk = startNodeSDK({});
trace.getTracer('t').startSpan('call').end();
await sdk.shutdown();
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	go.opentelemetry.io/contrib/otelconf v0.27.0
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
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/otelconf"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// file is one of OpenTelemetry's configuration, with more below its resource, its provider and its exporter.
const file = `file_format: %[5]s
resource:%[2]s
  attributes:
    - {name: service.name, value: kv}%[1]s
tracer_provider:
  processors:
    - simple:
        exporter:
          otlp_http:
            endpoint: http://%[6]s/v1/traces%[3]s%[4]s
`

const team = "\n    - name: team\n      value: ${TEAM}"

// table has what stands in the file, a variable, and what comes from Go and from Node: the resource's attributes, or "refused".
var table = []struct{ attribute, resource, exporter, provider, format, variable, inGo, inNode string }{
	{attribute: team, variable: "TEAM=a", inGo: "service.name=kv team=a", inNode: "service.name=kv team=a"},
	{attribute: team, variable: "TEAM=a #1", inGo: "service.name=kv team=a", inNode: "service.name=kv team=a #1"},
	{attribute: team, variable: "TEAM=a: b", inGo: "refused", inNode: "service.name=kv team=a: b"},
	{attribute: team, variable: "TEAM=0123", inGo: "service.name=kv team=83", inNode: "service.name=kv team=123"},
	{attribute: "\n    - name: team\n      value: '${TEAM}'", variable: "TEAM=it's", inGo: "refused", inNode: "service.name=kv team=it's"},
	{attribute: team, variable: "OTHER=", inGo: "service.name=kv team=<nil>", inNode: "service.name=kv"},
	{resource: "\n  attributes_list: team=a", inGo: "service.name=kv", inNode: "service.name=kv team=a"},
	{attribute: "\n    - {name: shares, value: [1, 2], type: int_array}", inGo: "service.name=kv shares=[1 2]", inNode: "service.name=kv shares=values:{int_value:1} values:{int_value:2}"},
	{exporter: "\n            encoding: json", inGo: "refused", inNode: "spans in JSON"},
	{exporter: "\n            headers_list: authorization=Basic YWJj==", inGo: "refused", inNode: "service.name=kv"},
	{provider: "\n  colour: red", inGo: "service.name=kv", inNode: "refused"},
	{format: "1.0", inGo: "service.name=kv", inNode: "refused"},
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
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		if r.Header.Get("Content-Type") == "application/json" {
			from = "spans in JSON"
			return
		}
		var request collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(data, &request); err != nil {
			panic(err)
		}
		var attributes []string
		for _, a := range request.ResourceSpans[0].Resource.Attributes {
			switch v := a.Value; {
			case strings.HasPrefix(a.Key, "telemetry."):
			case v.GetArrayValue() != nil:
				attributes = append(attributes, a.Key+"="+strings.ReplaceAll(v.GetArrayValue().String(), "  ", " "))
			case v.GetIntValue() != 0:
				attributes = append(attributes, fmt.Sprint(a.Key, "=", v.GetIntValue()))
			default:
				attributes = append(attributes, a.Key+"="+v.GetStringValue())
			}
		}
		slices.Sort(attributes)
		from = strings.Join(attributes, " ")
	}))
	holds := true
	for _, row := range table {
		if row.format == "" {
			row.format = `"1.0"`
		}
		text := fmt.Sprintf(file, row.attribute, row.resource, row.exporter, row.provider, row.format, l.Addr())
		if err := os.WriteFile("config.yaml", []byte(text), 0o644); err != nil {
			panic(err)
		}
		var seen [2]string
		for i, cmd := range []*exec.Cmd{exec.Command(os.Args[0], "program"), exec.Command("node", "main.mjs")} {
			mu.Lock()
			from = "nothing"
			mu.Unlock()
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "OTEL_CONFIG_FILE=config.yaml", row.variable}
			out, _ := cmd.CombinedOutput()
			mu.Lock()
			if seen[i] = from; strings.HasPrefix(string(out), "refused") || strings.HasPrefix(string(out), "Could not load") {
				seen[i] = "refused"
			}
			mu.Unlock()
		}
		what := strings.Join(strings.Fields(row.attribute+row.resource+row.exporter+row.provider), " ")
		fmt.Printf("file_format: %s %s, %s: Go %s; Node %s\n", row.format, what, row.variable, seen[0], seen[1])
		holds = holds && seen[0] == row.inGo && seen[1] == row.inNode
	}
	if !holds {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}

// program is one in Go that goes by the file.
func program() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	config, err := otelconf.ParseYAML(must(os.ReadFile(os.Getenv("OTEL_CONFIG_FILE"))))
	if err != nil {
		fmt.Println("refused:", err)
		return
	}
	sdk, err := otelconf.NewSDK(otelconf.WithContext(ctx), otelconf.WithOpenTelemetryConfiguration(*config))
	if err != nil {
		fmt.Println("refused:", err)
		return
	}
	_, span := sdk.TracerProvider().Tracer("t").Start(ctx, "call")
	span.End()
	sdk.Shutdown(ctx)
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m go.opentelemetry.io/contrib/otelconf
echo "@opentelemetry/sdk-node $(node -p 'require("./node_modules/@opentelemetry/sdk-node/package.json").version')"
GOTOOLCHAIN=local go build -o finding .
timeout 180 ./finding

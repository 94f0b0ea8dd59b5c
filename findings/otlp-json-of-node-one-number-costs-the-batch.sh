#!/usr/bin/env bash
# Guess: what OpenTelemetry in Node exports as OTLP in JSON, the form of its exporters over HTTP, is read by a collector in Go as what the same exporter sends as protobuf: at
# worst an attribute that JSON has no number for costs itself.
# Seen: with @opentelemetry/otlp-transformer 0.223.1 and sdk-trace 3.1.1 (npm) an attribute that is NaN or Infinity, as a ratio of nothing is, is written "doubleValue": null, where
# protobuf's JSON has "NaN" and "Infinity", and one of 2^63 and more "intValue": 100000000000000000000. go.opentelemetry.io/collector/pdata v1.71.0, which the Collector reads with,
# refuses the request for it, with all spans of the batch, and so it does for 1e20; google.golang.org/protobuf v1.36.12 (protojson) takes null for no value and refuses 1e20. In
# protobuf all of it arrives as it was set. (An attribute that is a whole number is an int in both, and a double where it is not.)
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save node@22.23.3 @opentelemetry/api@1.10.0 @opentelemetry/sdk-trace@3.1.1 @opentelemetry/otlp-transformer@0.223.1 > /dev/null 2>&1
cat > main.cjs <<'EOM'
'use strict';
const { writeFileSync } = require('node:fs');
const { TracerProvider, SimpleSpanProcessor, InMemorySpanExporter } = require('@opentelemetry/sdk-trace');
const { JsonTraceSerializer, ProtobufTraceSerializer } = require('@opentelemetry/otlp-transformer');
for (const [name, load] of Object.entries({ half: 0.5, one: 1, NaN: NaN, Infinity: Infinity, '1e20': 1e20 })) {
  const exporter = new InMemorySpanExporter();
  const tracer = new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] }).getTracer('t');
  for (const attributes of [{}, { load }, {}]) tracer.startSpan('s', { attributes }).end();
  const spans = exporter.getFinishedSpans();
  const json = JsonTraceSerializer.serializeRequest(spans);
  writeFileSync(name + '.json', json);
  writeFileSync(name + '.bin', ProtobufTraceSerializer.serializeRequest(spans));
  console.log(`${name}: written as ${/"load","value":(\{[^}]*\})/.exec(Buffer.from(json).toString())[1]}`);
}
EOM
cat > go.mod <<'EOM'
module finding

go 1.26.0

require (
	go.opentelemetry.io/collector/pdata v1.71.0
	go.opentelemetry.io/proto/otlp v1.11.1
	google.golang.org/protobuf v1.36.12
)
EOM
cat > main.go <<'EOM'
package main

import (
	"fmt"
	"os"

	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// said says how many spans were read, and what the attribute of the second is.
func said(r ptraceotlp.ExportRequest, err error) string {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return "refused"
	}
	spans := r.Traces().ResourceSpans().At(0).ScopeSpans().At(0).Spans()
	value, _ := spans.At(1).Attributes().Get("load")
	return fmt.Sprintf("%d spans, %s %s", spans.Len(), value.Type(), value.AsString())
}

func main() {
	for _, name := range os.Args[1:] {
		text, binary := must(os.ReadFile(name+".json")), must(os.ReadFile(name+".bin"))
		asJSON, asProto := ptraceotlp.NewExportRequest(), ptraceotlp.NewExportRequest()
		first := said(asJSON, asJSON.UnmarshalJSON(text))
		second := said(asProto, asProto.UnmarshalProto(binary))
		third := "refused"
		var m collector.ExportTraceServiceRequest
		if err := protojson.Unmarshal(text, &m); err == nil {
			third = fmt.Sprintf("%d spans", len(m.GetResourceSpans()[0].GetScopeSpans()[0].GetSpans()))
		}
		fmt.Printf("%s: pdata in JSON: %s | in protobuf: %s | protojson: %s\n", name, first, second, third)
	}
}
EOM
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m go.opentelemetry.io/collector/pdata google.golang.org/protobuf
for package in @opentelemetry/otlp-transformer @opentelemetry/sdk-trace; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
node_modules/.bin/node main.cjs > seen
GOTOOLCHAIN=local timeout 120 go run . half one NaN Infinity 1e20 >> seen
cat seen
cat > want <<'EOM'
half: written as {"doubleValue":0.5}
one: written as {"intValue":1}
NaN: written as {"doubleValue":null}
Infinity: written as {"doubleValue":null}
1e20: written as {"intValue":100000000000000000000}
half: pdata in JSON: 3 spans, Double 0.5 | in protobuf: 3 spans, Double 0.5 | protojson: 3 spans
one: pdata in JSON: 3 spans, Int 1 | in protobuf: 3 spans, Int 1 | protojson: 3 spans
NaN: pdata in JSON: refused | in protobuf: 3 spans, Double NaN | protojson: 3 spans
Infinity: pdata in JSON: refused | in protobuf: 3 spans, Double Infinity | protojson: 3 spans
1e20: pdata in JSON: refused | in protobuf: 3 spans, Double 100000000000000000000 | protojson: refused
EOM
cmp -s seen want || { echo CHANGED; exit 1; }

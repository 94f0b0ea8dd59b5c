#!/usr/bin/env bash
# Guess: what Node's exporters of OpenTelemetry send as JSON, which OTLP has beside protobuf and which is the default of exporter-trace-otlp-http and its kin, the collector, which is in Go, reads to
# the same values as protobuf.
# Seen: @opentelemetry/otlp-transformer 0.223.1 (npm) writes NaN and Infinity as null, where the mapping of protobuf has the texts "NaN" and "Infinity", and a number beyond 64 bits, such as
# 1e20, as intValue. go.opentelemetry.io/collector/pdata v1.71.0, which the collector's receiver reads it with, refuses the request for it, and so all spans or points in it: one gauge that is NaN costs each
# export of that plugin's metrics. As protobuf the same values arrive, 1e20 as a double.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @opentelemetry/otlp-transformer@0.223.1 @opentelemetry/sdk-trace-base@2.12.1 @opentelemetry/sdk-metrics@2.12.1 @opentelemetry/api@1.9.1 > /dev/null 2>&1
cat > main.cjs <<'EOT'
const { writeFileSync } = require('node:fs');
const { JsonMetricsSerializer, JsonTraceSerializer, ProtobufMetricsSerializer, ProtobufTraceSerializer } = require('@opentelemetry/otlp-transformer');
const { MeterProvider, MetricReader } = require('@opentelemetry/sdk-metrics');
const { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } = require('@opentelemetry/sdk-trace-base');

class Reader extends MetricReader {
  async onForceFlush() {}
  async onShutdown() {}
}
const base64 = (bytes) => Buffer.from(bytes).toString('base64');

(async () => {
  const requests = [];
  for (const value of [1.5, 5, NaN, Infinity, 1e20]) {
    const memory = new InMemorySpanExporter();
    const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(memory)] });
    provider.getTracer('plugin').startSpan('call', { attributes: { value } }).end();
    const spans = memory.getFinishedSpans();
    requests.push({ signal: 'span', value: String(value), json: base64(JsonTraceSerializer.serializeRequest(spans)), protobuf: base64(ProtobufTraceSerializer.serializeRequest(spans)) });

    const reader = new Reader();
    new MeterProvider({ readers: [reader] }).getMeter('plugin').createGauge('value').record(value);
    const { resourceMetrics } = await reader.collect();
    requests.push({ signal: 'gauge', value: String(value), json: base64(JsonMetricsSerializer.serializeRequest(resourceMetrics)), protobuf: base64(ProtobufMetricsSerializer.serializeRequest(resourceMetrics)) });
  }
  writeFileSync('requests.json', JSON.stringify(requests));
})();
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require go.opentelemetry.io/collector/pdata v1.71.0
EOT
cat > main.go <<'EOT'
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func span(unmarshal func(ptraceotlp.ExportRequest) error) string {
	request := ptraceotlp.NewExportRequest()
	if err := unmarshal(request); err != nil {
		return "refused"
	}
	value, ok := request.Traces().ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0).Attributes().Get("value")
	return fmt.Sprint(value.AsString(), " ", value.Type(), " ", ok)
}

func gauge(unmarshal func(pmetricotlp.ExportRequest) error) string {
	request := pmetricotlp.NewExportRequest()
	if err := unmarshal(request); err != nil {
		return "refused"
	}
	point := request.Metrics().ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Gauge().DataPoints().At(0)
	return fmt.Sprint(point.DoubleValue(), " ", point.ValueType())
}

func main() {
	data, err := os.ReadFile("requests.json")
	must(err)
	var requests []struct {
		Signal, Value  string
		JSON, Protobuf []byte
	}
	must(json.Unmarshal(data, &requests))
	for _, r := range requests {
		var asJSON, asProtobuf string
		if r.Signal == "span" {
			asJSON = span(func(e ptraceotlp.ExportRequest) error { return e.UnmarshalJSON(r.JSON) })
			asProtobuf = span(func(e ptraceotlp.ExportRequest) error { return e.UnmarshalProto(r.Protobuf) })
		} else {
			asJSON = gauge(func(e pmetricotlp.ExportRequest) error { return e.UnmarshalJSON(r.JSON) })
			asProtobuf = gauge(func(e pmetricotlp.ExportRequest) error { return e.UnmarshalProto(r.Protobuf) })
		}
		fmt.Printf("%s %s: as JSON %s, as protobuf %s\n", r.Signal, r.Value, asJSON, asProtobuf)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m go.opentelemetry.io/collector/pdata
node -p '"@opentelemetry/otlp-transformer " + JSON.parse(require("fs").readFileSync("node_modules/@opentelemetry/otlp-transformer/package.json")).version'
timeout 120 node main.cjs
GOTOOLCHAIN=local timeout 120 go run . | tee seen
cat > want <<'EOT'
span 1.5: as JSON 1.5 Double true, as protobuf 1.5 Double true
gauge 1.5: as JSON 1.5 Double, as protobuf 1.5 Double
span 5: as JSON 5 Int true, as protobuf 5 Int true
gauge 5: as JSON 5 Double, as protobuf 5 Double
span NaN: as JSON refused, as protobuf NaN Double true
gauge NaN: as JSON refused, as protobuf NaN Double
span Infinity: as JSON refused, as protobuf Infinity Double true
gauge Infinity: as JSON refused, as protobuf +Inf Double
span 100000000000000000000: as JSON refused, as protobuf 100000000000000000000 Double true
gauge 100000000000000000000: as JSON 1e+20 Double, as protobuf 1e+20 Double
EOT
cmp -s seen want || { echo CHANGED; exit 1; }

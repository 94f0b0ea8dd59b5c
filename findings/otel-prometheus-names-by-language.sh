#!/usr/bin/env bash
# Guess: one instrument of OpenTelemetry has one name in Prometheus, whichever language's exporter shows it, so that one query finds
# a host in Go and its plugins in Node: the specification of the translation is the same.
# Seen: go.opentelemetry.io/otel/exporters/prometheus v0.69.0 puts the unit behind the name, as asked for: rpc.server.call.duration in s is
# rpc_server_call_duration_seconds, a gauge in 1 ends with _ratio, a counter in By with _bytes_total. @opentelemetry/exporter-prometheus
# 0.301.0 (SDK 3.1.1) has rpc_server_call_duration, and no unit elsewhere. And of two attributes that become one label, as peer.name and
# peer_name, Go makes one label with both values; Node writes the label twice, whereupon the parser of Prometheus' own library
# (github.com/prometheus/common v0.74.0) refuses the page.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
case "$(uname -m)" in aarch64) platform=linux-arm64 ;; *) platform=linux-x64 ;; esac
npm install --silent --no-audit --no-fund --no-save @opentelemetry/api@1.10.0 @opentelemetry/exporter-prometheus@0.301.0 @opentelemetry/sdk-metrics@3.1.1 "node-$platform@22.23.3" > /dev/null 2>&1
cat > main.mjs <<'EOT'
import { PrometheusExporter } from '@opentelemetry/exporter-prometheus';
import { MeterProvider } from '@opentelemetry/sdk-metrics';

const exporter = new PrometheusExporter({ preventServerStart: true });
const meter = new MeterProvider({ readers: [exporter] }).getMeter('plugin');
meter.createHistogram('rpc.server.call.duration', { unit: 's' }).record(1);
meter.createGauge('plugin.load', { unit: '1' }).record(1);
meter.createCounter('plugin.sent', { unit: 'By' }).add(1);
if (process.argv[2] === 'both') meter.createCounter('plugin.calls').add(1, { 'peer.name': 'a', peer_name: 'b' });
exporter.getMetricsRequestHandler({ headers: {} }, { statusCode: 0, setHeader() {}, end(text) { process.stdout.write(text); } });
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/prometheus/client_golang v1.25.0
	github.com/prometheus/common v0.74.0
	go.opentelemetry.io/otel v1.47.0
	go.opentelemetry.io/otel/exporters/prometheus v0.69.0
	go.opentelemetry.io/otel/metric v1.47.0
	go.opentelemetry.io/otel/sdk/metric v1.47.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.opentelemetry.io/otel/attribute"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// inGo does as main.mjs, and returns the page.
func inGo(both bool) string {
	ctx := context.Background()
	registry := prometheus.NewRegistry()
	meter := sdk.NewMeterProvider(sdk.WithReader(must(exporter.New(exporter.WithRegisterer(registry))))).Meter("plugin")
	must(meter.Float64Histogram("rpc.server.call.duration", metric.WithUnit("s"))).Record(ctx, 1)
	must(meter.Float64Gauge("plugin.load", metric.WithUnit("1"))).Record(ctx, 1)
	must(meter.Int64Counter("plugin.sent", metric.WithUnit("By"))).Add(ctx, 1)
	if both {
		must(meter.Int64Counter("plugin.calls")).Add(ctx, 1, metric.WithAttributes(attribute.String("peer.name", "a"), attribute.String("peer_name", "b")))
	}
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func inNode(arg ...string) string {
	return string(must(exec.Command(os.Args[1], append([]string{"main.mjs"}, arg...)...).Output()))
}

// names returns the names on the page, or why there are none.
func names(page string) string {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(page))
	if err != nil {
		return err.Error()
	}
	delete(families, "target_info")
	return strings.Join(slices.Sorted(maps.Keys(families)), " ")
}

func line(page, beginning string) string {
	for l := range strings.Lines(page) {
		if strings.HasPrefix(l, beginning) {
			return strings.TrimSpace(l)
		}
	}
	return "no " + beginning
}

func main() {
	both := inNode("both")
	seen := []string{
		"Go:   " + names(inGo(false)),
		"Node: " + names(inNode()),
		"Go:   " + line(inGo(true), "plugin_calls_total{"),
		"Node: " + line(both, "plugin_calls_total{"),
		"Node's page is read: " + names(both),
	}
	fmt.Println(strings.Join(seen, "\n"))
	const duplicate = `duplicate label names for metric "plugin_calls_total"`
	holds := seen[0] == "Go:   plugin_load_ratio plugin_sent_bytes_total rpc_server_call_duration_seconds" &&
		seen[1] == "Node: plugin_load plugin_sent_total rpc_server_call_duration" &&
		strings.Contains(seen[2], `peer_name="a;b"`) && strings.Contains(seen[3], `peer_name="a",peer_name="b"`) && strings.HasSuffix(seen[4], duplicate)
	if !holds {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
sed -i 's/w.Body.String()/w.Body.String()/; /^\t"io"$/d' main.go
export GOTOOLCHAIN=local GOFLAGS=-mod=mod
go mod tidy > /dev/null 2>&1
node=node_modules/node-$platform/bin/node
"$node" -p '"node " + process.version + " exporter-prometheus " + require("./node_modules/@opentelemetry/exporter-prometheus/package.json").version'
go list -m go.opentelemetry.io/otel/exporters/prometheus github.com/prometheus/common
go run . "$node"

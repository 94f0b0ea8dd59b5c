#!/usr/bin/env bash
# Guess: the constructors of instruments that OpenTelemetry generates from its semantic conventions (rpcconv and httpconv of
# go.opentelemetry.io/otel/semconv) take a caller's options over the conventions' advice, as metric.Meter.Float64Histogram does,
# where the last option counts: with bucket boundaries given, those are used.
# Seen: go.opentelemetry.io/otel v1.47.0 with semconv/v1.43.0 puts the conventions' own options behind the caller's, so that
# metric.WithExplicitBucketBoundaries is taken without an error and has no effect, in rpcconv.NewServerCallDuration as in
# httpconv.NewServerRequestDuration: the boundaries stay 0.005 to 10. Only a view of the SDK, or the meter's own method, changes them.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	go.opentelemetry.io/otel v1.47.0
	go.opentelemetry.io/otel/metric v1.47.0
	go.opentelemetry.io/otel/sdk/metric v1.47.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/semconv/v1.43.0/httpconv"
	"go.opentelemetry.io/otel/semconv/v1.43.0/rpcconv"
)

func bounds(make func(m metric.Meter) (metric.Float64Histogram, error)) []float64 {
	reader := sdk.NewManualReader()
	meter := sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("finding")
	h, err := make(meter)
	if err != nil {
		panic(err)
	}
	h.Record(context.Background(), 0.3)
	var out metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &out); err != nil {
		panic(err)
	}
	return out.ScopeMetrics[0].Metrics[0].Data.(metricdata.Histogram[float64]).DataPoints[0].Bounds
}

func main() {
	given := metric.WithExplicitBucketBoundaries(1, 2)
	seen := fmt.Sprintln("Meter.Float64Histogram", bounds(func(m metric.Meter) (metric.Float64Histogram, error) {
		return m.Float64Histogram("x", metric.WithExplicitBucketBoundaries(7, 8), given)
	}))
	seen += fmt.Sprintln("rpcconv.NewServerCallDuration", bounds(func(m metric.Meter) (metric.Float64Histogram, error) {
		d, err := rpcconv.NewServerCallDuration(m, given)
		return d.Inst(), err
	}))
	seen += fmt.Sprintln("httpconv.NewServerRequestDuration", bounds(func(m metric.Meter) (metric.Float64Histogram, error) {
		d, err := httpconv.NewServerRequestDuration(m, given)
		return d.Inst(), err
	}))
	fmt.Print(seen)
	advised := "[0.005 0.01 0.025 0.05 0.075 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10]\n"
	want := "Meter.Float64Histogram [1 2]\nrpcconv.NewServerCallDuration " + advised + "httpconv.NewServerRequestDuration " + advised
	if seen != want {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
sed -i 's/^	"fmt"$/	"fmt"\n	"os"/' main.go
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go version; grep 'opentelemetry.io/otel v' go.mod
GOTOOLCHAIN=local timeout 120 go run .

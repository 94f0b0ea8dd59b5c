#!/usr/bin/env bash
# Guess: a gauge that a host fills by a callback, one series for each of its plugins, has no series of a plugin that has gone: the specification of OpenTelemetry's
# SDK says that what a callback does not observe any more should not be exported, and an alert on "up" or on a count goes by that.
# Seen: go.opentelemetry.io/otel/sdk/metric v1.47.0 does so for observable gauges, counters and up-down counters. @opentelemetry/sdk-metrics 2.12.1 (npm) does with delta
# temporality only: with cumulative temporality, which is the default and the only one of Prometheus, it exports the last value of each set of attributes that was ever
# observed until the process ends, so that a plugin of yesterday is still up. With delta temporality a counter that is not
# observed for one collection and then again is told whole once more by Go (30), and from where it was by Node (20).
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @opentelemetry/sdk-metrics@2.12.1 @opentelemetry/api@1.9.1 > /dev/null 2>&1
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
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

func main() {
	ctx := context.Background()
	for _, temporality := range []metricdata.Temporality{metricdata.CumulativeTemporality, metricdata.DeltaTemporality} {
		reader := sdk.NewManualReader(sdk.WithTemporalitySelector(func(sdk.InstrumentKind) metricdata.Temporality { return temporality }))
		meter := sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("host")
		var plugins []string
		calls := int64(0)
		observe := func(_ context.Context, o metric.Int64Observer) error {
			for _, p := range plugins {
				o.Observe(calls, metric.WithAttributes(attribute.String("plugin", p)))
			}
			return nil
		}
		meter.Int64ObservableGauge("gauge", metric.WithInt64Callback(observe))
		meter.Int64ObservableCounter("counter", metric.WithInt64Callback(observe))
		meter.Int64ObservableUpDownCounter("updown", metric.WithInt64Callback(observe))
		for _, plugins = range [][]string{{"a", "b"}, {"a"}, {"a", "b"}, {"a"}} {
			calls += 10
			var all metricdata.ResourceMetrics
			if err := reader.Collect(ctx, &all); err != nil {
				panic(err)
			}
			fmt.Printf("Go, %s, observed %v:", temporality, plugins)
			for _, m := range all.ScopeMetrics[0].Metrics {
				var points []metricdata.DataPoint[int64]
				switch data := m.Data.(type) {
				case metricdata.Gauge[int64]:
					points = data.DataPoints
				case metricdata.Sum[int64]:
					points = data.DataPoints
				}
				var seen []string
				for _, p := range points {
					name, _ := p.Attributes.Value("plugin")
					seen = append(seen, fmt.Sprint(name.AsString(), "=", p.Value))
				}
				slices.Sort(seen)
				fmt.Print(" ", m.Name, seen)
			}
			fmt.Println()
		}
	}
}
EOT
cat > main.cjs <<'EOT'
const { MeterProvider, MetricReader, AggregationTemporality } = require('@opentelemetry/sdk-metrics');

class Reader extends MetricReader {
  async onForceFlush() {}
  async onShutdown() {}
}

(async () => {
  for (const temporality of [AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA]) {
    const reader = new Reader({ aggregationTemporalitySelector: () => temporality });
    const meter = new MeterProvider({ readers: [reader] }).getMeter('host');
    let plugins = [];
    let calls = 0;
    const observe = (o) => plugins.forEach((plugin) => o.observe(calls, { plugin }));
    meter.createObservableGauge('gauge').addCallback(observe);
    meter.createObservableCounter('counter').addCallback(observe);
    meter.createObservableUpDownCounter('updown').addCallback(observe);
    for (plugins of [['a', 'b'], ['a'], ['a', 'b'], ['a']]) {
      calls += 10;
      const { resourceMetrics } = await reader.collect();
      const seen = resourceMetrics.scopeMetrics[0].metrics.map((m) => `${m.descriptor.name}[${m.dataPoints.map((p) => `${p.attributes.plugin}=${p.value}`).sort().join(' ')}]`);
      console.log(`Node, ${temporality === AggregationTemporality.DELTA ? 'Delta' : 'Cumulative'}Temporality, observed [${plugins.join(' ')}]: ${seen.join(' ')}`);
    }
  }
})();
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m go.opentelemetry.io/otel/sdk/metric
node -p '"@opentelemetry/sdk-metrics " + JSON.parse(require("fs").readFileSync("node_modules/@opentelemetry/sdk-metrics/package.json")).version'
{ GOTOOLCHAIN=local timeout 120 go run .; timeout 120 node main.cjs; } | tee seen
cat > want <<'EOT'
Go, CumulativeTemporality, observed [a b]: gauge[a=10 b=10] counter[a=10 b=10] updown[a=10 b=10]
Go, CumulativeTemporality, observed [a]: gauge[a=20] counter[a=20] updown[a=20]
Go, CumulativeTemporality, observed [a b]: gauge[a=30 b=30] counter[a=30 b=30] updown[a=30 b=30]
Go, CumulativeTemporality, observed [a]: gauge[a=40] counter[a=40] updown[a=40]
Go, DeltaTemporality, observed [a b]: gauge[a=10 b=10] counter[a=10 b=10] updown[a=10 b=10]
Go, DeltaTemporality, observed [a]: gauge[a=20] counter[a=10] updown[a=10]
Go, DeltaTemporality, observed [a b]: gauge[a=30 b=30] counter[a=10 b=30] updown[a=10 b=30]
Go, DeltaTemporality, observed [a]: gauge[a=40] counter[a=10] updown[a=10]
Node, CumulativeTemporality, observed [a b]: gauge[a=10 b=10] counter[a=10 b=10] updown[a=10 b=10]
Node, CumulativeTemporality, observed [a]: gauge[a=20 b=10] counter[a=20 b=10] updown[a=20 b=10]
Node, CumulativeTemporality, observed [a b]: gauge[a=30 b=30] counter[a=30 b=30] updown[a=30 b=30]
Node, CumulativeTemporality, observed [a]: gauge[a=40 b=30] counter[a=40 b=30] updown[a=40 b=30]
Node, DeltaTemporality, observed [a b]: gauge[a=10 b=10] counter[a=10 b=10] updown[a=10 b=10]
Node, DeltaTemporality, observed [a]: gauge[a=20] counter[a=10] updown[a=10]
Node, DeltaTemporality, observed [a b]: gauge[a=30 b=30] counter[a=10 b=20] updown[a=10 b=20]
Node, DeltaTemporality, observed [a]: gauge[a=40] counter[a=10] updown[a=10]
EOT
cmp -s seen want || { echo CHANGED; exit 1; }

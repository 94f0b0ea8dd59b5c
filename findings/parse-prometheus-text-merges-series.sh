#!/usr/bin/env bash
# Guess: what a plugin in Go shows of its metrics, parse-prometheus-text-format of npm reads: both name Prometheus' text format.
# Seen: parse-prometheus-text-format 1.1.1 reads what github.com/prometheus/client_golang v1.25.0 writes of counters and gauges. Of a histogram with labels, as each that counts by method
# has, it makes one: the labels are gone, and the buckets are those of the last set of labels; of a summary likewise. Neither has its sum nor its count. That happens without an error.
# A metric without help ("# HELP name " with nothing behind) costs all of the exposition, by an exception; and a name in quotation marks, which version 1.0.0 of the format has, is read as
# a label, and its value not at all.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save parse-prometheus-text-format@1.1.1 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/prometheus/client_golang v1.25.0
EOT
cat > main.go <<'EOT'
package main

import (
	"net/http/httptest"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func show(file, accept string, c prometheus.Collector) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", accept)
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	if err := os.WriteFile(file, w.Body.Bytes(), 0o644); err != nil {
		panic(err)
	}
}

func main() {
	const text = "text/plain;version=0.0.4"
	gauge := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "gauge", Help: "a gauge"}, []string{"method"})
	gauge.WithLabelValues("get").Set(1)
	gauge.WithLabelValues(`a "b", {c}`).Set(2)
	show("1-gauge", text, gauge)

	histogram := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "seconds", Help: "a histogram", Buckets: []float64{1, 10}}, []string{"method"})
	histogram.WithLabelValues("get").Observe(0.5)
	histogram.WithLabelValues("put").Observe(5)
	show("2-histogram", text, histogram)

	summary := prometheus.NewSummaryVec(prometheus.SummaryOpts{Name: "seconds", Help: "a summary", Objectives: map[float64]float64{0.5: 0.05}}, []string{"method"})
	summary.WithLabelValues("get").Observe(0.5)
	summary.WithLabelValues("put").Observe(5)
	show("3-summary", text, summary)

	show("4-without-help", text, prometheus.NewGauge(prometheus.GaugeOpts{Name: "gauge"}))

	quoted := prometheus.NewGauge(prometheus.GaugeOpts{Name: "plugin.calls", Help: "a name with a dot"})
	quoted.Set(3)
	show("5-quoted", "text/plain;version=1.0.0;escaping=allow-utf-8", quoted)
}
EOT
cat > main.cjs <<'EOT'
const { readFileSync } = require('node:fs');
const parse = require('parse-prometheus-text-format');

for (const file of ['1-gauge', '2-histogram', '3-summary', '4-without-help', '5-quoted']) {
  const text = readFileSync(file, 'utf8');
  console.log(text.replace(/^#.*\n/gm, '').trim());
  try {
    console.log(`${file}: ${JSON.stringify(parse(text)[0].metrics)}`);
  } catch (err) {
    console.log(`${file}: refused: ${err.message}`);
  }
}
EOT
cat > want <<'EOT'
gauge{method="a \"b\", {c}"} 2
gauge{method="get"} 1
1-gauge: [{"value":"2","labels":{"method":"a \"b\", {c}"}},{"value":"1","labels":{"method":"get"}}]
seconds_bucket{method="get",le="1"} 1
seconds_bucket{method="get",le="10"} 1
seconds_bucket{method="get",le="+Inf"} 1
seconds_sum{method="get"} 0.5
seconds_count{method="get"} 1
seconds_bucket{method="put",le="1"} 0
seconds_bucket{method="put",le="10"} 1
seconds_bucket{method="put",le="+Inf"} 1
seconds_sum{method="put"} 5
seconds_count{method="put"} 1
2-histogram: [{"buckets":{"1":"0","10":"1","+Inf":"1"}}]
seconds{method="get",quantile="0.5"} 0.5
seconds_sum{method="get"} 0.5
seconds_count{method="get"} 1
seconds{method="put",quantile="0.5"} 5
seconds_sum{method="put"} 5
seconds_count{method="put"} 1
3-summary: [{"quantiles":{"0.5":"5"}}]
gauge 0
4-without-help: refused: Encountered invalid line: # HELP gauge
{"plugin.calls"} 3
5-quoted: [{}]
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/prometheus/client_golang
node -p '"parse-prometheus-text-format " + JSON.parse(require("fs").readFileSync("node_modules/parse-prometheus-text-format/package.json")).version'
GOTOOLCHAIN=local go run .
timeout 60 node main.cjs | tee seen
cmp -s seen want || { echo CHANGED; exit 1; }

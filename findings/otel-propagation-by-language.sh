#!/usr/bin/env bash
# Guess: what OpenTelemetry passes on between services, baggage and tracestate of the W3C, comes through a service in Go as through one in Node: both have
# the same bounds, and what one of them cannot take costs that entry and not the others.
# Seen: with go.opentelemetry.io/otel v1.47.0 and @opentelemetry/core 3.1.1 (npm), each of which reads what came and writes it again: (1) of 100 entries of
# baggage, 589 bytes, Go keeps the first 64 and Node all; of 9 entries with 9 KB together Go keeps none and Node 8; an entry of 5 KB comes through Go
# alone, and one with an empty value, which Node itself sends, too. (2) Of a tracestate with 33 entries Go keeps none and Node the first 32; of one with an
# entry that is not allowed, or a key that comes twice, Go keeps none and Node the others; of one of 600 bytes Node leaves out the last, and Go none. (3) A
# key of baggage such as "acme/user" that is set in Node is "acme%2Fuser" in Go.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @opentelemetry/{api@1.10.0,core@3.1.1} > /dev/null 2>&1
cat > main.mjs <<'EOT'
import { propagation, ROOT_CONTEXT } from '@opentelemetry/api';
import { CompositePropagator, W3CBaggagePropagator, W3CTraceContextPropagator } from '@opentelemetry/core';
import { writeFileSync } from 'node:fs';

const propagator = new CompositePropagator({ propagators: [new W3CTraceContextPropagator(), new W3CBaggagePropagator()] });
const setter = { set: (carrier, key, value) => { carrier[key] = value; } };
const getter = { get: (carrier, key) => carrier[key], keys: (carrier) => Object.keys(carrier) };
const entries = (n, size = 1) => Array.from({ length: n }, (_, i) => `k${i}=${'v'.repeat(size)}`).join(',');
// What a program sets in Node is sent so.
const sent = {};
propagator.inject(propagation.setBaggage(ROOT_CONTEXT, propagation.createBaggage({ 'acme/user': { value: '1' }, empty: { value: '' } })), sent, setter);
const cases = [
  ['baggage', '100 entries', entries(100)],
  ['baggage', '9 entries of 1 KB', entries(9, 1000)],
  ['baggage', '5 KB and another', entries(1, 5000) + ',other=1'],
  ['baggage', 'sent by Node', sent.baggage],
  ['tracestate', '32 entries', entries(32)],
  ['tracestate', '33 entries', entries(33)],
  ['tracestate', '600 bytes', entries(3, 200)],
  ['tracestate', 'a capital letter', 'Vendor=1,b=2'],
  ['tracestate', 'a key twice', 'a=1,a=2,b=3'],
  ['tracestate', 'a key that begins with a digit', '1ab=1,b=2'],
];
writeFileSync('cases.json', JSON.stringify(cases));
for (const [field, what, value] of cases) {
  const out = {};
  propagator.inject(propagator.extract(ROOT_CONTEXT, { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', [field]: value }, getter), out, setter);
  const keys = (out[field] ?? '').split(',').filter(Boolean).map((entry) => entry.split('=')[0]).sort();
  console.log(`${field}, ${what}: Node ${keys.length} ${keys.length <= 3 ? keys.join(' ') : ''}`.trim());
}
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require go.opentelemetry.io/otel v1.47.0
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/propagation"
)

func main() {
	log.SetOutput(io.Discard)
	data, err := os.ReadFile("cases.json")
	if err != nil {
		panic(err)
	}
	var cases [][3]string
	if err := json.Unmarshal(data, &cases); err != nil {
		panic(err)
	}
	p := propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
	for _, c := range cases {
		in, out := propagation.HeaderCarrier{}, propagation.HeaderCarrier{}
		in.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		in.Set(c[0], c[2])
		p.Inject(p.Extract(context.Background(), in), out)
		var keys []string
		for entry := range strings.SplitSeq(http.Header(out).Get(c[0]), ",") {
			if key, _, is := strings.Cut(entry, "="); is {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		line := fmt.Sprintf("%s, %s: Go %d ", c[0], c[1], len(keys))
		if len(keys) <= 3 {
			line += strings.Join(keys, " ")
		}
		fmt.Println(strings.TrimSpace(line))
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m go.opentelemetry.io/otel
node -p "'@opentelemetry/core ' + JSON.parse(require('fs').readFileSync('node_modules/@opentelemetry/core/package.json')).version"
{ node main.mjs; GOTOOLCHAIN=local timeout 120 go run .; } | LC_ALL=C sort | tee seen
LC_ALL=C sort > want <<'EOT'
baggage, 100 entries: Node 100
baggage, 100 entries: Go 64
baggage, 9 entries of 1 KB: Node 8
baggage, 9 entries of 1 KB: Go 0
baggage, 5 KB and another: Node 1 other
baggage, 5 KB and another: Go 2 k0 other
baggage, sent by Node: Node 1 acme%2Fuser
baggage, sent by Node: Go 2 acme%2Fuser empty
tracestate, 32 entries: Node 32
tracestate, 32 entries: Go 32
tracestate, 33 entries: Node 32
tracestate, 33 entries: Go 0
tracestate, 600 bytes: Node 2 k0 k1
tracestate, 600 bytes: Go 3 k0 k1 k2
tracestate, a capital letter: Node 1 b
tracestate, a capital letter: Go 0
tracestate, a key twice: Node 2 a b
tracestate, a key twice: Go 0
tracestate, a key that begins with a digit: Node 1 b
tracestate, a key that begins with a digit: Go 0
EOT
cmp -s seen want || { echo CHANGED; exit 1; }

#!/usr/bin/env bash
# Guess: one call of gRPC between a program in Go and one in Node leaves two spans that one query finds, by the names of OpenTelemetry's conventions for RPC, which are
# stable (version 1.45), or that can be told to: the conventions name a switch for older instrumentations, OTEL_SEMCONV_STABILITY_OPT_IN=rpc.
# Seen: otelgrpc v0.72.0 and connectrpc.com/otelconnect v0.12.0 write the stable names, @opentelemetry/instrumentation-grpc 0.300.0 (npm) those of version 1.23,
# whatever the variable says. (1) rpc.method means something else: "e.S/Do" in Go, "Do" in Node, beside rpc.service. (2) The code is rpc.response.status_code "NOT_FOUND", a text, in Go, and
# rpc.grpc.status_code 5, a number, in Node; the system is rpc.system.name or rpc.system. (3) The span is "e.S/Do" or "grpc.e.S/Do". (4) A service that answers NOT_FOUND has a span
# with the status Error in Node, and one without a status in Go, as the conventions say: it is the caller's fault. Callers have Error in both.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; wait; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save node@22.23.3 @grpc/grpc-js@1.14.7 @opentelemetry/api@1.10.0 @opentelemetry/sdk-trace@3.1.1 @opentelemetry/instrumentation@0.300.0 @opentelemetry/instrumentation-grpc@0.300.0 > /dev/null 2>&1
cat > go.mod <<'EOM'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	connectrpc.com/otelconnect v0.12.0
	go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc v0.72.0
	go.opentelemetry.io/otel v1.47.0
	go.opentelemetry.io/otel/sdk v1.47.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOM
cat > main.go <<'EOM'
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sort"
	"strings"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/otelconnect"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

type empty = emptypb.Empty

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// show prints the span that comes, but for addresses.
func show(who string, kept *tracetest.InMemoryExporter) {
	for len(kept.GetSpans()) == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	s := kept.GetSpans()[0]
	kept.Reset()
	var said []string
	for _, a := range s.Attributes {
		if strings.HasPrefix(string(a.Key), "rpc.") {
			said = append(said, fmt.Sprintf("%s=%s", a.Key, a.Value.Emit()))
		}
	}
	sort.Strings(said)
	fmt.Printf("%s: %s %s [%s]\n", who, s.Name, strings.Join(said, " "), s.Status.Code)
}

func tracer() (*trace.TracerProvider, *tracetest.InMemoryExporter) {
	kept := tracetest.NewInMemoryExporter()
	return trace.NewTracerProvider(trace.WithSyncer(kept)), kept
}

func main() {
	const path = "/e.S/Do"
	ctx := context.Background()
	connected, keptConnect := tracer()
	served, keptServer := tracer()
	called, keptClient := tracer()
	interceptor := connect.WithInterceptors(must(otelconnect.NewInterceptor(otelconnect.WithTracerProvider(connected))))
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	l, g := must(net.Listen("tcp", "127.0.0.1:0")), must(net.Listen("tcp", "127.0.0.1:0"))
	go (&http.Server{Protocols: &only, Handler: connect.NewUnaryHandler(path, func(context.Context, *connect.Request[empty]) (*connect.Response[empty], error) {
		return nil, connect.NewError(connect.CodeNotFound, errors.New("no"))
	}, interceptor)}).Serve(l)
	s := grpc.NewServer(grpc.StatsHandler(otelgrpc.NewServerHandler(otelgrpc.WithTracerProvider(served))))
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "e.S", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Do", Handler: func(_ any, _ context.Context, read func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			if err := read(&empty{}); err != nil {
				return nil, err
			}
			return nil, status.Error(codes.NotFound, "no")
		},
	}}}, nil)
	go s.Serve(g)
	if err := os.WriteFile("go.part", []byte(g.Addr().String()), 0o600); err != nil {
		panic(err)
	}
	if err := os.Rename("go.part", "go.address"); err != nil {
		panic(err)
	}
	for { // the service in Node
		if _, err := os.Stat("node.address"); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	show("service, otelgrpc", keptServer)
	at := string(must(os.ReadFile("node.address")))
	cc := must(grpc.NewClient(at, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStatsHandler(otelgrpc.NewClientHandler(otelgrpc.WithTracerProvider(called)))))
	cc.Invoke(ctx, path, &empty{}, &empty{})
	show("caller, otelgrpc", keptClient)
	cc = must(grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())))
	cc.Invoke(ctx, path, &empty{}, &empty{})
	show("service, otelconnect", keptConnect)
	hc := &http.Client{Transport: &http.Transport{Protocols: &only}}
	connect.NewClient[empty, empty](hc, "http://"+at+path, connect.WithGRPC(), interceptor).CallUnary(ctx, connect.NewRequest(&empty{}))
	show("caller, otelconnect", keptConnect)
}
EOM
cat > main.cjs <<'EOM'
'use strict';
const { writeFileSync, renameSync } = require('node:fs');
const { TracerProvider, SimpleSpanProcessor, InMemorySpanExporter } = require('@opentelemetry/sdk-trace');
const { registerInstrumentations } = require('@opentelemetry/instrumentation');
const { GrpcInstrumentation } = require('@opentelemetry/instrumentation-grpc');
const exporter = new InMemorySpanExporter();
registerInstrumentations({ tracerProvider: new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] }), instrumentations: [new GrpcInstrumentation()] });
const grpc = require('@grpc/grpc-js');
const raw = (b) => b;
const service = { Do: { path: '/e.S/Do', requestStream: false, responseStream: false, requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw } };
const status = ['Unset', 'Ok', 'Error'];
async function show(who) {
  while (exporter.getFinishedSpans().length === 0) await new Promise((done) => setTimeout(done, 10));
  const s = exporter.getFinishedSpans()[0];
  exporter.reset();
  const said = Object.entries(s.attributes).filter(([k]) => k.startsWith('rpc.')).map(([k, v]) => `${k}=${v}`).sort();
  console.log(`${who}, instrumentation-grpc: ${s.name} ${said.join(' ')} [${status[s.status.code]}]`);
}
(async () => {
  const client = new (grpc.makeGenericClientConstructor(service, 'e.S'))(process.argv[2], grpc.credentials.createInsecure());
  await new Promise((done) => client.Do(Buffer.alloc(0), done));
  await show('caller');
  const server = new grpc.Server();
  server.addService(service, { Do: (_, done) => done({ code: grpc.status.NOT_FOUND, details: 'no' }) });
  const port = await new Promise((done, failed) => server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (e, port) => (e ? failed(e) : done(port))));
  writeFileSync('node.part', '127.0.0.1:' + port);
  renameSync('node.part', 'node.address');
  await show('service');
  await new Promise((done) => setTimeout(done, 60000));
})();
EOM
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m connectrpc.com/otelconnect go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc
for package in @grpc/grpc-js @opentelemetry/instrumentation-grpc; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
GOTOOLCHAIN=local go build -o finding .
cat > want <<'EOM'
caller, instrumentation-grpc: grpc.e.S/Do rpc.grpc.status_code=5 rpc.method=Do rpc.service=e.S rpc.system=grpc [Error]
caller, otelconnect: e.S/Do rpc.method=e.S/Do rpc.response.status_code=NOT_FOUND rpc.system.name=grpc [Error]
caller, otelgrpc: e.S/Do rpc.method=e.S/Do rpc.response.status_code=NOT_FOUND rpc.system.name=grpc [Error]
service, instrumentation-grpc: grpc.e.S/Do rpc.grpc.status_code=5 rpc.method=Do rpc.service=e.S rpc.system=grpc [Error]
service, otelconnect: e.S/Do rpc.method=e.S/Do rpc.response.status_code=NOT_FOUND rpc.system.name=grpc [Unset]
service, otelgrpc: e.S/Do rpc.method=e.S/Do rpc.response.status_code=NOT_FOUND rpc.system.name=grpc [Unset]
EOM
for told in '' rpc; do
  rm -f go.address node.address
  export OTEL_SEMCONV_STABILITY_OPT_IN=$told
  timeout 60 ./finding > go.seen &
  go=$!
  until [ -s go.address ]; do sleep 0.1; done
  node_modules/.bin/node main.cjs "$(cat go.address)" > node.seen &
  node=$!
  wait "$go"
  until [ "$(wc -l < node.seen)" = 2 ]; do kill -0 "$node"; sleep 0.1; done
  kill "$node"
  echo "OTEL_SEMCONV_STABILITY_OPT_IN='$told'"
  LC_ALL=C sort go.seen node.seen | tee seen
  cmp -s seen want || { echo CHANGED; exit 1; }
done

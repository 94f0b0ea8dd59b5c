#!/usr/bin/env bash
# Guess: messages of a server stream that came before its error reach the caller, and then the error, compressed or not.
# Seen: with @grpc/grpc-js 1.14.7 as the caller, messages that are compressed are lost when an error comes close behind them: the
# status does not wait until they are decompressed. Of ten messages and ABORTED behind them a few arrive, with events and with
# "for await" alike, from connect-go 1.21.1 as it comes, which compresses messages of two bytes too, and from gRPC-Go 1.85.0
# with gzip. All ten arrive uncompressed, or where the status is OK. nice-grpc 2.1.18, which is built on it, has the same.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @grpc/grpc-js@1.14.7 nice-grpc@2.1.18 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const path = "/e.Echo/Many"

func main() {
	for _, least := range []int{0, 1024} {
		serveConnect(least)
	}
	for _, name := range []string{"gzip", ""} {
		serveGRPC(name)
	}
	select {}
}

// serveGRPC serves with gRPC-Go, which compresses nothing unless it is told to.
func serveGRPC(name string) {
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "e.Echo", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Many", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
			fails := new(wrapperspb.BoolValue)
			if err := stream.RecvMsg(fails); err != nil {
				return err
			}
			if name != "" {
				if err := grpc.SetSendCompressor(stream.Context(), name); err != nil {
					return err
				}
			}
			for range 10 {
				if err := stream.SendMsg(wrapperspb.Bool(true)); err != nil {
					return err
				}
			}
			if fails.GetValue() {
				return status.Error(codes.Aborted, "no")
			}
			return nil
		}}},
	}, nil)
	go server.Serve(listen())
}

// serveConnect serves with connect-go, which compresses what has the least number of bytes.
func serveConnect(least int) {
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	handler := connect.NewServerStreamHandler(path, func(_ context.Context, fails *connect.Request[wrapperspb.BoolValue], stream *connect.ServerStream[wrapperspb.BoolValue]) error {
		for range 10 {
			if err := stream.Send(wrapperspb.Bool(true)); err != nil {
				return err
			}
		}
		if fails.Msg.GetValue() {
			return connect.NewError(connect.CodeAborted, errors.New("no"))
		}
		return nil
	}, connect.WithCompressMinBytes(least))
	go (&http.Server{Handler: handler, Protocols: &only}).Serve(listen())
}

func listen() net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	return l
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
GOTOOLCHAIN=local go build -o server .
./server > addresses &
server=$!
cat > main.js <<'EOT'
'use strict';
const { readFileSync } = require('node:fs');
const grpc = require('@grpc/grpc-js');
const { createChannel, createClient } = require('nice-grpc');
console.log('node', process.version, 'grpc-js', require('@grpc/grpc-js/package.json').version, 'nice-grpc', require('nice-grpc/package.json').version);

const raw = (b) => Buffer.from(b);
const path = '/e.Echo/Many';
const many = { path, requestStream: false, responseStream: true, requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw };
const requests = { OK: Buffer.alloc(0), ABORTED: Buffer.from([8, 1]) };

async function drain(messages) {
  let got = 0;
  try {
    for await (const _ of messages) got++;
    return [got, grpc.status.OK];
  } catch (err) {
    return [got, err.code];
  }
}
const events = (call) => new Promise((done) => {
  let got = 0;
  call.on('data', () => got++).on('error', () => {}).on('status', (s) => setTimeout(() => done([got, s.code]), 100));
});

(async () => {
  let same = true;
  for (const [server, address] of Object.entries({
    'connect-go as it comes': process.argv[2], 'connect-go, not compressed': process.argv[3], 'gRPC-Go with gzip': process.argv[4], 'gRPC-Go as it comes': process.argv[5],
  })) {
    const client = new grpc.Client(address, grpc.credentials.createInsecure());
    const nice = createClient({ many }, createChannel(address));
    const stream = (request) => client.makeServerStreamRequest(path, raw, raw, request);
    const compressed = server === 'connect-go as it comes' || server === 'gRPC-Go with gzip';
    const callers = { events: (r) => events(stream(r)), 'for await': (r) => drain(stream(r)), 'nice-grpc': (r) => drain(nice.many(r)) };
    for (const [caller, call] of Object.entries(callers)) {
      for (const [status, request] of Object.entries(requests)) {
        let got = 0;
        for (let i = 0; i < 20; i++) {
          const [messages, code] = await call(request);
          got += messages;
          same &&= code === grpc.status[status];
        }
        console.log(`${server}, ${caller}, ${status}: ${got} of 200 messages`);
        same &&= status === 'OK' || !compressed ? got === 200 : got < 200;
      }
    }
  }
  if (!same) console.log('CHANGED');
  process.exit(same ? 0 : 1);
})();
EOT
until [ "$(wc -l < addresses)" = 4 ]; do sleep 0.05; done
timeout 60 node main.js $(cat addresses)

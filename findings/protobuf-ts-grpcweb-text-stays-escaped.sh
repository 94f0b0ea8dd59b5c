#!/usr/bin/env bash
# Guess: the gRPC-Web client of protobuf-ts gives the text of an error as the service wrote it, and ends a call by itself when the
# option `timeout` has passed.
# Seen: @protobuf-ts/grpcweb-transport 2.11.1 leaves grpc-message percent-encoded: "too much: 100 %" of connect-go 1.21.1 arrives as
# "too much: 100 %25", while @protobuf-ts/grpc-transport 2.11.1 gives the text. Its timeout is only told to the server, in
# grpc-timeout: where the server takes no notice of it the call takes as long as the server likes and succeeds, while
# the other transport ends it in time.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @protobuf-ts/{runtime,runtime-rpc,grpc-transport,grpcweb-transport}@2.11.1 @grpc/grpc-js@1.14.7 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
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
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// unhurried hides the deadline from connect-go, so that the handler ends when it likes.
func unhurried(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Grpc-Timeout")
		next.ServeHTTP(w, r.WithContext(context.WithoutCancel(r.Context())))
	})
}

func main() {
	handler := connect.NewUnaryHandler("/e.Echo/Unary", func(_ context.Context, r *connect.Request[wrapperspb.StringValue]) (*connect.Response[wrapperspb.StringValue], error) {
		if r.Msg.GetValue() == "fail" {
			return nil, connect.NewError(connect.CodeAborted, errors.New("too much: 100 %"))
		}
		time.Sleep(time.Second)
		return connect.NewResponse(r.Msg), nil
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	(&http.Server{Handler: unhurried(handler), Protocols: &both}).Serve(l)
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
GOTOOLCHAIN=local go build -o server .
./server > address &
server=$!
cat > main.js <<'EOT'
'use strict';
const { MessageType } = require('@protobuf-ts/runtime');
const { ServiceType } = require('@protobuf-ts/runtime-rpc');
const { GrpcTransport } = require('@protobuf-ts/grpc-transport');
const { GrpcWebFetchTransport } = require('@protobuf-ts/grpcweb-transport');
const grpc = require('@grpc/grpc-js');
console.log('node', process.version, 'grpcweb-transport', require('@protobuf-ts/grpcweb-transport/package.json').version);

const text = new MessageType('google.protobuf.StringValue', [{ no: 1, name: 'value', kind: 'scalar', T: 9 }]);
const [unary] = new ServiceType('e.Echo', [{ name: 'Unary', I: text, O: text }]).methods;
const address = process.argv[2];

async function ask(transport, value) {
  try {
    const call = await transport.unary(unary, { value }, transport.mergeOptions({ timeout: value === 'fail' ? 20_000 : 300 }));
    return call.response.value;
  } catch (err) {
    return value === 'fail' ? `${err.code} ${err.message}` : err.code;
  }
}

(async () => {
  const seen = [];
  for (const transport of [
    new GrpcTransport({ host: address, channelCredentials: grpc.credentials.createInsecure() }),
    new GrpcWebFetchTransport({ baseUrl: 'http://' + address, format: 'binary' }),
  ]) {
    seen.push(await ask(transport, 'fail'), await ask(transport, 'slow'));
  }
  console.log(seen.join('\n'));
  const same = seen.join() === 'ABORTED too much: 100 %,DEADLINE_EXCEEDED,ABORTED too much: 100 %25,slow';
  if (!same) console.log('CHANGED');
  process.exit(same ? 0 : 1);
})();
EOT
until [ -s address ]; do sleep 0.05; done
timeout 60 node main.js "$(cat address)"

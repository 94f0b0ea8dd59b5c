#!/usr/bin/env bash
# Guess: a server of @grpc/grpc-js keeps the deadline that a caller sets, or none where it is too far away for a timer.
# Seen: 1.14.7 cuts the milliseconds of grpc-timeout to a signed 32-bit number. With gRPC-Go 1.85.0 as the caller a deadline 25
# or 80 days away ends the call at once with DEADLINE_EXCEEDED; one of 24 or of 60 days does not, but of the
# 60 days 10 are left. call.getDeadline() shows the handler the wrapped one, days too early or in the past.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @grpc/grpc-js@1.14.7 > /dev/null 2>&1
mkdir go
cat > go/go.mod <<'EOT'
module finding

go 1.26.0

require (
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > go/main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

func main() {
	conn, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	for _, days := range []int{24, 25, 60, 80} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(days)*24*time.Hour)
		err := conn.Invoke(ctx, "/e.Echo/Unary", &emptypb.Empty{}, &emptypb.Empty{})
		cancel()
		fmt.Println(days, status.Code(err))
	}
}
EOT
(cd go && GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1 && GOTOOLCHAIN=local go build -o ../caller .)
cat > main.js <<'EOT'
'use strict';
const { execFile } = require('node:child_process');
const grpc = require('@grpc/grpc-js');
console.log('node', process.version, 'grpc-js', require('@grpc/grpc-js/package.json').version);

const raw = (b) => b;
const server = new grpc.Server();
const told = [];
server.addService({
  Unary: { path: '/e.Echo/Unary', requestStream: false, responseStream: false, requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw },
}, {
  Unary(call, answer) {
    told.push(Math.round((Number(call.getDeadline()) - Date.now()) / 86400e3));
    setTimeout(() => answer(null, Buffer.alloc(0)), 100);
  },
});
server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (_, port) => {
  execFile('./caller', ['127.0.0.1:' + port], (err, out) => {
    const seen = err ? String(err) : out.trim();
    console.log(seen);
    console.log('days that the handlers were told:', told.join(' '));
    const same = seen === '24 OK\n25 DeadlineExceeded\n60 OK\n80 DeadlineExceeded' && told.join(' ') === '24 -25 10 -19';
    if (!same) console.log('CHANGED');
    process.exit(same ? 0 : 1);
  });
});
EOT
timeout 60 node main.js

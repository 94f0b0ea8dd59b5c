#!/usr/bin/env bash
# Guess: a handler of NestJS over gRPC that returns an Observable is unsubscribed when its caller is not there any more, by a cancel or because its deadline passed: the
# framework subscribes for the call, and the end of the call is the end of the subscription.
# Seen: with @nestjs/microservices 12.1.1 on @grpc/grpc-js 1.14.7 and a caller of google.golang.org/grpc v1.85.0 that is so for a server stream alone, and for the Observable
# of a client stream that answers once. Of a unary call nothing is told: the Observable goes on until it ends by itself, here 3 s behind the caller's cancel or deadline, and what it
# then says goes nowhere. The call itself, the handler's third argument, does know: its event 'cancelled' comes in time.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; wait; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save node@22.23.3 @nestjs/microservices@12.1.1 @nestjs/core@12.5.1 @nestjs/common@12.5.1 reflect-metadata@0.2.2 rxjs@7.8.2 @grpc/grpc-js@1.14.7 @grpc/proto-loader@0.8.1 > /dev/null 2>&1
cat > go.mod <<'EOM'
module finding

go 1.26.0

require (
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOM
cat > main.go <<'EOM'
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func main() {
	cc, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	for _, by := range []string{"cancel", "deadline"} {
		for _, method := range []string{"One", "Many", "Up"} {
			ctx, stop := context.WithTimeout(context.Background(), time.Second)
			if by == "cancel" {
				stop()
				ctx, stop = context.WithCancel(context.Background())
				time.AfterFunc(time.Second, stop)
			}
			s, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: method == "Many", ClientStreams: method == "Up"}, "/e.S/"+method)
			if err != nil {
				panic(err)
			}
			if err := s.SendMsg(wrapperspb.String(method + ", " + by)); err != nil {
				panic(err)
			}
			if method != "Up" {
				s.CloseSend()
			}
			fmt.Println(method+", "+by+": the caller:", status.Code(s.RecvMsg(&wrapperspb.StringValue{})))
			stop()
		}
	}
}
EOM
cat > e.proto <<'EOM'
syntax = "proto3";
package e;
import "google/protobuf/wrappers.proto";
service S {
  rpc One(google.protobuf.StringValue) returns (google.protobuf.StringValue);
  rpc Many(google.protobuf.StringValue) returns (stream google.protobuf.StringValue);
  rpc Up(stream google.protobuf.StringValue) returns (google.protobuf.StringValue);
}
EOM
cat > main.cjs <<'EOM'
'use strict';
require('reflect-metadata');
const net = require('node:net');
const { writeFileSync, renameSync } = require('node:fs');
const { NestFactory } = require('@nestjs/core');
const { Module, Controller } = require('@nestjs/common');
const { Transport, GrpcMethod, GrpcStreamMethod } = require('@nestjs/microservices');
const { Observable } = require('rxjs');

// work is 4 s of work, that ends sooner where it is told.
const work = (name) => new Observable((subscriber) => {
  let done = false;
  const timer = setTimeout(() => {
    done = true;
    console.log(name() + ': the handler: went on to its end');
    subscriber.next({ value: 'done' });
    subscriber.complete();
  }, 4000);
  return () => {
    clearTimeout(timer);
    if (!done) console.log(name() + ': the handler: unsubscribed');
  };
});
class Service {
  one({ value }, _, call) {
    call.on('cancelled', () => console.log(value + ": the call's event: cancelled"));
    return work(() => value);
  }
  many({ value }) { return work(() => value); }
  up(messages) {
    let name;
    messages.subscribe({ next: ({ value }) => { name = value; }, error: () => {} });
    return work(() => name);
  }
}
for (const [decorate, method] of [[GrpcMethod('S', 'One'), 'one'], [GrpcMethod('S', 'Many'), 'many'], [GrpcStreamMethod('S', 'Up'), 'up']]) {
  const own = Object.getOwnPropertyDescriptor(Service.prototype, method);
  Object.defineProperty(Service.prototype, method, decorate(Service.prototype, method, own) ?? own);
}
Reflect.decorate([Controller()], Service);
class App {}
Reflect.decorate([Module({ controllers: [Service] })], App);
(async () => {
  const free = net.createServer();
  await new Promise((done) => free.listen(0, '127.0.0.1', done));
  const url = '127.0.0.1:' + free.address().port;
  await new Promise((done) => free.close(done));
  const app = await NestFactory.createMicroservice(App, { logger: false, transport: Transport.GRPC, options: { package: 'e', protoPath: 'e.proto', url } });
  await app.listen();
  writeFileSync('part', url);
  renameSync('part', 'address');
})();
EOM
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m google.golang.org/grpc
node_modules/.bin/node -p '"node " + process.version'
for package in @nestjs/microservices @grpc/grpc-js; do node -p "'$package ' + JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version"; done
GOTOOLCHAIN=local go build -o finding .
node_modules/.bin/node main.cjs > node.seen &
until [ -s address ]; do sleep 0.1; done
timeout 60 ./finding "$(cat address)" > go.seen
for _ in $(seq 100); do [ "$(grep -c 'the handler' node.seen)" = 6 ] && break; sleep 0.1; done
LC_ALL=C sort go.seen node.seen | tee seen
cat > want <<'EOM'
Many, cancel: the caller: Canceled
Many, cancel: the handler: unsubscribed
Many, deadline: the caller: DeadlineExceeded
Many, deadline: the handler: unsubscribed
One, cancel: the call's event: cancelled
One, cancel: the caller: Canceled
One, cancel: the handler: went on to its end
One, deadline: the call's event: cancelled
One, deadline: the caller: DeadlineExceeded
One, deadline: the handler: went on to its end
Up, cancel: the caller: Canceled
Up, cancel: the handler: unsubscribed
Up, deadline: the caller: DeadlineExceeded
Up, deadline: the handler: unsubscribed
EOM
cmp -s seen want || { echo CHANGED; exit 1; }

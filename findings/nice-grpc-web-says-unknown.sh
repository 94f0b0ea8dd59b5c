#!/usr/bin/env bash
# Guess: nice-grpc-web, which has the interface of nice-grpc for gRPC-Web, gives a call that did not reach its service the code that nice-grpc gives it, as
# gRPC says for an HTTP status: unavailable for a proxy's 503 and for a service that is away, unauthenticated for a 401.
# Seen: with nice-grpc-web 3.3.11 (npm), on fetch and on node:http alike, each of these is UNKNOWN, and so are a 404, a 429 and a connection that breaks in the middle
# of a stream. The text of the first four names the code that it should be, "UNAVAILABLE: Received HTTP 503 response". A caller that tries again by codes does not.
# nice-grpc 2.1.18 has UNAVAILABLE, UNAUTHENTICATED and UNIMPLEMENTED, and INTERNAL for the break. What a handler of connect-go 1.21.1 itself answers
# has its code in each. (2) On fetch a caller that leaves a stream with break does not end it: the handler is not told, as it is with the other two.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save nice-grpc@2.1.18 nice-grpc-web@3.3.11 > /dev/null 2>&1
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
	"os"
	"os/exec"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"
)

type empty = emptypb.Empty

// main is a service, and what stands before it: paths that are refused with an HTTP status.
func main() {
	told := make(chan string, 1)
	mux := http.NewServeMux()
	mux.Handle("/e.E/Fail", connect.NewUnaryHandler("/e.E/Fail", func(context.Context, *connect.Request[empty]) (*connect.Response[empty], error) {
		return nil, connect.NewError(connect.CodeResourceExhausted, errors.New("too much"))
	}))
	mux.Handle("/e.E/Break", connect.NewServerStreamHandler("/e.E/Break", func(_ context.Context, _ *connect.Request[empty], s *connect.ServerStream[empty]) error {
		s.Send(&empty{})
		time.Sleep(200 * time.Millisecond)
		panic(http.ErrAbortHandler)
	}))
	mux.Handle("/e.E/Watch", connect.NewServerStreamHandler("/e.E/Watch", func(ctx context.Context, _ *connect.Request[empty], s *connect.ServerStream[empty]) error {
		s.Send(&empty{})
		select {
		case <-ctx.Done():
			told <- "told"
		case <-time.After(3 * time.Second):
			told <- "not told"
		}
		return nil
	}))
	mux.HandleFunc("/told", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, <-told) })
	for path, code := range map[string]int{"/e.E/Busy": http.StatusServiceUnavailable, "/e.E/Gate": http.StatusUnauthorized, "/e.E/Many": http.StatusTooManyRequests} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", code) })
	}
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		return l
	}
	l, away := listen(), listen()
	away.Close()
	go (&http.Server{Handler: mux, Protocols: &both}).Serve(l)
	node := exec.Command("node", "main.mjs", l.Addr().String(), away.Addr().String())
	node.Stdout, node.Stderr = os.Stdout, os.Stderr
	if err := node.Run(); err != nil {
		os.Exit(1)
	}
}
EOT
cat > main.mjs <<'EOT'
import * as nice from 'nice-grpc';
import * as web from 'nice-grpc-web';

const none = () => new Uint8Array();
const method = (name, responseStream = false) => ({
  path: `/e.E/${name}`, requestStream: false, responseStream, options: {},
  requestSerialize: none, requestDeserialize: none, responseSerialize: none, responseDeserialize: () => ({}),
});
const E = { fail: method('Fail'), busy: method('Busy'), gate: method('Gate'), many: method('Many'), absent: method('Absent'), break: method('Break', true), watch: method('Watch', true) };
const [address, away] = process.argv.slice(2);
const clients = {
  'nice-grpc': (at) => nice.createClient(E, nice.createChannel(at)),
  'nice-grpc-web, fetch': (at) => web.createClient(E, web.createChannel(`http://${at}`, web.FetchTransport())),
  'nice-grpc-web, node:http': (at) => web.createClient(E, web.createChannel(`http://${at}`, web.NodeHttpTransport())),
};
const code = async (call) => {
  try {
    await call();
    return 'OK';
  } catch (e) {
    return nice.Status[e.code];
  }
};
for (const [name, client] of Object.entries(clients)) {
  const c = client(address);
  const seen = [];
  for (const call of ['fail', 'busy', 'gate', 'many', 'absent']) seen.push(`${call} ${await code(() => c[call]({}))}`);
  seen.push(`away ${await code(() => client(away).fail({}))}`);
  seen.push(`break ${await code(async () => { for await (const _ of c.break({})); })}`);
  for await (const _ of c.watch({})) break;
  seen.push(`left ${await (await fetch(`http://${address}/told`)).text()}`);
  console.log(`${name}: ${seen.join(', ')}`);
}
process.exit();
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m connectrpc.com/connect
for package in nice-grpc nice-grpc-web; do echo "$package $(node -p "JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version")"; done
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding | tee seen
cat > want <<'EOT'
nice-grpc: fail RESOURCE_EXHAUSTED, busy UNAVAILABLE, gate UNAUTHENTICATED, many UNAVAILABLE, absent UNIMPLEMENTED, away UNAVAILABLE, break INTERNAL, left told
nice-grpc-web, fetch: fail RESOURCE_EXHAUSTED, busy UNKNOWN, gate UNKNOWN, many UNKNOWN, absent UNKNOWN, away UNKNOWN, break UNKNOWN, left not told
nice-grpc-web, node:http: fail RESOURCE_EXHAUSTED, busy UNKNOWN, gate UNKNOWN, many UNKNOWN, absent UNKNOWN, away UNKNOWN, break UNKNOWN, left told
EOT
cmp -s seen want || { echo CHANGED; exit 1; }

#!/usr/bin/env bash
# Guess: a cache before a service of Connect for TypeScript may keep answers to GET, which is what GET is for there, and gives each caller a
# form that it takes: the service says Vary: Accept-Encoding, as one of connect-go does.
# Seen: @connectrpc/connect-node 2.3.0 compresses answers beyond 1 KiB by what the caller accepts, and sends no Vary. Behind nginx 1.22.1
# (Debian 12, proxy_cache) a caller that names brotli first leaves brotli in the cache: a caller of connect-go 1.21.1, which takes
# gzip, fails with internal, "unknown encoding "br"", and curl, which takes none, gets what it cannot read, until it expires. With connect-go as
# the service behind the same nginx each caller gets its own form.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
pids=()
trap 'for p in "${pids[@]}"; do kill "$p" 2> /dev/null || true; done; wait; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @connectrpc/{connect,connect-node}@2.3.0 @bufbuild/protobuf@2.17.0 > /dev/null 2>&1
cat > service.mjs <<'EOT'
import { create, createFileRegistry } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, StringValueSchema, file_google_protobuf_wrappers } from '@bufbuild/protobuf/wkt';

const file = create(FileDescriptorProtoSchema, {
  name: 'e.proto', package: 'e', syntax: 'proto3', dependency: ['google/protobuf/wrappers.proto'],
  service: [{ name: 'E', method: [{
    name: 'Get', inputType: '.google.protobuf.StringValue', outputType: '.google.protobuf.StringValue', options: { idempotencyLevel: 1 },
  }] }],
});
export const E = createFileRegistry(file, () => file_google_protobuf_wrappers.proto).getService('e.E');
EOT
cat > server.mjs <<'EOT'
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { connectNodeAdapter } from '@connectrpc/connect-node';
import { E } from './service.mjs';

const routes = (r) => r.service(E, {
  get(m, ctx) {
    ctx.responseHeader.set('cache-control', 'max-age=600');
    return { value: m.value.repeat(5000) };
  },
});
createServer(connectNodeAdapter({ routes })).listen(0, '127.0.0.1', function () { writeFileSync('node.port', `${this.address().port}\n`); });
EOT
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
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const get = "/e.E/Get"

type text = wrapperspb.StringValue

// main calls the service at the port that is given; without one it is the service, and tells its port.
func main() {
	if len(os.Args) > 1 {
		c := connect.NewClient[text, text](http.DefaultClient, "http://127.0.0.1:"+os.Args[1]+get, connect.WithHTTPGet(),
			connect.WithIdempotency(connect.IdempotencyNoSideEffects))
		r, err := c.CallUnary(context.Background(), connect.NewRequest(wrapperspb.String("x")))
		if err != nil {
			fmt.Println("connect-go:", err)
			return
		}
		fmt.Println("connect-go:", len(r.Msg.Value))
		return
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	http.Handle(get, connect.NewUnaryHandler(get, func(_ context.Context, r *connect.Request[text]) (*connect.Response[text], error) {
		res := connect.NewResponse(wrapperspb.String(strings.Repeat(r.Msg.Value, 5000)))
		res.Header().Set("Cache-Control", "max-age=600")
		return res, nil
	}, connect.WithIdempotency(connect.IdempotencyNoSideEffects)))
	check(os.WriteFile("go.port", fmt.Appendln(nil, ln.Addr().(*net.TCPAddr).Port), 0o600))
	check(http.Serve(ln, nil))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
GOTOOLCHAIN=local go build -o main .
node server.mjs > /dev/null & pids+=($!)
./main > /dev/null & pids+=($!)
for _ in $(seq 100); do [ -s node.port ] && [ -s go.port ] && break; sleep 0.1; done

# proxy NAME starts nginx with a cache before the service NAME and leaves its port in $port.
proxy() {
  port=$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })')
  mkdir "$1"
  cat > "$1/nginx.conf" <<EOT
daemon off;
master_process off;
pid $dir/$1/pid;
error_log $dir/$1/log;
events {}
http {
  access_log off;
  client_body_temp_path $dir/$1/body;
  proxy_temp_path $dir/$1/temp;
  fastcgi_temp_path $dir/$1/fastcgi;
  uwsgi_temp_path $dir/$1/uwsgi;
  scgi_temp_path $dir/$1/scgi;
  proxy_cache_path $dir/$1/cache keys_zone=answers:1m;
  server {
    listen 127.0.0.1:$port;
    location / {
      proxy_pass http://127.0.0.1:$(cat "$1.port");
      proxy_cache answers;
      add_header x-cache \$upstream_cache_status;
    }
  }
}
EOT
  nginx -c "$dir/$1/nginx.conf" -e "$dir/$1/log" > /dev/null 2>&1 & pids+=($!)
  for _ in $(seq 100); do curl -s -o /dev/null "http://127.0.0.1:$port/" && break; sleep 0.1; done
}

echo "$(nginx -v 2>&1), connect-node $(node -p 'require("./node_modules/@connectrpc/connect-node/package.json").version'), node $(node --version)"
grep 'connectrpc.com/connect v' go.mod
query='connect=v1&base64=1&encoding=proto&message=CgF4'
for service in node go; do
  proxy "$service"
  {
    echo "service $service"
    curl -s -m 10 -D head -o body -H 'Accept-Encoding: br, gzip' "http://127.0.0.1:$(cat "$service.port")/e.E/Get?$query"
    tr -d '\r' < head | tr A-Z a-z | grep '^vary:' || echo 'no vary'
    for accept in 'br, gzip' identity; do
      curl -s -m 10 -D head -o body -H "Accept-Encoding: $accept" "http://127.0.0.1:$port/e.E/Get?$query"
      echo "curl, takes $accept: $(tr -d '\r' < head | tr A-Z a-z | grep '^x-cache:'), $(tr -d '\r' < head | tr A-Z a-z | grep '^content-encoding:' || echo plain)"
    done
    ./main "$port"
  } >> seen
done
cat seen
cat > want <<'EOT'
service node
no vary
curl, takes br, gzip: x-cache: miss, content-encoding: br
curl, takes identity: x-cache: hit, content-encoding: br
connect-go: internal: unknown encoding "br": accepted encodings are gzip
service go
vary: accept-encoding
curl, takes br, gzip: x-cache: miss, content-encoding: gzip
curl, takes identity: x-cache: miss, plain
connect-go: 5000
EOT
cmp -s seen want || { echo CHANGED; exit 1; }

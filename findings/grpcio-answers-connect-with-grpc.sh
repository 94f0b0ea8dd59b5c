#!/usr/bin/env bash
# Guess: a gRPC server that gets a POST with another content type than application/grpc answers 415, as gRPC's protocol over
# HTTP/2 asks for and gRPC-Go does.
# Seen: grpcio 1.51.1 (Debian 12) answers 200, content type application/grpc and grpc-status 2, and prints an error of its
# metadata parser for each such request. Whoever goes by the HTTP status of a unary request of Connect takes that for
# success. gRPC-Go 1.85.0 says 415.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; rm -rf "$dir"' EXIT
cd "$dir"
# With the libraries that it needs: not every machine has them.
apt-get download python3-grpcio=1.51.1-3+b1 libc-ares2 libre2-9 libabsl20220623 > /dev/null 2>&1
for package in *.deb; do dpkg-deb -x "$package" root; done
libraries=$(echo "$dir"/root/usr/lib/*-linux-gnu)
cat > server.py <<'PY'
import sys
from concurrent import futures

import grpc

print("python", sys.version.split()[0], "grpcio", grpc.__version__, file=sys.stderr)
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(
    "e.Echo", {"Unary": grpc.unary_unary_rpc_method_handler(lambda request, context: request)}),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
PY
LD_LIBRARY_PATH="$libraries" PYTHONPATH="$dir/root/usr/lib/python3/dist-packages" /usr/bin/python3 server.py > port &
mkdir go
cat > go/go.mod <<'MOD'
module finding

go 1.26.0

require google.golang.org/grpc v1.85.0
MOD
cat > go/main.go <<'GO'
package main

import (
	"fmt"
	"net"

	"google.golang.org/grpc"
)

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	_ = grpc.NewServer().Serve(l)
}
GO
(cd go && GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1 && GOTOOLCHAIN=local go build -o ../goserver .)
./goserver > goport &
for _ in $(seq 100); do [ -s port ] && [ -s goport ] && break; sleep 0.1; done

# ask PORT prints status, content type and grpc-status of the answer to a unary request of Connect.
ask() {
  curl -sS --max-time 10 --http2-prior-knowledge -o /dev/null -D - -X POST -H 'Content-Type: application/proto' \
    -H 'Connect-Protocol-Version: 1' --data-binary $'\x0a\x01x' "http://127.0.0.1:$1/e.Echo/Unary" |
    tr -d '\r' | tr 'A-Z' 'a-z' | grep -E '^(http/2|content-type|grpc-status)' | sort | paste -sd' '
}
python=$(ask "$(cat port)")
go=$(ask "$(cat goport)")
echo "grpcio 1.51.1:  $python"
echo "gRPC-Go 1.85.0: $go"
if [[ "$python" != *"application/grpc"* || "$python" != *"http/2 200"* || "$go" != *"http/2 415"* ]]; then
  echo CHANGED
  exit 1
fi

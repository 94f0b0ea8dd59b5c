#!/usr/bin/env bash
# Guess: calls that reach a grpcio server after server.stop(grace) are refused so that a client tries elsewhere:
# with a GOAWAY or REFUSED_STREAM, which is UNAVAILABLE at the caller.
# Seen: with grpcio 1.51.1 (Debian 12) calls that are on their way while the server begins to stop end with
# CANCELLED, without having run. That is the code of a caller's own cancelling: no retry policy
# takes it, and a proxy in between cannot tell it from that. The call in flight ends well.
# The synchronous server does so in every round here, the one of grpc.aio in some.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
# With the libraries that it needs: not every machine has them.
apt-get download python3-grpcio=1.51.1-3+b1 libc-ares2 libre2-9 libabsl20220623 > /dev/null 2>&1
for package in *.deb; do dpkg-deb -x "$package" root; done
libraries=$(echo "$dir"/root/usr/lib/*-linux-gnu)
cat > main.py <<'EOF'
import collections
import sys
import time
from concurrent import futures

import grpc

print("python", sys.version.split()[0], "grpcio", grpc.__version__)


def round_():
    ran = []

    def quick(request, context):
        ran.append(request)
        return request

    def slow(request, context):
        time.sleep(0.5)
        return request

    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("e.Echo", {
        "Quick": grpc.unary_unary_rpc_method_handler(quick), "Slow": grpc.unary_unary_rpc_method_handler(slow)}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        flight = channel.unary_unary("/e.Echo/Slow").future(b"in flight")
        time.sleep(0.1)
        late = [channel.unary_unary("/e.Echo/Quick").future(b"late") for _ in range(20)]
        stopped = server.stop(5)
        codes = collections.Counter("OK" if (e := call.exception()) is None else e.code().name for call in late)
        flight.result()
        stopped.wait()
    return codes, len(ran)


rounds = [round_() for _ in range(8)]
for codes, ran in rounds:
    print(dict(codes), "ran:", ran)
cancelled = sum(codes["CANCELLED"] for codes, _ in rounds)
unrun = all(codes["OK"] == ran for codes, ran in rounds)
if not cancelled or not unrun:
    print("CHANGED: no call ended with CANCELLED, or one that did had run")
    sys.exit(1)
print(cancelled, "calls ended with CANCELLED and had not run")
EOF
LD_LIBRARY_PATH="$libraries" PYTHONPATH="$dir/root/usr/lib/python3/dist-packages" timeout 60 /usr/bin/python3 main.py

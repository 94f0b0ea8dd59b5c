#!/usr/bin/env bash
# Guess: grpc.aio's Metadata, of which the class is declared as collections.abc.Mapping, can be copied with
# dict(metadata), as the metadata of grpcio's synchronous calls (tuples of pairs) can.
# Seen: with grpcio 1.51.1 (Debian 12), iterating it gives pairs, keys() gives pairs too, and so
# dict(metadata) asks for the value of a pair and raises KeyError, on every call that was answered.
# `in`, [] and get take names; dict(iter(metadata)) and dict(list(metadata)) work.
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
import asyncio
import collections.abc
import sys

import grpc
import grpc.aio

print("python", sys.version.split()[0], "grpcio", grpc.__version__)


async def main():
    async def echo(request, context):
        context.set_trailing_metadata((("color", "blue"),))
        return request

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(
        "e.Echo", {"Unary": grpc.unary_unary_rpc_method_handler(echo)}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/e.Echo/Unary")(b"")
        await call
        metadata = await call.trailing_metadata()
    await server.stop(0)

    print("a Mapping:", isinstance(metadata, collections.abc.Mapping), "| 'color':", metadata["color"])
    print("keys():", list(metadata.keys()), "| list():", list(metadata))
    try:
        got = str(dict(metadata))
    except KeyError as e:
        got = f"KeyError {e}"
    print("dict():", got, "| dict(list()):", dict(list(metadata)))
    return (isinstance(metadata, collections.abc.Mapping) and list(metadata.keys()) == [("color", "blue")]
            and got.startswith("KeyError") and dict(list(metadata)) == {"color": "blue"})


if not asyncio.run(main()):
    print("CHANGED")
    sys.exit(1)
EOF
LD_LIBRARY_PATH="$libraries" PYTHONPATH="$dir/root/usr/lib/python3/dist-packages" timeout 60 /usr/bin/python3 main.py

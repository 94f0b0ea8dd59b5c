"""The peer on grpcio (gRPC C-core): provider and caller of interop.v1.Echo.

Called by the command interop as `echo.py serve` or `echo.py call CASE`, with its job in
INTEROP_JOB. What the service does is said in interop/echo/doc.go. Messages are
google.protobuf.BytesValue, written here by hand: one field, number 1, of bytes.
"""
import asyncio
import json
import os
import signal
import sys
import threading

import grpc
import grpc.aio

from cases import play

JOB = json.loads(os.environ["INTEROP_JOB"])
BASE = "/interop.v1.Echo/"
MAX = 64 << 20
GRACE = 5


def varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number, value):
    return varint(number << 3 | 2) + varint(len(value)) + value


def encode(value):
    return field(1, value) if value else b""


def decode(data):
    if not data:
        return b""
    size, shift, i = 0, 0, 1
    while True:
        size |= (data[i] & 0x7F) << shift
        shift += 7
        i += 1
        if not data[i - 1] & 0x80:
            return data[i:i + size]


def file(name):
    with open(os.path.join(JOB["dir"], name), "rb") as f:
        return f.read()


def say(**line):
    print(json.dumps(line), flush=True)


class Service:
    def __init__(self):
        self.running = 0

    async def unary(self, request, context):
        return request

    async def client(self, requests, context):
        total = 0
        async for r in requests:
            total += len(r)
        return str(total).encode()

    async def server(self, request, context):
        for i in range(int(request)):
            yield str(i).encode()

    async def bidi(self, requests, context):
        self.running += 1
        try:
            async for r in requests:
                yield r
            yield b"done"
        finally:
            self.running -= 1

    async def fail(self, request, context):
        code, size = (int(n) for n in request.split())
        detail = field(1, b"type.googleapis.com/google.protobuf.BytesValue") + field(2, encode(b"d" * size))
        status = bytes([0x08]) + varint(code) + field(2, b"as asked") + field(3, detail)
        context.set_trailing_metadata((("grpc-status-details-bin", status),))
        codes = {c.value[0]: c for c in grpc.StatusCode}
        await context.abort(codes[code], "as asked")

    async def sleep(self, request, context):
        self.running += 1
        try:
            await asyncio.sleep(int(request) / 1000)
        finally:
            self.running -= 1
        return request

    async def count(self, request, context):
        return str(self.running).encode()


async def serve():
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX), ("grpc.max_send_message_length", MAX)])
    s, codec = Service(), {"request_deserializer": decode, "response_serializer": encode}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("interop.v1.Echo", {
        "Unary": grpc.unary_unary_rpc_method_handler(s.unary, **codec),
        "Fail": grpc.unary_unary_rpc_method_handler(s.fail, **codec),
        "Sleep": grpc.unary_unary_rpc_method_handler(s.sleep, **codec),
        "Count": grpc.unary_unary_rpc_method_handler(s.count, **codec),
        "Client": grpc.stream_unary_rpc_method_handler(s.client, **codec),
        "Server": grpc.unary_stream_rpc_method_handler(s.server, **codec),
        "Bidi": grpc.stream_stream_rpc_method_handler(s.bidi, **codec),
    }),))
    credentials = grpc.ssl_server_credentials(
        [(file("tls.key"), file("tls.crt"))], root_certificates=file("ca.crt"), require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, end.set)
    loop.call_later(JOB["life"], end.set)

    def until_eof():  # the runner has ended
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(end.set)

    threading.Thread(target=until_eof, daemon=True).start()
    say(port=port)
    await end.wait()
    await server.stop(GRACE)


class Caller:
    def __init__(self, channel):
        self.channel = channel
        self.prefix = JOB.get("prefix", "")
        self.metadata = ()
        if JOB.get("token"):
            self.metadata = (("x-plugin-runtime-id", JOB["id"]), ("authorization", "Bearer " + JOB["token"]))

    def _of(self, kind, method):
        return getattr(self.channel, kind)(self.prefix + BASE + method, request_serializer=encode, response_deserializer=decode)

    def unary(self, method, data=b"", timeout=None):
        return self._of("unary_unary", method)(data, metadata=self.metadata, timeout=timeout)

    def client(self):
        return self._of("stream_unary", "Client")(metadata=self.metadata)

    def server(self, data):
        return self._of("unary_stream", "Server")(data, metadata=self.metadata)

    def bidi(self):
        return self._of("stream_stream", "Bidi")(metadata=self.metadata)


async def ready():
    say(ready=True)
    line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    if not line:
        raise RuntimeError("the runner has ended")
    return line.strip()


async def call(name):
    pair = {}
    if JOB.get("present"):
        pair = {"private_key": file("tls.key"), "certificate_chain": file("tls.crt")}
    credentials = grpc.ssl_channel_credentials(root_certificates=file("ca.crt"), **pair)
    options = [
        ("grpc.max_receive_message_length", MAX), ("grpc.max_send_message_length", MAX),
        ("grpc.max_metadata_size", 64 << 10),  # 8 KiB by default, which the details of 20 kB need more than
    ]
    async with grpc.aio.secure_channel(JOB["target"], credentials, options=options) as channel:
        try:
            note = await asyncio.wait_for(play(name, Caller(channel), JOB, ready), JOB["life"] - 1)
            say(ok=True, note=note or "")
        except grpc.aio.AioRpcError as e:
            say(why=f"{e.code().name}: {e.details()}")
        except Exception as e:
            say(why=f"{type(e).__name__}: {e}")


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1] == "serve" else call(sys.argv[2]))

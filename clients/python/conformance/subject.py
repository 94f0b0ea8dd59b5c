#!/usr/bin/python3
"""What connectplugin-conformance drives to find out whether this package behaves as docs/protocol.md says. The service is
described in cmd/connectplugin-conformance/README.md; each message is a google.protobuf.StringValue."""
import json
import logging
import os
import queue
import sys
from concurrent import futures
from typing import Any, Iterator

import grpc
from google.protobuf.wrappers_pb2 import StringValue

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import connectplugin as cp  # noqa: E402
from connectplugin import transcript  # noqa: E402
from connectplugin.wire.handshake_pb2 import HandshakeRequest, HandshakeResponse  # noqa: E402

SERVICE = "connectplugin.conformance.v1.Subject"
KIT = "conformance.kit"
CODES = {c.value[0]: c for c in grpc.StatusCode}
STATES: dict[int, str] = {cp.SERVICE_AVAILABLE: "available", cp.SERVICE_UNAVAILABLE: "unavailable", cp.SERVICE_DEGRADED: "degraded"}
HEALTH = {"healthy": cp.HEALTHY, "degraded": cp.DEGRADED, "unhealthy": cp.UNHEALTHY}


class Subject:
    def __init__(self, plugin: cp.Plugin) -> None:
        self.plugin = plugin
        self.kit: grpc.Channel

    def echo(self, request: StringValue, _: Any) -> StringValue:
        return request

    def who(self, _: StringValue, context: Any) -> StringValue:
        return StringValue(value=cp.caller(context).self_id)

    def fail(self, request: StringValue, context: Any) -> None:
        code, _, text = request.value.partition(" ")
        context.abort(CODES[int(code)], text)

    def collect(self, requests: Iterator[StringValue], _: Any) -> StringValue:
        return StringValue(value=",".join(r.value for r in requests))

    def repeat(self, request: StringValue, _: Any) -> Iterator[StringValue]:
        for i in range(int(request.value)):
            yield StringValue(value=str(i))

    def converse(self, requests: Iterator[StringValue], _: Any) -> Iterator[StringValue]:
        yield from requests

    def call(self, request: StringValue, _: Any) -> StringValue:
        said = json.loads(request.value)
        try:
            n = said.get("atOnce", 1)
            over = self.plugin.capability(said["capability"]) if said.get("capability") else self.kit
            with futures.ThreadPoolExecutor(n) as pool:
                got = list(pool.map(lambda _: list(self._play(over, said["method"], said.get("values") or [])), range(n)))
            answer: dict[str, Any] = {"values": got[0]}
        except grpc.RpcError as e:
            answer = {"code": e.code().name.lower(), "text": e.details()}
        return StringValue(value=json.dumps(answer))

    def _play(self, over: grpc.Channel, method: str, values: list[str]) -> Iterator[str]:
        kinds = {"Collect": "stream_unary", "Repeat": "unary_stream", "Converse": "stream_stream"}
        kind = kinds.get(method, "unary_unary")
        stub = getattr(over, kind)(f"/{SERVICE}/{method}", StringValue.SerializeToString, StringValue.FromString)
        messages = [StringValue(value=v) for v in values]
        if kind == "unary_unary":
            yield stub(messages[0], timeout=10).value
        elif kind == "stream_unary":
            yield stub(iter(messages), timeout=10).value
        elif kind == "unary_stream":
            yield from (m.value for m in stub(messages[0], timeout=10))
        else:
            sent: queue.Queue[Any] = queue.Queue()
            answers = stub(iter(sent.get, None), timeout=10)
            for m in messages:
                sent.put(m)
                yield next(answers).value
            sent.put(None)
            yield from (m.value for m in answers)

    def watch(self, request: StringValue, context: Any) -> Iterator[StringValue]:
        states = self.plugin.watch(request.value)
        context.add_callback(states.close)
        for s in states:
            yield StringValue(value=json.dumps({
                "state": STATES[s.state], "provider": s.provider_id, "sequence": s.sequence,
                "resync": s.resync, "missed": s.missed}))

    def prove(self, request: StringValue, _: Any) -> StringValue:
        said = {k: bytes.fromhex(v) for k, v in json.loads(request.value).items()}
        asked, answered = HandshakeRequest.FromString(said["request"]), HandshakeResponse.FromString(said["response"])
        secret, binding = said["secret"], said["binding"] or None
        transcript.prove_request(asked, secret, binding)
        return StringValue(value=json.dumps({
            "proof": asked.client_proof.hex(), "proven": transcript.response_is_proven(asked, answered, secret, binding)}))

    def health(self, request: StringValue, _: Any) -> StringValue:
        state, _, reason = request.value.partition(" ")
        self.plugin.set_health(HEALTH[state], reason)
        return request

    def add_to(self, server: grpc.Server) -> None:
        kinds = {
            "unary_unary": ("Echo", "Who", "Fail", "Call", "Prove", "Health"), "stream_unary": ("Collect",),
            "unary_stream": ("Repeat", "Watch"), "stream_stream": ("Converse",),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {
            name: getattr(grpc, kind + "_rpc_method_handler")(
                getattr(self, name.lower()), StringValue.FromString, StringValue.SerializeToString)
            for kind, names in kinds.items() for name in names
        }),))


def main() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    env = os.environ
    plugin = cp.Plugin(
        host=env["CONFORMANCE_HOST"], self_id=env["CONFORMANCE_SELF"], self_version="1.0.0",
        credentials=cp.Credentials(env["CONFORMANCE_DIR"]), secret=bytes.fromhex(env["CONFORMANCE_SECRET"]) or None,
        requires=[KIT])
    subject = Subject(plugin)
    plugin.provide("conformance.subject", "1.0.0", SERVICE, subject.add_to)
    subject.kit = plugin.service(KIT)
    plugin.run()


if __name__ == "__main__":
    try:
        main()
    except cp.PluginError as e:
        sys.exit(f"{type(e).__name__}: {e}")

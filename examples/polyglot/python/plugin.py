#!/usr/bin/python3
"""The relay in Python: plugin.py HOST DIRECTORY, with its credentials in DIRECTORY/python."""
import logging
import os
import sys

# In place of `pip install clients/python`.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../clients/python"))
import connectplugin as cp  # noqa: E402
import grpc  # noqa: E402
from relay_pb2 import RelayRequest, RelayResponse  # noqa: E402
from relay_pb2_grpc import RelayServiceServicer, RelayServiceStub, add_RelayServiceServicer_to_server  # noqa: E402


class Relay(RelayServiceServicer):
    def __init__(self) -> None:
        self.next: dict[str, RelayServiceStub] = {}

    def Relay(self, request: RelayRequest, context: grpc.ServicerContext) -> RelayResponse:
        lines = [f'python heard "{request.text}" from {cp.caller(context).self_id}']
        if request.route:
            following = self.next.get(request.route[0])
            if following is None:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"no relay in {request.route[0]!r}")
            try:
                rest = following.Relay(RelayRequest(route=request.route[1:], text=request.text), timeout=5)
            except grpc.RpcError as e:
                context.abort(e.code(), e.details())
            lines += rest.lines
        return RelayResponse(lines=lines)


def main(host: str, directory: str) -> None:
    relay = Relay()
    plugin = cp.Plugin(host=host, self_id="python", credentials=cp.Credentials(os.path.join(directory, "python")),
                       requires=["relay.go", "relay.node"])
    plugin.provide("relay.python", "1.0.0", "polyglot.v1.RelayService",
                   lambda server: add_RelayServiceServicer_to_server(relay, server))
    relay.next = {language: RelayServiceStub(plugin.service("relay." + language)) for language in ("go", "node")}
    plugin.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(*sys.argv[1:])

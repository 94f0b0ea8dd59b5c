"""Whom a plugin serves, and what others can make it hold."""
import inspect
import io
import logging
import socket
import threading
import time
import unittest
from concurrent import futures
from typing import Any, AsyncIterator, Callable, Iterator
from unittest import mock

import grpc

from connectplugin import ConfigError, Plugin, link
from connectplugin.log import Log
from connectplugin.serving import Control, OnlyHost, end, new_server
from connectplugin.wire import lifecycle_pb2 as lc
from connectplugin.workers import Workers

NOW, HEALTH = "/clock.v1.ClockService/Now", "/connectplugin.v1.PluginControl/GetHealth"
HOST = (("by", "host"),)
WAIT = 20.0


def only_host(_: OnlyHost, context: grpc.ServicerContext) -> None:
    if HOST[0] not in [tuple(m) for m in context.invocation_metadata()]:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the caller is not the host")


class Serving(unittest.TestCase):
    def stage(self, serve: Callable[[Any, grpc.ServicerContext], bytes], workers: int = 2,
              options: Any = ()) -> grpc.Channel:
        """A server of a plugin, in plaintext, which knows its host by a header."""
        for patch in (
            mock.patch.object(OnlyHost, "_check", only_host), mock.patch.object(grpc, "dynamic_ssl_server_credentials"),
            mock.patch.object(grpc, "ssl_server_certificate_configuration"),
            mock.patch.object(type(grpc.server(mock.Mock())), "add_secure_port", lambda server, at, _: server.add_insecure_port(at)),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        control = Control(lambda _: lc.GetHealthResponse(state=lc.HEALTH_STATE_HEALTHY), lambda _: None, lambda _: None)
        self.logger = logging.Logger("serving")
        self.workers = Workers(workers)
        server, port = new_server(mock.Mock(), mock.Mock(), control, "127.0.0.1:0", self.workers, options, Log(self.logger))
        self.server, self.port = server, port
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("clock.v1.ClockService", {
            "Now": grpc.unary_unary_rpc_method_handler(serve),
            "Follow": grpc.unary_stream_rpc_method_handler(lambda request, context: iter([serve(request, context)])),
            "Set": grpc.stream_unary_rpc_method_handler(lambda requests, context: serve(b"".join(requests), context)),
        }),))
        self.port = port
        server.start()
        self.addCleanup(lambda: server.stop(None).wait())
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.addCleanup(channel.close)
        return channel

    def test_two_plugins_do_not_share_an_address(self) -> None:
        self.stage(lambda *_: b"")
        control = Control(lambda _: lc.GetHealthResponse(), lambda _: None, lambda _: None)

        def another(address: str) -> int:
            return new_server(mock.Mock(), mock.Mock(), control, address, Workers(2), (), Log(logging.Logger("serving")))[1]

        with self.assertRaisesRegex(ConfigError, f"address: nobody can listen on 127.0.0.1:{self.port}: another process does"):
            another(f"127.0.0.1:{self.port}")
        self.assertNotEqual(self.port, another("127.0.0.1:0"))

    def test_whoever_is_refused_holds_no_worker(self) -> None:
        channel = self.stage(lambda request, _: bytes(request))
        over = threading.Event()
        self.addCleanup(over.set)

        def nothing() -> Iterator[bytes]:
            over.wait()
            yield from ()

        for method in (NOW, NOW, "/clock.v1.ClockService/Follow", "/clock.v1.ClockService/Set", HEALTH, HEALTH, HEALTH, HEALTH, HEALTH):
            call = channel.stream_unary(method).future(nothing())  # headers, and no message
            error = call.exception(timeout=WAIT)
            self.assertIs(grpc.StatusCode.UNAUTHENTICATED, error.code(), method)
        self.assertEqual(b"now", channel.unary_unary(NOW)(b"now", metadata=HOST, timeout=WAIT))
        self.assertEqual([b"now"], list(channel.unary_stream("/clock.v1.ClockService/Follow")(b"now", metadata=HOST, timeout=WAIT)))
        self.assertEqual(b"ab", channel.stream_unary("/clock.v1.ClockService/Set")(iter([b"a", b"b"]), metadata=HOST, timeout=WAIT))

    def test_a_silent_host_does_not_hold_up_the_end(self) -> None:
        self.stage(lambda request, _: bytes(request))
        with socket.create_connection(("127.0.0.1", self.port)) as silent:
            silent.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))  # SETTINGS, and nothing from then on
            self.assertTrue(silent.recv(1))
            ending = threading.Thread(target=end, args=(self.server, self.workers, 3600.0, 0.05), daemon=True)
            ending.start()
            ending.join(WAIT)
            self.assertFalse(ending.is_alive())

    def test_calls_in_flight_finish_though_the_host_is_silent(self) -> None:
        looked = threading.Semaphore(0)

        def serve(request: bytes, _: grpc.ServicerContext) -> bytes:
            for _ in range(3):
                self.assertTrue(looked.acquire(timeout=WAIT))
            return bytes(request)

        call = self.stage(serve).unary_unary(NOW).future(b"now", metadata=HOST, timeout=3 * WAIT)
        busy = self.workers.busy
        while not busy():
            time.sleep(0.001)
        with mock.patch.object(self.workers, "busy", lambda: looked.release() or busy()):
            end(self.server, self.workers, 3600.0, 0.01)
        self.assertEqual(b"now", call.result(WAIT))

    def test_what_is_asyncios_is_said_to_be_so(self) -> None:
        async def answer(request: bytes, _: grpc.ServicerContext) -> bytes:
            return request

        async def answers(request: bytes, _: grpc.ServicerContext) -> AsyncIterator[bytes]:
            yield request

        class Servicer:
            async def method(self, request: bytes, _: grpc.ServicerContext) -> bytes:
                return request

        channel, lines = self.stage(answer), io.StringIO()
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("other.v1.Other", {
            "Method": grpc.unary_unary_rpc_method_handler(Servicer().method),
            "Stream": grpc.unary_stream_rpc_method_handler(answers),
            "Upload": grpc.stream_stream_rpc_method_handler(answers),
        }),))
        self.logger.addHandler(logging.StreamHandler(lines))
        for method, begin in (
            (NOW, lambda m: channel.unary_unary(m)(b"now", metadata=HOST, timeout=WAIT)),
            ("/other.v1.Other/Method", lambda m: channel.unary_unary(m)(b"now", metadata=HOST, timeout=WAIT)),
            ("/other.v1.Other/Stream", lambda m: list(channel.unary_stream(m)(b"now", metadata=HOST, timeout=WAIT))),
            ("/other.v1.Other/Upload", lambda m: list(channel.stream_stream(m)(iter([b"now"]), metadata=HOST, timeout=WAIT))),
        ):
            with self.subTest(method), self.assertRaises(grpc.RpcError) as raised:
                begin(method)
            self.assertIs(grpc.StatusCode.UNIMPLEMENTED, raised.exception.code(), method)
            self.assertIn(f"{method} is async, and servicers are called in threads: write def", lines.getvalue())

    def test_what_is_compressed_is_not_inflated(self) -> None:
        # grpcio inflates it whole before it looks how large it is, at the server and at the client.
        options = inspect.signature(Plugin.__init__).parameters["server_options"].default
        asked = self.stage(lambda request, _: bytes(request), options=options)
        with self.assertRaises(grpc.RpcError) as raised:
            asked.unary_unary(NOW)(bytes(1 << 20), metadata=HOST, timeout=WAIT, compression=grpc.Compression.Gzip)
        self.assertIs(grpc.StatusCode.UNIMPLEMENTED, raised.exception.code())
        self.assertEqual(b"now", asked.unary_unary(NOW)(b"now", metadata=HOST, timeout=WAIT))

        provider = grpc.server(futures.ThreadPoolExecutor(2), compression=grpc.Compression.Gzip)
        provider.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("clock.v1.ClockService", {
            "Now": grpc.unary_unary_rpc_method_handler(lambda request, _: bytes(1 << 20) if request else b""),
        }),))
        port = provider.add_insecure_port("127.0.0.1:0")
        provider.start()
        self.addCleanup(lambda: provider.stop(None).wait())
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=link._OPTIONS) as channel:
            try:
                answer = len(channel.unary_unary(NOW)(b"now", timeout=WAIT))  # a server that heeds what a client takes sends it as it is
            except grpc.RpcError as e:
                self.assertIs(grpc.StatusCode.UNIMPLEMENTED, e.code())
            else:
                self.assertEqual(1 << 20, answer)
        self.assertIn(link.NO_COMPRESSION, link._OPTIONS)

    def test_metadata_passes_that_a_plugin_in_go_takes(self) -> None:
        """USE-07: in both directions, and with the code of the provider."""
        large = "a" * 30_000

        def serve(_: Any, context: grpc.ServicerContext) -> bytes:
            context.set_trailing_metadata((("came", str(len(dict(context.invocation_metadata())["large"]))), ("large", large)))
            context.abort(grpc.StatusCode.NOT_FOUND, "none")
            return b""

        self.stage(serve)
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", options=link._OPTIONS) as channel:
            with self.assertRaises(grpc.RpcError) as raised:
                channel.unary_unary(NOW)(b"now", metadata=(*HOST, ("large", large)), timeout=WAIT)
        self.assertIs(grpc.StatusCode.NOT_FOUND, raised.exception.code(), raised.exception.details())
        self.assertEqual({"came": "30000", "large": large}, dict(raised.exception.trailing_metadata()))

    def test_a_call_without_a_message_is_refused(self) -> None:
        channel = self.stage(lambda request, _: bytes(request))
        with self.assertRaises(grpc.RpcError) as raised:
            channel.stream_unary(NOW)(iter(()), metadata=HOST, timeout=WAIT)
        self.assertIs(grpc.StatusCode.INVALID_ARGUMENT, raised.exception.code())

    def test_a_servicer_that_exits_leaves_no_call_without_an_answer(self) -> None:
        def serve(request: Any, _: grpc.ServicerContext) -> bytes:
            raise {b"exit": SystemExit, b"interrupt": KeyboardInterrupt, b"error": ValueError}[request](request.decode())

        channel = self.stage(serve)
        for request in (b"exit", b"interrupt", b"error"):
            for call in (channel.unary_unary(NOW).future(request, metadata=HOST), channel.unary_stream("/clock.v1.ClockService/Follow")(request, metadata=HOST)):
                self.assertIs(grpc.StatusCode.UNKNOWN, call.exception(timeout=WAIT).code(), request)

    def test_calls_that_hold_all_workers_keep_no_health_question_waiting(self) -> None:
        over, began = threading.Event(), threading.Semaphore(0)

        def serve(request: Any, _: grpc.ServicerContext) -> bytes:
            began.release()
            over.wait()
            return bytes(request)

        channel = self.stage(serve)
        calls = [channel.unary_unary(NOW).future(b"now", metadata=(*HOST, ("x-plugin-caller-self-id", name))) for name in "abc"]
        for _ in range(2):
            self.assertTrue(began.acquire(timeout=WAIT))
        try:
            ask = channel.unary_unary(HEALTH, lc.GetHealthRequest.SerializeToString, lc.GetHealthResponse.FromString)
            self.assertEqual(lc.HEALTH_STATE_HEALTHY, ask(lc.GetHealthRequest(), metadata=HOST, timeout=WAIT).state)
        finally:
            over.set()
        self.assertEqual([b"now"] * 3, [call.result(timeout=WAIT) for call in calls])

    def test_a_host_whose_certificate_has_ended_is_refused_once_it_has_outlived_it(self) -> None:
        checks = OnlyHost(mock.Mock(), Log(logging.Logger("serving")), mock.Mock(), mock.Mock())
        context = mock.Mock()
        context.auth_context.return_value = {"x509_pem_cert": [b"pem"]}
        with mock.patch("ssl.PEM_cert_to_DER_cert", lambda _: b"leaf"):
            for over in (False, True):
                with mock.patch("connectplugin.serving.outlived", lambda leaf: leaf == b"leaf" and over):
                    checks._check(context)
                self.assertEqual(over, context.abort.called)
        self.assertIs(grpc.StatusCode.UNAUTHENTICATED, context.abort.call_args.args[0])

    def test_one_caller_does_not_hold_all_workers(self) -> None:
        over, began = threading.Event(), threading.Semaphore(0)

        def serve(request: Any, _: grpc.ServicerContext) -> bytes:
            if request == b"hold":
                began.release()
                over.wait()
            return bytes(request)

        channel = self.stage(serve, workers=4)
        greedy, other = ((*HOST, ("x-plugin-caller-self-id", name)) for name in ("greedy", "other"))
        methods = [channel.unary_unary(NOW).future, lambda message, metadata: channel.unary_stream("/clock.v1.ClockService/Follow")(message, metadata=metadata)]
        calls = [methods[i % 2](b"hold", metadata=greedy) for i in range(12)]
        for _ in range(3):
            self.assertTrue(began.acquire(timeout=WAIT))
        try:
            for _ in range(3):
                self.assertEqual(b"now", channel.unary_unary(NOW)(b"now", metadata=other, timeout=WAIT))
            with mock.patch("connectplugin.workers._MOST_WAITING", 9), self.assertRaises(grpc.RpcError) as raised:
                channel.unary_unary(NOW)(b"now", metadata=greedy, timeout=WAIT)
            self.assertIs(grpc.StatusCode.RESOURCE_EXHAUSTED, raised.exception.code())
            self.assertFalse(began.acquire(blocking=False))
        finally:
            over.set()
        self.assertEqual([b"hold"] * 12, [call.result(timeout=WAIT) if i % 2 == 0 else next(call) for i, call in enumerate(calls)])
        self.assertEqual(b"now", channel.unary_unary(NOW)(b"now", metadata=greedy, timeout=WAIT))


if __name__ == "__main__":
    unittest.main()

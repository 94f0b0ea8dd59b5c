"""What a host can make a plugin do, and show, that means it ill."""
import dataclasses
import gc
import logging
import socket
import threading
import time
import traceback
import unittest
import weakref
from concurrent import futures
from typing import Any, Callable, Iterator, Optional
from unittest import mock

import grpc

from connectplugin import Closed, HandshakeRefused, Plugin, calls
from connectplugin.glyphs import printable
from connectplugin.link import HostLink
from connectplugin.log import Log
from connectplugin.wire import handshake_pb2 as hs
from connectplugin.wire import lifecycle_pb2 as lc
from connectplugin.wire import registry_pb2 as reg

ILL = "\x1b[2J\x1b]0;owned\x07\n2026-11-30 forged\u202e \u009b \u2800"
SEEN = "\ufffd[2J\ufffd]0;owned\ufffd\ufffd2026-11-30 forged\ufffd \ufffd \ufffd"

Act = Callable[[str, grpc.ServicerContext, Callable[[], None]], None]


class Relay:
    """Stands before a host, and cuts its connections."""

    def __init__(self, port: int) -> None:
        self._port, self._mu = port, threading.Lock()
        self._open: list[socket.socket] = []
        self.taken = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                near.close()
                continue
            with self._mu:
                self._open += [near, far]
                self.taken += 1
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(a, b), daemon=True).start()

    def _pass_on(self, a: socket.socket, b: socket.socket) -> None:
        try:
            while data := a.recv(1 << 16):
                b.sendall(data)
        except OSError:
            pass
        self._end([a, b])
        a.close()

    def _end(self, sockets: list[socket.socket]) -> None:
        for s in sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self) -> None:
        with self._mu:
            cut, self._open = self._open, []
        self._end(cut)

    def close(self) -> None:
        self._end([self._listener])  # so that accept returns
        self._listener.close()
        self.cut()


class Host(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A host that plays an act: what it does where a procedure is called. Where that returns, it answers as a host does."""

    def __init__(self, act: Act) -> None:
        self._act, self._mu = act, threading.Lock()
        self.urls = [""]  # of the provider, one after the other
        self.over = threading.Event()
        self.counts: dict[str, int] = {}
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        self._server.add_generic_rpc_handlers((self,))
        self.relay = Relay(self._server.add_insecure_port("127.0.0.1:0"))
        self._server.start()

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        if name == "WatchService":
            return grpc.unary_stream_rpc_method_handler(lambda r, c: self._watch(c), None, reg.WatchServiceEvent.SerializeToString)
        return grpc.unary_unary_rpc_method_handler(lambda r, c: self._answer(name, c), None, lambda m: m.SerializeToString())

    def _play(self, name: str, context: grpc.ServicerContext) -> int:
        with self._mu:
            self.counts[name] = self.counts.get(name, 0) + 1
            many = self.counts[name]
        self._act(name, context, self.relay.cut)
        return many

    def _answer(self, name: str, context: grpc.ServicerContext) -> Any:
        many = self._play(name, context)
        if name == "Handshake":
            return hs.HandshakeResponse(core_protocol_version=1, app_protocol_version=1, runtime_id="me", runtime_token=f"token{many}")
        if name == "RegisterService":
            return reg.RegisterServiceResponse(registration_id=f"reg{many}")
        return lc.ReportHealthResponse()

    def _watch(self, context: grpc.ServicerContext) -> Iterator[reg.WatchServiceEvent]:
        self._play("WatchService", context)
        for i, url in enumerate(self.urls):
            endpoint = reg.ServiceEndpoint(endpoint_url=url) if url else None
            yield reg.WatchServiceEvent(service_type="clock", state=reg.SERVICE_STATE_AVAILABLE if url else 0, sequence=i + 1, epoch="e",
                                        endpoint=endpoint)
        if len(self.urls) > 1:
            self.over.wait()

    def count(self, name: str) -> int:
        with self._mu:
            return self.relay.taken if name == "connections" else self.counts.get(name, 0)

    def close(self) -> None:
        self.over.set()
        self._server.stop(None).wait()
        self.relay.close()


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


class Hostile(unittest.TestCase):
    def stage(self, act: Act) -> tuple[Host, Plugin, list[str]]:
        """A host that plays an act, and a plugin of it. Whatever is left to chance takes its longest."""
        host, lines = Host(act), Lines()
        self.addCleanup(host.close)
        logger = logging.Logger("hostile", logging.INFO)
        logger.addHandler(lines)
        for patch in (
            mock.patch.object(HostLink, "_look", lambda *_: b"leaf"), mock.patch("ssl.DER_cert_to_PEM_cert", lambda _: ""),
            mock.patch("connectplugin.link.ended", lambda _: False), mock.patch("connectplugin.link.outlived", lambda _: False),
            mock.patch.object(grpc, "secure_channel", lambda at, _, options: grpc.insecure_channel(at, options)),
            mock.patch.object(grpc, "ssl_channel_credentials"), mock.patch("random.uniform", lambda least, most: most),
            mock.patch("connectplugin.plugin.new_server", return_value=(mock.MagicMock(), 1)),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        credentials = mock.Mock(**{"read.return_value": mock.Mock(key=None, certificate=None)})
        plugin = Plugin(host=f"https://127.0.0.1:{host.relay.port}", self_id="greeter", credentials=credentials, address="127.0.0.1:0",
                        host_identity="spiffe://td.test/host", requires=["clock"], logger=logger, timeout=5)
        self.addCleanup(plugin.stop)
        return host, plugin, lines.said

    def start(self, plugin: Plugin) -> None:
        def run() -> None:
            try:
                plugin.start()
            except Closed:
                pass

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(plugin.stopping.set)

    def until(self, holds: Callable[[], bool], what: Callable[[], object]) -> None:
        end = time.monotonic() + 40
        while not holds():
            self.assertLess(time.monotonic(), end, what())
            time.sleep(0.001)

    def test_a_host_that_breaks_off_is_tried_seldom(self) -> None:
        def forgets(name: str, context: grpc.ServicerContext, _: Callable[[], None]) -> None:
            if name == "ReportHealth":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")

        def cuts(procedure: str) -> Act:
            return lambda name, _, cut: cut() if name == procedure else None

        def cuts_behind(name: str, _: grpc.ServicerContext, cut: Callable[[], None]) -> None:
            if name == "ReportHealth":
                threading.Timer(0.005, cut).start()

        def forgets_later(plugin: Plugin) -> None:
            identity = plugin._session.current()
            if identity is not None:
                plugin._session.refused(identity)

        # Each counts what the host has to bear, of which so many take at least so long: a slow machine only takes longer.
        for told, act, counted, many, least, whileaway in (
            ("forgets who reports", forgets, "Handshake", 8, 0.9, None),
            ("ends the connection in the handshake", cuts("Handshake"), "connections", 6, 0.9, None),
            ("ends the connection of a report", cuts("ReportHealth"), "connections", 6, 0.9, None),
            ("ends the connection behind a report", cuts_behind, "connections", 7, 0.9, None),
            ("ends each watch behind its first state", lambda *_: None, "WatchService", 5, 1.2, None),
            ("forgets who calls", lambda *_: None, "Handshake", 8, 0.9, forgets_later),
        ):
            with self.subTest(told):
                host, plugin, lines = self.stage(act)
                if counted == "WatchService":
                    plugin.service("clock")
                begun = time.monotonic()
                self.start(plugin)

                def enough(meanwhile: Optional[Callable[[Plugin], None]] = whileaway, on: Plugin = plugin,
                           of: Host = host, what: str = counted, most: int = many) -> bool:
                    if meanwhile is not None:
                        meanwhile(on)
                    return of.count(what) >= most

                self.until(enough, lambda: host.counts)
                took = time.monotonic() - begun
                self.doCleanups()
                self.assertGreaterEqual(took, least)
                self.assertLessEqual(len(lines), 6 * 16)

    def test_what_is_due_cuts_no_wait_short_and_the_end_does(self) -> None:
        def busy(name: str, context: grpc.ServicerContext, _: Callable[[], None]) -> None:
            context.set_trailing_metadata((("retry-after", "200"),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")

        host, plugin, _ = self.stage(busy)
        self.start(plugin)
        self.until(lambda: host.count("Handshake") == 1, lambda: host.counts)
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            plugin._session.lost()
            time.sleep(0.001)
        self.assertEqual(1, host.count("Handshake"))

    def test_a_silent_host_does_not_hold_up_the_end(self) -> None:
        over = threading.Event()
        self.addCleanup(over.set)
        host, plugin, lines = self.stage(lambda name, *_: name == "ReportHealth" and over.wait() or None)
        plugin._session._settings = dataclasses.replace(plugin._session._settings, timeout=3600.0)
        with mock.patch.object(plugin._session, "_patience", 0.1):
            self.start(plugin)
            self.until(lambda: host.count("ReportHealth") == 1, lambda: host.counts)
            ending = threading.Thread(target=plugin.stop, daemon=True)
            ending.start()
            ending.join(40)
            self.assertFalse(ending.is_alive())
        self.assertEqual([], [line for line in lines if "waiting" in line])

    def shown(self, e: BaseException, lines: list[str]) -> None:
        text = "".join(traceback.format_exception(e))
        for said in (text.replace("\n", ""), *lines):
            self.assertEqual(said, said.translate({ord(c): "\ufffd" for c in ILL if not printable(c) == c}))
            self.assertNotIn("\n", said)
        self.assertLess(max(map(len, lines), default=0), 2100)

    def test_whoever_ends_registers_nothing_more(self) -> None:
        enders: list[threading.Thread] = []

        def act(name: str, *_: Any) -> None:
            if name == "RegisterService":
                enders.append(threading.Thread(target=plugin.stop))
                enders[-1].start()
                plugin._session._ended.wait(40)

        host, plugin, lines = self.stage(act)
        for n in range(5):
            plugin.provide(f"clock{n}", "1.0.0", "clock.v1.ClockService", lambda _: None)
        with self.assertRaises(Closed):
            plugin.start()
        for ender in enders:
            ender.join()
        self.assertEqual([1, 1], [host.count("RegisterService"), host.count("UnregisterService")])
        self.assertNotIn("waiting for the host", "".join(lines))

    def test_a_refusal_is_shown_without_what_nobody_sees(self) -> None:
        def refuses(name: str, context: grpc.ServicerContext, _: Callable[[], None]) -> None:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, ILL + "x" * 4000)

        _, plugin, lines = self.stage(refuses)
        with self.assertRaises(HandshakeRefused) as raised:
            plugin.start()
        self.assertIn(SEEN, str(raised.exception))
        self.assertLess(len(str(raised.exception)), 2100)
        self.shown(raised.exception, lines)

    def test_an_error_is_shown_so_too(self) -> None:
        def fails(name: str, context: grpc.ServicerContext, _: Callable[[], None]) -> None:
            context.abort(grpc.StatusCode.UNAVAILABLE, ILL + "x" * 4000)

        _, plugin, lines = self.stage(fails)
        self.start(plugin)
        self.until(lambda: bool(lines), lambda: "nothing was logged")
        self.assertTrue(lines[0].startswith("waiting for the host: " + SEEN), lines[0])
        self.shown(Exception(), lines)

    def test_refusals_of_a_watch_and_of_a_capability(self) -> None:
        def refuses(name: str, context: grpc.ServicerContext, _: Callable[[], None]) -> None:
            if name in ("WatchService", "RequestCapability"):
                context.set_trailing_metadata((("said", "x"),))
                context.abort(grpc.StatusCode.PERMISSION_DENIED, ILL)

        _, plugin, lines = self.stage(refuses)
        plugin.start()
        channel = plugin.service("clock")
        for ask in (lambda: plugin.request_capability("logger"), lambda: next(plugin.watch("clock")),
                    lambda: channel.unary_unary("/clock.v1.ClockService/Now", lambda _: b"", lambda _: None)(None, timeout=5)):
            with self.assertRaises(grpc.RpcError) as raised:
                ask()
            self.assertEqual((grpc.StatusCode.PERMISSION_DENIED, SEEN), (raised.exception.code(), raised.exception.details()))
            self.assertIn(("said", "x"), [tuple(m) for m in raised.exception.trailing_metadata()])
            self.shown(raised.exception, lines)

    def test_a_service_that_is_refused_for_a_while(self) -> None:
        allowed = threading.Event()

        def refuses(name: str, context: grpc.ServicerContext, _: Callable[[], None]) -> None:
            if name == "WatchService" and not allowed.is_set():
                context.abort(grpc.StatusCode.NOT_FOUND, "not available")

        for patch in (mock.patch.object(calls, "_AGAIN", 0.05), mock.patch.object(calls, "_MOST_AGAIN", 0.2)):
            patch.start()
            self.addCleanup(patch.stop)
        host, plugin, _ = self.stage(refuses)
        plugin.start()
        now = plugin.service("clock").unary_unary("/clock.v1.ClockService/Now", lambda _: b"", lambda _: None)

        def code() -> grpc.StatusCode:
            with self.assertRaises(grpc.RpcError) as raised:
                now(None, timeout=5)
            found: grpc.StatusCode = raised.exception.code()
            return found

        begun = time.monotonic()
        self.until(lambda: host.count("WatchService") >= 5, lambda: host.counts)
        self.assertGreaterEqual(time.monotonic() - begun, 0.05 + 0.1 + 0.2 + 0.2)
        self.assertIs(grpc.StatusCode.NOT_FOUND, code())
        allowed.set()
        self.until(lambda: code() is grpc.StatusCode.UNAVAILABLE, lambda: host.counts)  # the host names no provider

    def test_who_leaves_a_loop_over_a_watch_has_ended_it(self) -> None:
        ended = threading.Semaphore(0)

        def act(name: str, context: grpc.ServicerContext, _: Callable[[], None]) -> None:
            if name == "WatchService":
                context.add_callback(ended.release)

        host, plugin, _ = self.stage(act)
        host.urls = ["https://127.0.0.1/services/clock/p"] * 2
        plugin.start()
        for _ in range(3):
            for state in plugin.watch("clock"):
                self.assertEqual("clock", state.service_type)
                break
            self.assertTrue(ended.acquire(timeout=40), "the host still tells somebody who has gone")
        with plugin.service("clock") as channel:
            pass
        gone = weakref.ref(channel)
        del channel
        gc.collect()
        self.assertIsNone(gone(), "a channel that was closed is kept")

    def test_a_type_that_another_plugin_provides_is_waited_for(self) -> None:
        left = threading.Event()

        def taken(name: str, context: grpc.ServicerContext, _: Callable[[], None]) -> None:
            if name == "RegisterService" and not left.is_set():
                context.abort(grpc.StatusCode.ALREADY_EXISTS, "another plugin provides the service type")

        host, plugin, lines = self.stage(taken)
        looked: list[None] = []
        with mock.patch.object(HostLink, "_look", lambda *_: looked.append(None) or b"leaf"):
            plugin.provide("clock", "1.0.0", "clock.v1.ClockService", mock.Mock())
            self.start(plugin)
            self.until(lambda: host.count("RegisterService") >= 3, lambda: host.counts)
            left.set()
            self.until(lambda: host.count("ReportHealth") >= 1, lambda: host.counts)
        waits = [line for line in lines if "another plugin" in line]
        self.assertGreaterEqual(len(waits), 3)
        self.assertTrue(all(line.startswith("service 'clock': another plugin provides it") for line in waits), waits)
        self.assertEqual((1, 1), (len(looked), host.count("Handshake")))  # nothing is wrong with the host

    def test_a_route_that_is_no_url_is_none(self) -> None:
        host, plugin, _ = self.stage(lambda *_: None)
        host.urls = ["http://[", "https://127.0.0.1/services/clock/p"]
        plugin.start()
        now = plugin.service("clock").unary_unary("/clock.v1.ClockService/Now", lambda _: b"", lambda _: True)

        def works() -> bool:
            try:
                return bool(now(None, timeout=5))
            except grpc.RpcError:
                return False

        self.until(works, lambda: host.counts)


class Said(unittest.TestCase):
    def test_what_goes_on_is_logged_seldom(self) -> None:
        lines, now = Lines(), [100.0]
        logger = logging.Logger("seldom", logging.INFO)
        logger.addHandler(lines)
        log = Log(logger)
        with mock.patch("connectplugin.log.time.monotonic", lambda: now[0]), mock.patch("connectplugin.log.threading.Timer") as timer:
            for i in range(100):
                log.info("enrolled as %d", i)
                log.debug("not wanted")
            log.info("something else")
            self.assertEqual([*(f"enrolled as {i}" for i in range(16)), "something else"], lines.said)
            (after, release, given), = (call.args for call in timer.call_args_list)
            self.assertAlmostEqual(10.0, after)
            now[0] += after
            release(*given)
            self.assertEqual(["enrolled as 99 (and 83 more like it)"], lines.said[17:])
            log.info("enrolled as %d", 100)
            self.assertEqual(18, len(lines.said))
            log.close()
            self.assertEqual(["enrolled as 100"], lines.said[18:])
            for i in range(100):
                log.info("enrolled as %d", i)
            self.assertEqual(19, len(lines.said))
            now[0] += 3600
            for i in range(100):
                log.info("enrolled as %d", i)
            self.assertEqual(19 + 16, len(lines.said))

    def test_the_line_is_that_of_who_said_it(self) -> None:
        with self.assertLogs("connectplugin", "INFO") as logs:
            Log(logging.getLogger("connectplugin")).info("here")
        self.assertEqual("test_the_line_is_that_of_who_said_it", logs.records[0].funcName)

    def test_characters_that_nobody_sees(self) -> None:
        for c in (0x00, 0x07, 0x0A, 0x0D, 0x1B, 0x7F, 0x85, 0x9B, 0xA0, 0xAD, 0x34F, 0x115F, 0x180E, 0x200B, 0x200D, 0x202E, 0x2028, 0x2060,
                  0x2064, 0x2066, 0x2800, 0x3164, 0xD800, 0xE000, 0xFE0F, 0xFEFF, 0xFFF9, 0xFFFB, 0xE0001, 0xE0041, 0xE0100):
            self.assertEqual("a\ufffdb", printable(f"a{chr(c)}b"), hex(c))
        for text in ('{"a": "ü é 🚀"}', "a b", "日本語", "\ufffd"):
            self.assertEqual(text, printable(text))
        self.assertEqual("a b", printable("a\tb"))
        self.assertLess(len(printable("x" * 10_000)), 2100)


if __name__ == "__main__":
    unittest.main()

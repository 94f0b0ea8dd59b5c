"""Which channels a plugin's words and calls go over."""
import os
import socket
import threading
import time
import unittest
from concurrent import futures
from typing import Any, Callable, Iterator
from unittest import mock

import grpc

from connectplugin import link
from connectplugin.link import HostLink
from connectplugin.session import Identity, Session
from connectplugin.wire import lifecycle_pb2 as lc

TAKEN = 4  # streams of a connection, and so calls of a channel
MOST = 2  # channels for calls


def same(message: bytes) -> bytes:
    return message


class Host(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A host that takes four streams of a connection. Calls of /a.A/ stay open until released."""

    def __init__(self) -> None:
        self.mu = threading.Condition()
        self.held: list[str] = []  # the connections of the calls that are open
        self.reports = 0
        self.released = threading.Event()
        self.server = grpc.server(futures.ThreadPoolExecutor(64), options=(("grpc.max_concurrent_streams", TAKEN),))
        self.server.add_generic_rpc_handlers((self,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def service(self, details: Any) -> Any:
        if details.method == "/connectplugin.v1.PluginLifecycle/ReportHealth":
            return grpc.unary_unary_rpc_method_handler(self.report, same, same)
        if details.method == "/a.A/Watch":
            return grpc.unary_stream_rpc_method_handler(self.watch, same, same)
        return grpc.unary_unary_rpc_method_handler(lambda r, c: next(self.watch(r, c)), same, same)

    def report(self, _: bytes, __: Any) -> bytes:
        with self.mu:
            self.reports += 1
        return b""

    def watch(self, _: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        with self.mu:
            self.held.append(context.peer())
            self.mu.notify_all()
        self.released.wait(60)
        yield b""

    def has(self, calls: int) -> bool:
        with self.mu:
            return self.mu.wait_for(lambda: len(self.held) >= calls, 20)


class Channels(unittest.TestCase):
    def setUp(self) -> None:
        self.host = Host()
        self.ended: set[bytes] = set()  # certificates of the host's
        self.outlived: set[bytes] = set()
        for patch in (
            mock.patch.object(link, "_CHANNEL_CALLS", TAKEN), mock.patch.object(link, "_MOST_CHANNELS", MOST),
            mock.patch.object(grpc, "secure_channel", lambda at, _, options: grpc.insecure_channel(at, options)),
            mock.patch.object(link, "ended", lambda leaf: leaf in self.ended), mock.patch.object(link, "outlived", lambda leaf: leaf in self.outlived),
            mock.patch.object(grpc, "ssl_channel_credentials"), mock.patch("ssl.DER_cert_to_PEM_cert", lambda _: ""),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        self.credentials = credentials = mock.Mock(**{"read.return_value": mock.Mock(key=None, certificate=None)})
        self.link = HostLink(f"https://127.0.0.1:{self.host.port}", credentials, mock.Mock(), lambda: None, mock.Mock())
        self.addCleanup(self.host.server.stop, None)
        self.addCleanup(self.link.close)
        self.addCleanup(self.host.released.set)
        with mock.patch.object(self.link, "_look", lambda _: b"leaf"):
            self.link.reach(5)

    def eventually(self, holds: Callable[[], bool]) -> None:
        for _ in range(2000):
            if holds():
                return
            time.sleep(0.01)
        self.fail("it does not come to hold")

    def report(self) -> None:
        session = mock.Mock(_link=self.link, _settings=mock.Mock(timeout=5))
        Session._call(session, "PluginLifecycle/ReportHealth", lc.ReportHealthRequest(), lc.ReportHealthResponse,
                      Identity("me", "x", float("inf")))

    def test_reports_do_not_wait_behind_calls(self) -> None:
        streams = [self.link.call("unary_stream", "/a.A/Watch", same, same)(b"") for _ in range(TAKEN)]
        calls = [self.link.call("unary_unary.future", "/a.A/One", same, same)(b"") for _ in range(TAKEN)]
        self.assertTrue(self.host.has(MOST * TAKEN), self.host.held)
        self.assertEqual(MOST, len(set(self.host.held)))
        calls += [self.link.call("unary_unary.future", "/a.A/One", same, same)(b"") for _ in range(2)]  # these wait
        self.report()
        self.assertEqual((1, MOST * TAKEN), (self.host.reports, len(self.host.held)))
        self.host.released.set()
        self.assertEqual([[b""]] * TAKEN, [list(s) for s in streams])
        self.assertEqual([b""] * (TAKEN + 2), [c.result(20) for c in calls])

    def test_a_renewed_certificate_is_shown(self) -> None:
        def reach(look: Callable[[Any], bytes]) -> grpc.Channel:
            with mock.patch.object(self.link, "_look", look):
                self.link.reach(5)
            return self.link.channel()

        def away(_: Any) -> bytes:
            raise link.Unreachable("away")

        streams = [self.link.call("unary_stream", "/a.A/Watch", same, same)(b"")]
        self.assertTrue(self.host.has(1))
        first, before = self.link.channel(), self.link._for_calls[0]
        for key, certificate, look in ((None, None, away), ("other", "other", away), (None, "renewed", away)):
            self.credentials.read.return_value = mock.Mock(key=key, certificate=certificate)
            self.assertIs(first, reach(look))
        self.assertFalse(before.retired)
        self.assertIsNot(first, reach(lambda _: b"leaf"))
        self.assertTrue(before.retired)
        streams.append(self.link.call("unary_stream", "/a.A/Watch", same, same)(b""))
        self.assertTrue(self.host.has(2))
        self.assertEqual(2, len(set(self.host.held)))
        self.report()
        self.host.released.set()
        self.assertEqual([[b""]] * 2, [list(s) for s in streams])

    def test_who_shows_a_certificate_that_has_ended_is_looked_at_again(self) -> None:
        stream = self.link.call("unary_stream", "/a.A/Watch", same, same)(b"", timeout=60)
        self.assertTrue(self.host.has(1))
        first, before = self.link.channel(), self.link._for_calls[0]
        self.ended.add(b"leaf")
        with mock.patch.object(self.link, "_look", lambda _: b"renewed"):
            self.link.reach(5)
        self.assertIsNot(first, self.link.channel())
        self.assertTrue(before.retired)
        self.assertIsNone(stream.exception() if stream.done() else None)  # it goes on
        self.outlived.add(b"leaf")
        self.link.reach(5)
        self.assertIs(grpc.StatusCode.CANCELLED, stream.code())  # its channel was closed
        self.report()
        self.outlived.add(b"renewed")
        with mock.patch.object(self.link, "_look", side_effect=link.Unreachable("away")), self.assertRaises(link.Unreachable):
            self.link.reach(5)
        with self.assertRaises(link.Unreachable):
            self.link.channel()
        with mock.patch.object(self.link, "_look", lambda _: b"another"):
            self.link.reach(5)
        self.report()

    def test_a_proxy_of_the_environment_gets_nothing(self) -> None:
        self.host.released.set()
        with socket.create_server(("127.0.0.1", 0)) as proxy:
            address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
            names = ("grpc_proxy", "https_proxy", "http_proxy")
            with mock.patch.dict(os.environ, {**dict.fromkeys(names, address), "no_grpc_proxy": "", "no_proxy": ""}):
                self.link.close()
                with mock.patch.object(self.link, "_look", lambda _: b"leaf"):
                    self.link.reach(5)
                self.report()
                self.assertEqual(b"", self.link.call("unary_unary", "/a.A/One", same, same)(b"", timeout=20))

    def test_a_place_is_free_again(self) -> None:
        self.host.released.set()
        for _ in range(3 * MOST * TAKEN):
            self.link.call("unary_unary", "/a.A/One", same, same)(b"", timeout=20)
            self.link.call("unary_unary.with_call", "/a.A/One", same, same)(b"", timeout=20)
            self.assertEqual([b""], list(self.link.call("unary_stream", "/a.A/Watch", same, same)(b"", timeout=20)))
            self.link.call("unary_stream", "/a.A/Watch", same, same)(b"").cancel()
            with self.assertRaises(TypeError):
                self.link.call("unary_unary", "/a.A/One", same, same)(b"", nothing=True)
        self.assertLessEqual(len(set(self.host.held)), MOST)
        with self.link._mu:
            kept = list(self.link._for_calls)
        self.eventually(lambda: sum(c.open for c in kept) == 0)

    def test_who_lost_the_host_is_replaced(self) -> None:
        self.host.released.set()
        call = self.link.call("unary_unary", "/a.A/One", same, same)
        call(b"", timeout=20)
        before = self.link._for_calls[0]
        self.host.server.stop(None).wait()

        def is_lost() -> bool:
            if not before.retired:  # a channel that lost its connection rests until somebody calls
                with self.assertRaises(grpc.RpcError):
                    call(b"", timeout=20)
            return before.retired

        self.eventually(is_lost)
        self.assertNotIn(before, self.link._for_calls)

    def test_a_channel_that_cannot_connect_has_the_host_looked_at(self) -> None:
        self.host.released.set()
        woken = threading.Event()
        self.link._wake = woken.set
        with mock.patch.object(self.link, "_look", lambda _: self.fail("it stands")):
            self.link.reach(5)
        with mock.patch.object(grpc, "secure_channel", lambda _, __, options: grpc.insecure_channel("127.0.0.1:1", options)):  # nobody
            with self.assertRaises(grpc.RpcError):
                self.link.call("unary_unary", "/a.A/One", same, same)(b"", timeout=20)
        self.assertTrue(woken.wait(20))
        with mock.patch.object(self.link, "_look", return_value=b"renewed") as look:
            self.link.reach(5)
        look.assert_called_once()
        self.assertEqual(b"", self.link.call("unary_unary", "/a.A/One", same, same)(b"", timeout=20))


if __name__ == "__main__":
    unittest.main()

"""Calls of a host's capabilities: where they go, with what, and when another grant is asked for."""
import dataclasses
import threading
import time
import unittest
from concurrent import futures
from email.utils import formatdate
from typing import Any, Callable, Iterator, Optional
from unittest import mock

import grpc

from connectplugin import ConfigError, HostError, NoGrant, NoProvider, Plugin
from connectplugin.capabilities import CapabilityChannel, Wanted, request_grant
from connectplugin.errors import Closed
from connectplugin.link import HostLink
from connectplugin.session import Identity
from connectplugin.wire import broker_pb2 as broker

CHALLENGE = (("www-authenticate", "Bearer"),)


def same(message: bytes) -> bytes:
    return message


class Host(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A host with the capability clock, which knows the plugin "me" by the token of the identity of the moment."""

    def __init__(self) -> None:
        self.mu = threading.Lock()
        self.token = "mine1"
        self.base = "https://elsewhere.invalid"
        self.path = "/capabilities/clock/"
        self.word = "grant"
        self.life: Optional[float] = 3600.0
        self.ahead = 0.0  # of this machine's clock
        self.fails: Optional[grpc.StatusCode] = None
        self.answers = threading.Event()
        self.answers.set()
        self.asked: list[broker.RequestCapabilityRequest] = []
        self.valid: dict[str, str] = {}  # tokens by path
        self.called: list[tuple[str, dict[str, str]]] = []
        self.server = grpc.server(futures.ThreadPoolExecutor(64))
        self.server.add_generic_rpc_handlers((self,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def service(self, details: Any) -> Any:
        if details.method == "/connectplugin.v1.CapabilityBroker/RequestCapability":
            return grpc.unary_unary_rpc_method_handler(
                self.grant, broker.RequestCapabilityRequest.FromString, broker.RequestCapabilityResponse.SerializeToString)
        kind = details.method.rpartition("/")[2]

        def call(request: Any, context: grpc.ServicerContext) -> bytes:
            told = {k: v for k, v in context.invocation_metadata()}
            base = details.method.removesuffix("/a.A/" + kind)
            with self.mu:
                good = base in self.valid and told.get("authorization") == "Bearer " + self.valid[base]
            if not good:
                context.set_trailing_metadata(CHALLENGE)
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")
            with self.mu:
                self.called.append((details.method, told))
            return b"".join(request) if "stream" == kind.split("_")[0] else request

        def calls(request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
            yield call(request, context)

        return getattr(grpc, kind + "_rpc_method_handler")(calls if kind.endswith("stream") else call, same, same)

    def grant(self, request: broker.RequestCapabilityRequest, context: grpc.ServicerContext) -> broker.RequestCapabilityResponse:
        told = {k: v for k, v in context.invocation_metadata()}
        with self.mu:
            self.asked.append(request)
            number, fails, known = len(self.asked), self.fails, told.get("authorization") == "Bearer " + self.token
        self.answers.wait(20)
        if not known:
            context.set_trailing_metadata(CHALLENGE)
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")
        if fails is not None:
            context.abort(fails, "not available")
        grant = broker.CapabilityGrant(
            grant_id=f"g{number}", endpoint_url=f"{self.base}{self.path}g{number}", bearer_token=f"{self.word}{number}")
        if self.life is not None:
            now = time.time() + self.ahead
            grant.expires_at.FromNanoseconds(int((now + self.life) * 1e9))
            if self.ahead:
                context.send_initial_metadata((("date", formatdate(now, usegmt=True)),))
        with self.mu:
            self.valid[f"{self.path}g{number}"] = grant.bearer_token
        return broker.RequestCapabilityResponse(grant=grant)

    def revoke(self) -> None:
        with self.mu:
            self.valid.clear()


class Me:
    """A session that gets another identity where the host does not know the one that there is."""

    def __init__(self, host: Host) -> None:
        self.host, self.number = host, 1
        self.forgotten: list[str] = []
        self.error: Optional[Exception] = None

    def current(self) -> Identity:
        return Identity(f"me{self.number}", f"mine{self.number}", float("inf"))

    def identity(self, _: Optional[float] = None) -> Identity:
        if self.error is not None:
            raise self.error
        return self.current()

    def refused(self, identity: Identity) -> None:
        if identity.runtime_id == f"me{self.number}":
            self.forgotten.append(identity.runtime_id)
            self.number += 1


class Capabilities(unittest.TestCase):
    def setUp(self) -> None:
        self.host = Host()
        for patch in (
            mock.patch.object(grpc, "secure_channel", lambda at, _, options: grpc.insecure_channel(at, options)),
            mock.patch.object(grpc, "ssl_channel_credentials"), mock.patch("ssl.DER_cert_to_PEM_cert", lambda _: ""),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        credentials = mock.Mock(**{"read.return_value": mock.Mock(key=None, certificate=None)})
        self.link = HostLink(f"https://127.0.0.1:{self.host.port}", credentials, mock.Mock(), lambda: None, mock.Mock())
        self.addCleanup(self.host.server.stop, None)
        self.addCleanup(self.link.close)
        self.addCleanup(self.host.answers.set)
        with mock.patch.object(self.link, "_look", lambda _: b"leaf"):
            self.link.reach(5)
        self.me: Any = Me(self.host)
        self.clock = self.channel()

    def channel(self, timeout: float = 10, constraint: str = ">=1.2, <2") -> CapabilityChannel:
        return CapabilityChannel(self.me, self.link, Wanted("clock", constraint, "the time"), timeout)

    def call(self, kind: str = "unary_unary", timeout: Optional[float] = 20, on: Optional[CapabilityChannel] = None) -> bytes:
        kind, _, how = kind.partition(".")
        multi = getattr(on or self.clock, kind)("/a.A/" + kind, same, same)
        forged = (("authorization", "Bearer forged"), ("x-plugin-runtime-id", "forged"), ("x-plugin-constraint", "forged"), ("mine", "kept"))
        got = (getattr(multi, how) if how else multi)(iter([b"a", b"b"]) if kind.startswith("stream") else b"ab", timeout=timeout, metadata=forged)
        if how == "with_call":
            return bytes(got[0])
        return b"".join(got) if kind.endswith("stream") else bytes(got.result(20) if how else got)

    def refusal(self, *args: Any, **options: Any) -> Any:
        with self.assertRaises(grpc.RpcError) as raised:
            self.call(*args, **options)
        return raised.exception

    def until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not holds():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.001)

    KINDS = ("unary_unary", "unary_unary.with_call", "unary_unary.future", "unary_stream", "stream_unary", "stream_unary.with_call",
             "stream_unary.future", "stream_stream")

    def test_calls_of_all_kinds_go_to_the_grants_path_at_the_host_with_the_grant(self) -> None:
        for kind in self.KINDS:
            self.assertEqual(b"ab", self.call(kind), kind)
        self.assertEqual(1, len(self.host.asked))
        asked = self.host.asked[0]
        self.assertEqual(("clock", ">=1.2, <2", "the time"), (asked.capability_type, asked.min_version, asked.reason))
        for (path, told), kind in zip(self.host.called, self.KINDS, strict=True):
            self.assertEqual("/capabilities/clock/g1/a.A/" + kind.partition(".")[0], path)
            self.assertEqual(("Bearer grant1", "me1", None, "kept"), tuple(
                told.get(k) for k in ("authorization", "x-plugin-runtime-id", "x-plugin-constraint", "mine")))

    def test_another_grant_in_time(self) -> None:
        for life, part, many, ahead in ((3600.0, 0.6, 1, 0), (3600.0, 0.7, 2, 0), (None, 1e6, 1, 0), (-5.0, 1e6, 1, 0), (3600.0, 0.6, 1, 5000),
                                        (3600.0, 0.7, 2, 5000), (3600.0, 0.6, 1, -3590), (3600.0, 0.7, 2, -5000)):
            with self.subTest(f"{part} of {life} by a clock {ahead} s ahead"):
                self.host.life, self.host.ahead, self.host.asked, self.clock = life, ahead, [], self.channel()
                self.call()
                g = self.clock._grant
                assert g is not None
                self.clock._grant = dataclasses.replace(g, at=g.at - 3600 * part)
                self.call()
                self.assertEqual(many, len(self.host.asked))

    def test_another_identity_has_another_grant(self) -> None:
        self.call()
        self.me.number, self.host.token = 2, "mine2"
        self.call()
        self.assertEqual(["Bearer grant1", "Bearer grant2"], [told["authorization"] for _, told in self.host.called])
        self.assertEqual("me2", self.host.called[1][1]["x-plugin-runtime-id"])

    def test_a_grant_that_was_taken_away_is_replaced_and_the_identity_stays(self) -> None:
        for kind in self.KINDS:
            with self.subTest(kind):
                self.call()
                refused = self.clock._grant
                self.host.revoke()
                self.assertIs(grpc.StatusCode.UNAUTHENTICATED, self.refusal(kind).code())
                self.until(lambda: self.clock._grant is not refused)
                self.assertEqual(b"ab", self.call(kind))
        self.assertEqual(([], 1 + len(self.KINDS)), (self.me.forgotten, len(self.host.asked)))

    def test_a_call_is_made_once_more_where_the_host_lost_the_plugin(self) -> None:
        self.call()
        self.host.revoke()
        self.host.token = "mine2"
        self.assertEqual(b"ab", self.call())
        self.assertEqual((["me1"], "Bearer grant3"), (self.me.forgotten, self.host.called[-1][1]["authorization"]))

    def test_a_host_that_loses_each_identity_is_asked_twice(self) -> None:
        self.host.token = "nobody"
        for ask in (lambda: self.refusal(), lambda: self.assertRaises(
                HostError, request_grant, self.me, self.link, Wanted("clock"), 1, 5)):
            self.host.asked = []
            ask()
            self.assertEqual(2, len(self.host.asked))

    def test_what_the_host_does_not_grant(self) -> None:
        for code, says in ((grpc.StatusCode.NOT_FOUND, "PluginPolicy.Capabilities"), (grpc.StatusCode.RESOURCE_EXHAUSTED, "")):
            self.host.fails = code
            for ask in (lambda: self.refusal(), lambda: self.refused_by_hand()):
                e = ask()
                self.assertIsInstance(e, HostError)
                self.assertIs(code, e.code())
                self.assertIn(says, e.details())
                self.assertIn("not available", e.details())
        self.assertEqual(([], []), (self.host.called, self.me.forgotten))

    def refused_by_hand(self) -> HostError:
        with self.assertRaises(HostError) as raised:
            request_grant(self.me, self.link, Wanted("clock"), 1, 5)
        return raised.exception

    def test_a_malformed_grant_is_used_for_nothing(self) -> None:
        for base, path, word in (("", "/capabilities/other/", "grant"), ("", "/services/clock/", "grant"), ("", "/capabilities/clock/../", "grant"),
                                 ("", "/capabilities/clock/.", "grant"), ("", "/capabilities/clock/a/", "grant"), ("https://[", "/", "grant"),
                                 ("", "/capabilities/clock/", "two words"), ("", "/capabilities/clock/", "x" * 600)):
            with self.subTest(path + word):
                self.host.base, self.host.path, self.host.word = base, path, word
                e = self.refusal()
                self.assertIsInstance(e, NoGrant)
                self.assertIs(grpc.StatusCode.INTERNAL, e.code())
                self.assertEqual("capability 'clock': the host's grant is malformed", e.details())
        self.assertEqual([], self.host.called)

    def test_who_waits_for_a_grant_waits_no_longer_than_the_call_may_take(self) -> None:
        self.host.answers.clear()
        with futures.ThreadPoolExecutor(3) as pool:
            failed = [pool.submit(self.refusal, timeout=t) for t in (0.3, 0.3, 0.3)]
            for f in failed:
                self.assertIs(grpc.StatusCode.DEADLINE_EXCEEDED, f.result(10).code())
        self.assertIs(grpc.StatusCode.DEADLINE_EXCEEDED, self.refusal(timeout=None, on=self.channel(timeout=0.3)).code())
        with futures.ThreadPoolExecutor(1) as pool:
            asks, many = pool.submit(self.call, timeout=None), len(self.host.asked) + 1
            self.until(lambda: len(self.host.asked) == many)
            for kind in self.KINDS:
                self.assertIs(grpc.StatusCode.DEADLINE_EXCEEDED, self.refusal(kind, timeout=0.01).code())
            self.assertEqual(many, len(self.host.asked))
            self.assertFalse(asks.done())
            self.assertEqual([], self.host.called)
            self.host.answers.set()
            self.assertEqual(b"ab", asks.result(20))

    def test_many_calls_share_a_grant(self) -> None:
        with futures.ThreadPoolExecutor(20) as pool:
            self.assertEqual({b"ab"}, set(pool.map(lambda _: self.call(), range(60))))
        self.assertEqual(1, len(self.host.asked))

    def test_who_asks_again_later_gets_what_the_host_has_then(self) -> None:
        for age, fails, many, token in ((30.0, None, 1, 1), (500.0, None, 2, 2), (500.0, grpc.StatusCode.RESOURCE_EXHAUSTED, 2, 1)):
            with self.subTest(f"{age} {fails}"):
                self.host.asked, self.host.fails, self.clock = [], None, self.channel()
                self.call()
                g = self.clock._grant
                assert g is not None
                self.clock._grant = dataclasses.replace(g, at=g.at - age)
                self.host.fails = fails
                self.clock.confirm()
                self.call()
                self.call()
                self.assertEqual((many, f"Bearer grant{token}"), (len(self.host.asked), self.host.called[-1][1]["authorization"]))

    def test_a_plugin_that_has_ended_or_lost_its_host_calls_nobody(self) -> None:
        self.me.error = Closed("the plugin has ended")
        e = self.refusal()
        self.assertIsInstance(e, NoProvider)
        self.assertIs(grpc.StatusCode.UNAVAILABLE, e.code())
        self.assertEqual([], self.host.asked)


class Shared(unittest.TestCase):
    def test_who_asks_for_the_same_gets_the_same(self) -> None:
        plugin = Plugin(host="https://127.0.0.1:1", self_id="greeter", credentials=mock.Mock(), host_identity="spiffe://td.test/host")
        self.assertIs(plugin.capability("clock", "1"), plugin.capability("clock", "1"))
        self.assertIsNot(plugin.capability("clock", "1"), plugin.capability("clock"))
        for i in range(1000):
            plugin.capability(f"c{i}")
        self.assertLessEqual(len(plugin._capabilities), 256)
        for name in ("", "a/b", "../x", "x" * 129):
            with self.assertRaises(ConfigError):
                plugin.capability(name)


if __name__ == "__main__":
    unittest.main()

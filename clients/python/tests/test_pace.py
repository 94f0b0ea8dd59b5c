"""When to try again."""
import unittest
from typing import Any, Optional
from unittest import mock

import grpc

from connectplugin.calls import ServiceChannel, _Multi
from connectplugin.pace import Pace, asked_delay


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def status(seconds: int, kind: bytes = b"type.googleapis.com/google.rpc.RetryInfo") -> bytes:
    """A google.rpc.Status with a code, a text and one detail."""
    delay = field(1, bytes([1 << 3, seconds, 2 << 3, 0x80, 0xCA, 0xB5, 0xEE, 0x01]))  # and half a second
    return b"\x08\x08" + field(2, b"too many requests") + field(3, field(1, kind) + field(2, delay))


class Refusal(grpc.RpcError):  # type: ignore[misc]
    """An answer with metadata."""

    def __init__(self, code: grpc.StatusCode, trailing: tuple[tuple[str, Any], ...]) -> None:
        super().__init__()
        self._code, self._trailing = code, trailing

    def code(self) -> grpc.StatusCode:
        return self._code

    def initial_metadata(self) -> None:
        return None

    def trailing_metadata(self) -> Any:
        return self._trailing


class Asked(unittest.TestCase):
    def test_what_a_host_asks(self) -> None:
        details = "grpc-status-details-bin"
        for name, trailing, want in (
            ("a RetryInfo", ((details, status(7)),), 7.5),
            ("seconds", (("retry-after", "12"),), 12.0),
            ("both", ((details, status(7)), ("retry-after", "12")), 7.5),
            ("another detail", ((details, status(7, b"a/b.C")),), 0.0),
            ("a word", (("retry-after", "soon"),), 0.0),
            ("for ever", (("retry-after", "9" * 30),), 300.0),
            ("rubbish", ((details, b"\x1a\xff\x01"),), 0.0),
            ("cut off", ((details, status(7)[:-3]),), 0.0),
            ("nothing", (), 0.0),
        ):
            self.assertAlmostEqual(want, asked_delay(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, trailing)), msg=name)

    def test_it_comes_on_top(self) -> None:
        pace = Pace()
        wait = pace.failed(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, (("retry-after", "9"),)))
        self.assertGreater(wait, 9.4)
        self.assertLess(Pace().failed(Refusal(grpc.StatusCode.UNAVAILABLE, (("retry-after", "9"),))), 5.1)

    def test_what_held_for_less_than_a_second_was_of_no_use(self) -> None:
        now = [100.0]
        with mock.patch("connectplugin.pace.time.monotonic", lambda: now[0]), \
                mock.patch("connectplugin.pace.random.uniform", lambda least, most: most):
            pace, error = Pace(), Refusal(grpc.StatusCode.UNAVAILABLE, ())

            def wait(much: float, made: float, held: float = 0.0) -> None:
                self.assertAlmostEqual(much, made)
                now[0] += made
                pace.reached()
                now[0] += held

            wait(0.1, pace.lost(), 0.9)
            wait(0.25, pace.failed(error), 0.9)
            wait(0.5375, pace.lost(), 0.9)
            now[0] += 60
            pace = Pace()
            wait(0.25, pace.failed(error), 0.9)
            for _ in range(30):
                made = pace.lost()
                wait(made, made, 0.9)
            wait(5.0, pace.failed(error), 1.0)
            wait(0.25, pace.failed(error), 1.0)
            wait(0.1, pace.lost(), 60.0)
            wait(0.1, pace.lost())

    def test_identities_that_a_host_forgets_at_once(self) -> None:
        now = [100.0]
        with mock.patch("connectplugin.pace.time.monotonic", lambda: now[0]), \
                mock.patch("connectplugin.pace.random.uniform", lambda least, most: most):
            pace = Pace()
            self.assertEqual([0, 0, 0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5], [pace.forgotten(99.1) for _ in range(11)])
            for _ in range(2000):
                pace.forgotten(99.1)
            self.assertEqual([0, 0, 0, 0, 0.1], [pace.forgotten(given) for given in (99.0, 99.1, 99.1, 99.1, 99.1)])


class Any_(unittest.TestCase):
    def route(self, chooses: bool, constraint: str, metadata: Optional[tuple[tuple[str, str], ...]] = None) -> tuple[str, Any]:
        session, link = mock.Mock(), mock.Mock()
        session.host_chooses.return_value = chooses
        session.identity.return_value = mock.Mock(runtime_id="me", **{"metadata.return_value": ()})
        link.call.return_value.return_value.endpoint.endpoint_url = "/services/clock/clock-2"
        with mock.patch("connectplugin.calls.threading.Thread"):
            channel = ServiceChannel(session, link, "clock", constraint)
        channel._route = route = channel._route_of(mock.Mock(state="available", endpoint_url="/services/clock/clock-1"))
        channel._owner = "me"
        _, options, _ = _Multi(channel, "unary_unary", "/a.v1.A/B", None, None)._aimed(None, metadata)
        self.assertEqual(route + "/a.v1.A/B", link.call.call_args.args[1])
        return route, options["metadata"]

    def test_the_host_chooses_where_it_says_that_it_does(self) -> None:
        mine = (("x-plugin-constraint", "forged"), ("own", "x"))
        self.assertEqual(("/services/clock/-", ()), self.route(True, ""))
        self.assertEqual(("/services/clock/-", (("own", "x"), ("x-plugin-constraint", ">=1.2, <2"))), self.route(True, ">=1.2, <2", mine))
        self.assertEqual(("/services/clock/clock-1", (("own", "x"),)), self.route(False, "", mine))
        self.assertEqual(("/services/clock/clock-2", ()), self.route(False, ">=1.2, <2"))


if __name__ == "__main__":
    unittest.main()

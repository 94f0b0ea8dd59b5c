"""What run does where the host is not there, and what is refused before it is asked."""
import os
import signal
import ssl
import subprocess
import sys
import unittest
from typing import Any
from unittest import mock

from connectplugin import ConfigError, HostNotTrusted, Plugin
from connectplugin.link import HostLink, Unreachable
from connectplugin.plugin import fit_reason


class Away(unittest.TestCase):
    def test_run_ends_at_sigterm(self) -> None:
        for name, address in (("an address of its own", "127.0.0.1:0"), ("the address towards its host", "")):
            with self.subTest(name):
                asked = [0]

                def reach(*_: Any) -> None:
                    asked[0] += 1
                    if asked[0] == 3:
                        os.kill(os.getpid(), signal.SIGTERM)
                    raise Unreachable("nobody listens")

                before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
                for number, handler in before.items():
                    self.addCleanup(signal.signal, number, handler)
                with mock.patch.object(HostLink, "reach", side_effect=reach), \
                        mock.patch("connectplugin.plugin.new_server", return_value=(mock.MagicMock(), 1)), \
                        self.assertLogs("connectplugin", "WARNING") as logs:
                    Plugin(host="https://127.0.0.1:1", self_id="greeter", credentials=mock.Mock(), address=address,
                           host_identity="spiffe://td.test/host").run()
                self.assertEqual([r.getMessage() for r in logs.records], ["waiting for the host: nobody listens"])
                self.assertGreaterEqual(asked[0], 3)
                for number in (signal.SIGTERM, signal.SIGINT):
                    self.assertIs(before[number], signal.getsignal(number), "a program that goes on ends by signals as before")


    def test_a_signal_comes_while_the_main_thread_looks_whether_one_came(self) -> None:
        # In a process of its own, which nothing but its end by force would get out of the lock again.
        subprocess.run([sys.executable, "-c", _SIGNALLED], check=True, timeout=60, stderr=subprocess.DEVNULL)

    def test_what_does_not_start_leaves_nothing(self) -> None:
        server = mock.MagicMock()
        with mock.patch("connectplugin.plugin.new_server", return_value=(server, 1)), \
                mock.patch.object(HostLink, "reach", side_effect=HostNotTrusted("it is another")), self.assertRaises(HostNotTrusted):
            with Plugin(host="https://127.0.0.1:1", self_id="greeter", credentials=mock.Mock(), address="127.0.0.1:0",
                        host_identity="spiffe://td.test/host"):
                self.fail("it has started")
        server.stop.assert_called_once()


_SIGNALLED = """
import signal
from unittest import mock
from connectplugin import Plugin
from connectplugin.link import HostLink, Unreachable

plugin = Plugin(host="https://127.0.0.1:1", self_id="greeter", credentials=mock.Mock(), host_identity="spiffe://td.test/host")
waits = plugin.stopping._cond.wait

def wait(limit):  # with the lock of the event
    signal.raise_signal(signal.SIGTERM)
    return waits(limit)

plugin.stopping._cond.wait = wait
with mock.patch.object(HostLink, "reach", side_effect=Unreachable("nobody listens")):
    plugin.run()
"""


class Addresses(unittest.TestCase):
    def test_where_it_listens_and_where_it_is_called(self) -> None:
        for address, local, base_url, listens, called in (
            ("", "10.0.0.7", "", "10.0.0.7:0", "https://10.0.0.7:9"),
            ("", "fd00::7", "", "[fd00::7]:0", "https://[fd00::7]:9"),
            ("10.0.0.7:9", "", "", "10.0.0.7:9", "https://10.0.0.7:9"),
            ("[fd00::7]:9", "", "", "[fd00::7]:9", "https://[fd00::7]:9"),
            ("plugin.test:9", "", "", "plugin.test:9", "https://plugin.test:9"),
            ("0.0.0.0:9", "10.0.0.7", "", "0.0.0.0:9", "https://10.0.0.7:9"),
            (":9", "10.0.0.7", "", "[::]:9", "https://10.0.0.7:9"),
            ("[::]:9", "fd00::7", "", "[::]:9", "https://[fd00::7]:9"),
            ("0.0.0.0:9", "", "https://plugin.test:443", "0.0.0.0:9", "https://plugin.test:443"),
        ):
            def reach(link: HostLink, _: float, local: str = local) -> None:
                if not local:
                    raise AssertionError("the host is asked for an address that is known")
                link.local = local

            with self.subTest(address, base_url=base_url), mock.patch.object(HostLink, "reach", reach), \
                    mock.patch.multiple("connectplugin.plugin.Session", start=mock.DEFAULT, await_ready=mock.DEFAULT), \
                    mock.patch("connectplugin.plugin.new_server", return_value=(mock.MagicMock(), 9)) as server:
                plugin = Plugin(host="https://127.0.0.1:1", self_id="greeter", credentials=mock.Mock(), host_identity="spiffe://td.test/host",
                                address=address, base_url=base_url)
                plugin.provide("clock", "1.0.0", "clock.v1.ClockService", mock.Mock())
                plugin.start()
                self.assertEqual(listens, server.call_args.args[3])
                self.assertEqual(called, plugin._registrations()[0].metadata["base_url"])

    def test_grace(self) -> None:
        server = mock.MagicMock()
        with mock.patch.multiple("connectplugin.plugin.Session", start=mock.DEFAULT, await_ready=mock.DEFAULT), \
                mock.patch("connectplugin.plugin.new_server", return_value=(server, 9)):
            plugin = Plugin(host="https://127.0.0.1:1", self_id="greeter", credentials=mock.Mock(), host_identity="spiffe://td.test/host",
                            address="127.0.0.1:9", grace=25)
            plugin.start()
            plugin.stop()
        server.stop.assert_called_once_with(25)


class Config(unittest.TestCase):
    def test_what_no_host_takes_is_refused_before_it_is_asked(self) -> None:
        def make(**changed: Any) -> Plugin:
            given: Any = {"host": "https://127.0.0.1:1", "self_id": "greeter", "credentials": mock.Mock(),
                          "host_identity": "spiffe://td.test/host", **changed}
            return Plugin(**given)

        for changed, wanted in (
            ({"self_id": "a b"}, "self_id: 'a b' is no name"),
            ({"self_id": "x" * 129}, "self_id"),
            ({"self_id": ".a"}, "self_id"),
            ({"self_version": "x"}, "self_version: 'x' is no semantic version"),
            ({"requires": ["a b"]}, "requires: 'a b' is no name"),
            ({"host": "https://127.0.0.1:99999"}, "host: 'https://127.0.0.1:99999' is no base URL"),
            ({"host": "https://127.0.0.1:0"}, "port 0"),
            ({"host": "https://[::1"}, "is no base URL"),
            ({"host": "https://127.0.0.1:x"}, "is no base URL"),
            ({"host": "https://me:hidden@127.0.0.1:1"}, "host: carries credentials"),
            ({"host": "https://me:hidden@127.0.0.1:x"}, "host: carries credentials"),
            ({"host": "https://127.0.0.1:1?token=hidden"}, "host: carries credentials, a query"),
            ({"credentials": "run/greeter"}, "credentials: are none; write Credentials(DIRECTORY)"),
            ({"secret": "sixteen letters or more"}, "secret: is text; write bytes"),
            ({"requires": "clock"}, "requires: is one text, of which each letter would count; write a list, ['clock']"),
            ({"host_pins": "ab" * 32}, "host_pins: is one text"),
            ({"timeout": float("nan")}, "timeout"),
            ({"timeout": float("inf")}, "timeout"),
            ({"report_every": float("nan")}, "report_every"),
            ({"magic_cookie": ("KEY", "x" * 257)}, "magic_cookie: a handshake takes 256 bytes"),
            ({"base_url": "http://127.0.0.1:1"}, "base_url: 'http://127.0.0.1:1' is no base URL"),
            ({"base_url": "https://me:hidden@127.0.0.1:1"}, "base_url: carries credentials"),
            ({"host": "https://127.0.0.1:1/plugins"}, "has the path '/plugins', below which plugins in Go reach a host, and this package does not"),
            ({"grace": 0}, "grace: write"),
            *(({"address": a}, f"address: {a!r} is no address to listen on") for a in ("8443", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:8443", "a:b")),
        ):
            with self.subTest(changed), self.assertRaises(ConfigError) as raised:
                make(**changed)
            self.assertIn(wanted, str(raised.exception))
            self.assertNotIn("hidden", str(raised.exception))
        for address in ("127.0.0.1:0", "[::1]:8443", "localhost:1"):
            make(address=address, base_url="https://greeter.example")
        plugin = make(self_version="v1.2", requires=["b.c-d_e"])
        for service_type, version, wanted in (("logger", "one", "'one' is no semantic version"), ("a/b", "1.0.0", "'a/b' is no name")):
            with self.assertRaises(ConfigError) as raised:
                plugin.provide(service_type, version, "logger.v1.Logger", mock.Mock())
            self.assertIn(wanted, str(raised.exception))
        for i, version in enumerate(("1", "1.2", "1.2.3-rc.1+build", "v2.0.0", "")):
            plugin.provide(f"logger{i}", version, "logger.v1.Logger", mock.Mock())
        for service_type, service, wanted in (("logger0", "logger.v1.Logger", "'logger0' is provided twice"), ("a", "/a.A/", "'/a.A/' is no gRPC service")):
            with self.assertRaises(ConfigError) as raised:
                plugin.provide(service_type, "1", service, mock.Mock())
            self.assertIn(wanted, str(raised.exception))
        for state in ("up", 99, 0, None):
            with self.assertRaises(ConfigError) as raised:
                plugin.set_health(state)  # type: ignore[arg-type]
            self.assertIn("set_health: state: write HEALTHY", str(raised.exception))

    def test_any_reason_of_health_will_do(self) -> None:
        for reason, wanted in (
            ("", ""), ("disk full", "disk full"), ("disk full\r\nread-only", "disk full  read-only"), ("a\u202eb\u2028c", "a b c"),
            ("\ud800", "?"), ("é" * 3000, "é" * 510 + "…"), ("x" * 1024, "x" * 1024),
        ):
            with self.subTest(reason[:20]):
                self.assertEqual(fit_reason(reason), wanted)

    def test_a_foreign_authority_has_advice(self) -> None:
        refused = ssl.SSLCertVerificationError("certificate verify failed")
        refused.verify_code, refused.verify_message = 20, "unable to get local issuer certificate"
        credentials = mock.Mock()
        credentials.client_context.return_value.wrap_socket.side_effect = refused
        link = HostLink("https://127.0.0.1:1", credentials, mock.Mock(), mock.Mock(), mock.Mock())
        with mock.patch("socket.create_connection"), self.assertRaises(HostNotTrusted) as raised:
            link.reach(1)
        self.assertIn("of an authority that is not in ca.crt", str(raised.exception))


if __name__ == "__main__":
    unittest.main()

"""What run does where the host is not there, and what is refused before it is asked."""
import os
import signal
import ssl
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

                for number in (signal.SIGTERM, signal.SIGINT):
                    self.addCleanup(signal.signal, number, signal.getsignal(number))
                with mock.patch.object(HostLink, "reach", side_effect=reach), \
                        mock.patch("connectplugin.plugin.new_server", return_value=(mock.MagicMock(), 1)), \
                        self.assertLogs("connectplugin", "WARNING") as logs:
                    Plugin(host="https://127.0.0.1:1", self_id="greeter", credentials=mock.Mock(), address=address,
                           host_identity="spiffe://td.test/host").run()
                self.assertEqual([r.getMessage() for r in logs.records], ["waiting for the host: nobody listens"])
                self.assertGreaterEqual(asked[0], 3)


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
            ({"host": "https://127.0.0.1:1/plugins"}, "has the path '/plugins', below which plugins in Go reach a host, and this package does not"),
            ({"grace": 0}, "grace: write"),
            *(({"address": a}, f"address: {a!r} is no address to listen on") for a in ("8443", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:8443", "a:b")),
        ):
            with self.subTest(changed), self.assertRaises(ConfigError) as raised:
                make(**changed)
            self.assertIn(wanted, str(raised.exception))
        plugin = make(self_version="v1.2", requires=["b.c-d_e"])
        for service_type, version, wanted in (("logger", "one", "'one' is no semantic version"), ("a/b", "1.0.0", "'a/b' is no name")):
            with self.assertRaises(ConfigError) as raised:
                plugin.provide(service_type, version, "logger.v1.Logger", mock.Mock())
            self.assertIn(wanted, str(raised.exception))
        for version in ("1", "1.2", "1.2.3-rc.1+build", "v2.0.0", ""):
            plugin.provide("logger", version, "logger.v1.Logger", mock.Mock())

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

"""What run does where the host is not there."""
import os
import signal
import unittest
from typing import Any
from unittest import mock

from connectplugin import Plugin
from connectplugin.link import HostLink, Unreachable


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


if __name__ == "__main__":
    unittest.main()

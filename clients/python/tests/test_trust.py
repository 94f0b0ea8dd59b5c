"""Who is taken for the host."""
import base64
import pathlib
import ssl
import tempfile
import unittest
from typing import Any

import connectplugin as cp
from connectplugin.transcript import health_proof
from connectplugin.trust import HostTrust, spiffe_id, spki_digest

DATA = pathlib.Path(__file__).parents[2] / "testdata"
PINS = dict(line.split() for line in (DATA / "pins.txt").read_text().splitlines())


def certificate(name: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert((DATA / f"{name}.crt").read_text())


class Own:
    """Credentials with the certificate of a plugin."""

    def __init__(self, name: str) -> None:
        self.certificate = (DATA / f"{name}.crt").read_bytes()

    def read(self) -> Any:
        return self


class Trust(unittest.TestCase):
    def test_names(self) -> None:
        for name, want in {"host": "spiffe://td.test/host", "plugin": "spiffe://td.test/plugin/greeter",
                           "two": "", "slash": "", "company": ""}.items():
            self.assertEqual(want, spiffe_id(certificate(name)), name)

    def test_keys(self) -> None:
        for name, pin in PINS.items():
            self.assertEqual(pin, spki_digest(certificate(name)).hex())

    def test_the_host_of_the_own_certificate(self) -> None:
        trust = HostTrust(Own("plugin"))
        trust.check(certificate("host"))
        for name in ("plugin", "two", "slash", "company"):
            with self.assertRaises(cp.HostNotTrusted, msg=name):
                trust.check(certificate(name))

    def test_pins_and_identities(self) -> None:
        in_base64 = base64.b64encode(bytes.fromhex(PINS["company"])).decode()
        HostTrust(Own("company"), pins=[PINS["host"], in_base64]).check(certificate("company"))
        with self.assertRaises(cp.HostNotTrusted):
            HostTrust(Own("company"), pins=[PINS["host"]]).check(certificate("company"))
        with self.assertRaises(cp.HostNotTrusted):
            HostTrust(Own("plugin"), "spiffe://td.test/host", [PINS["two"]]).check(certificate("host"))

    def test_what_is_no_configuration(self) -> None:
        for wrong in (lambda: HostTrust(Own("company")), lambda: HostTrust(Own("host")),
                      lambda: HostTrust(Own("plugin"), "spiffe://TD.test/host"), lambda: HostTrust(Own("plugin"), pins=["short"]),
                      lambda: cp.Credentials(tempfile.gettempdir()),
                      lambda: cp.Plugin(host="http://127.0.0.1:1", self_id="a", credentials=Own("plugin")),
                      lambda: cp.Plugin(host="https://127.0.0.1:1", self_id="a", credentials=Own("plugin"), secret=b"short")):
            with self.assertRaises(cp.ConfigError):
                wrong()


class Health(unittest.TestCase):
    def test_the_answer_to_a_challenge(self) -> None:
        self.assertEqual("27467192137a42e262385e687695f2ab55f67a1516a8abfe7b5dc3d56ba3b818", health_proof("a token", "greeter-x7g2", bytes(range(32))).hex())


if __name__ == "__main__":
    unittest.main()

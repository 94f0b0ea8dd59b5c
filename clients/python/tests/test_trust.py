"""Who is taken for the host."""
import base64
import os
import pathlib
import re
import shutil
import ssl
import subprocess
import tempfile
import unittest
from typing import Any
from unittest import mock

import connectplugin as cp
from connectplugin.transcript import health_proof
from connectplugin import trust
from connectplugin.trust import HostTrust, not_after, spiffe_id, spki_digest

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

    def test_ends(self) -> None:
        for name in ("host", "plugin", "two", "slash", "company"):
            decoded: Any = getattr(ssl, "_ssl")._test_decode_cert(str(DATA / f"{name}.crt"))
            end = ssl.cert_time_to_seconds(decoded["notAfter"])
            self.assertEqual(end, not_after(certificate(name)), name)
            for late, ended, outlived in ((-1, False, False), (0, True, False), (59, True, False), (60, True, True)):
                with mock.patch("time.time", lambda: end + late):
                    self.assertEqual((ended, outlived), (trust.ended(certificate(name)), trust.outlived(certificate(name))), late)

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

    def test_a_byte_order_mark(self) -> None:
        says = "begins with a byte order mark"
        for secret, marked in ((b"\xef\xbb\xbfsixteen bytes or more\r\n", True), ("\ufeffsixteen bytes or more".encode("utf-16-be"), True),
                               (b"\xef\xbb\xbf\x00\x9c\xd1\x7f\x02\xa1\x17\x90\xff\x00\x31\x44\x00", False), (b"sixteen bytes or more", False)):
            def made(secret: bytes = secret) -> cp.Plugin:
                return cp.Plugin(host="https://127.0.0.1:1", self_id="a", credentials=Own("plugin"), secret=secret)  # type: ignore[arg-type]
            with self.subTest(secret):
                if not marked:
                    made()
                    continue
                with self.assertRaisesRegex(cp.ConfigError, f"secret: {says}"):
                    made()
        with tempfile.TemporaryDirectory() as directory:
            at = pathlib.Path(directory)
            (at / "tls.key").touch(0o600)
            for name in ("tls.crt", "tls.key", "ca.crt"):
                for other in ("tls.crt", "tls.key", "ca.crt"):
                    (at / other).write_bytes((b"\xef\xbb\xbf" if name == other else b"") + (DATA / "plugin.crt").read_bytes())
                with self.subTest(name), self.assertRaisesRegex(cp.ConfigError, f"{name} {says}"):
                    cp.Credentials(directory)


class Health(unittest.TestCase):
    def test_the_answer_to_a_challenge(self) -> None:
        self.assertEqual("27467192137a42e262385e687695f2ab55f67a1516a8abfe7b5dc3d56ba3b818", health_proof("a token", "greeter-x7g2", bytes(range(32))).hex())


def issue(directory: str, name: str, by: str = "") -> None:
    """Makes a certificate and its key, of an authority's or self-signed."""
    issuer = ["-CA", f"{by}.crt", "-CAkey", f"{by}.key"] if by else []
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                    "-addext", "subjectAltName=DNS:localhost", *issuer, "-keyout", f"{name}.key", "-out", f"{name}.crt"],
                   cwd=directory, check=True, capture_output=True)


class Damaged(unittest.TestCase):
    @unittest.skipUnless(shutil.which("openssl"), "openssl makes the certificates")
    def test_files_that_are_being_replaced(self) -> None:
        """Who connects meanwhile does so with the last good ones: an error would end the plugin."""
        with tempfile.TemporaryDirectory() as directory:
            at = pathlib.Path(directory)
            issue(directory, "one")
            issue(directory, "two")
            subprocess.run(["openssl", "ec", "-in", "one.key", "-aes256", "-passout", "pass:a phrase", "-out", "locked.key"], cwd=directory,
                           check=True, capture_output=True)
            one, key, two = ((at / n).read_bytes() for n in ("one.crt", "one.key", "two.crt"))
            (at / "tls.key").touch(0o600)
            stamp = 1_000

            def put(*contents: bytes) -> None:
                nonlocal stamp
                stamp += 1
                for name, content in zip(("tls.crt", "tls.key", "ca.crt"), contents):
                    (at / name).write_bytes(content)
                    os.utime(at / name, (stamp, stamp))

            put(one, key, one)
            credentials = cp.Credentials(directory)
            good = credentials.read()
            for what, contents, says in (
                ("the certificate ahead of its key", (two, key, one), "MISMATCH"), ("no certificate yet", (b"", key, one), "PEM"),
                ("no key yet", (one, b"", one), "PEM"), ("half an authority", (one, key, one[:300]), "ca.crt holds no whole PEM"),
                ("one and a half", (one, key, one + two[:300]), "ca.crt holds no whole PEM"),
                ("no authority yet", (one, key, b""), "ca.crt holds no whole PEM"),
                ("a key that asks whoever is at the terminal", (one, (at / "locked.key").read_bytes(), one), "tls.key has a passphrase"),
            ):
                with self.subTest(what):
                    put(*contents)
                    credentials.client_context()
                    self.assertEqual(good, credentials.read())
                    with self.assertRaisesRegex(cp.ConfigError, says):
                        cp.Credentials(directory)
            put(one, key, "# Zürich\n".encode() + two)
            credentials.client_context()
            self.assertNotEqual(good, credentials.read())


@unittest.skipUnless(shutil.which("openssl") and os.name == "posix", "openssl makes the certificates, and Windows has no such modes")
class Reachable(unittest.TestCase):
    """A key that others than its owner reach, as the library in Go sees it."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.at = pathlib.Path(directory.name)
        issue(directory.name, "tls")
        shutil.copy(self.at / "tls.crt", self.at / "ca.crt")
        self.key = self.at / "tls.key"

    def refused(self, mode: int) -> str:
        return (f"permissions are too open: {self.key} has {mode:04o}, others may reach it: chmod 0600 it, or mount it with mode 0400; "
                "0440 is for a file of another owner, as a mounted secret is, whose group this process is in")

    def test_the_own_key(self) -> None:
        for mode in (0o644, 0o640, 0o660, 0o620, 0o610, 0o604, 0o602, 0o601, 0o440, 0o444, 0o777):
            self.key.chmod(mode)
            with self.subTest(f"{mode:04o}"), self.assertRaisesRegex(cp.ConfigError, re.escape(self.refused(mode))):
                cp.Credentials(str(self.at))
        for mode in (0o600, 0o400, 0o700):
            self.key.chmod(mode)
            with self.subTest(f"{mode:04o}"):
                cp.Credentials(str(self.at))

    def test_what_a_link_leads_to(self) -> None:
        self.key.rename(self.at / "data")
        self.key.symlink_to("data")
        cp.Credentials(str(self.at))
        (self.at / "data").chmod(0o604)
        with self.assertRaisesRegex(cp.ConfigError, re.escape(self.refused(0o604))):
            cp.Credentials(str(self.at))

    @unittest.skipIf(os.name == "posix" and os.geteuid() != 0, "only root can give a file away")
    def test_a_mounted_secret(self) -> None:
        other, foreign, own, us = 65534, 65533, os.getegid(), os.geteuid()
        for uid, gid, mode, good in (
            (other, own, 0o440, True), (other, own, 0o640, True), (other, own, 0o040, True), (other, own, 0o400, True),
            (other, own, 0o444, False), (other, own, 0o404, False), (other, own, 0o460, False), (other, own, 0o442, False),
            (other, foreign, 0o440, False), (us, own, 0o440, False), (us, foreign, 0o640, False), (other, foreign, 0o600, True), (other, own, 0o450, False),
        ):
            os.chown(self.key, uid, gid)
            self.key.chmod(mode)
            with self.subTest(uid=uid, gid=gid, mode=f"{mode:04o}"):
                if good:
                    cp.Credentials(str(self.at))
                else:
                    with self.assertRaisesRegex(cp.ConfigError, re.escape(self.refused(mode))):
                        cp.Credentials(str(self.at))
        os.chown(self.key, other, foreign)
        self.key.chmod(0o440)
        with mock.patch("os.getgroups", lambda: [1, foreign]):  # a group beside the first
            cp.Credentials(str(self.at))

    def test_a_key_that_replaces_one_while_the_plugin_runs(self) -> None:
        credentials = cp.Credentials(str(self.at))
        cp.Plugin(host="https://127.0.0.1:1", self_id="a", credentials=credentials, host_identity="spiffe://td.test/host")
        good = credentials.read()
        issue(str(self.at), "next")
        (self.at / "next.key").chmod(0o644)
        with self.assertLogs("connectplugin", "WARNING") as log:
            for new, old in (("next.crt", "tls.crt"), ("next.key", "tls.key")):
                (self.at / new).rename(self.at / old)
            for _ in range(3):
                self.assertEqual(good, credentials.read())
        self.assertEqual([f"WARNING:connectplugin:certificate files refused, the previous certificate stays in use: {self.refused(0o644)}"], log.output)
        self.key.chmod(0o600)  # its times stay
        self.assertNotEqual(good, credentials.read())


class Authorities(unittest.TestCase):
    @unittest.skipUnless(shutil.which("openssl"), "openssl makes the certificates")
    def test_an_intermediate_may_stand_in_ca_crt_without_its_root(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            at = pathlib.Path(directory)
            for name, by in (("root", ""), ("middle", "root"), ("host", "middle"), ("plugin", "middle"), ("other", "")):
                issue(directory, name, by)
            middle = (at / "middle.crt").read_text()
            (at / "tls.crt").write_text((at / "plugin.crt").read_text() + middle)
            (at / "tls.key").touch(0o600)
            (at / "tls.key").write_text((at / "plugin.key").read_text())
            (at / "chain.crt").write_text((at / "host.crt").read_text() + middle)
            host = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            host.load_cert_chain(at / "chain.crt", at / "host.key")
            for authority, trusted in (("middle", True), ("root", True), ("other", False)):
                (at / "ca.crt").write_text((at / f"{authority}.crt").read_text())
                to_host, to_plugin = ssl.MemoryBIO(), ssl.MemoryBIO()
                plugin_side = cp.Credentials(directory).client_context().wrap_bio(to_plugin, to_host, server_hostname="localhost")
                host_side = host.wrap_bio(to_host, to_plugin, server_side=True)
                with self.subTest(authority):
                    if trusted:
                        shake(plugin_side, host_side)
                    else:
                        with self.assertRaises(ssl.SSLCertVerificationError):
                            shake(plugin_side, host_side)


class Replaced(unittest.TestCase):
    """Files that are replaced, as a certificate manager or a mounted secret does it."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.at = pathlib.Path(directory.name)
        for name, by in (("ca", ""), ("host", "ca"), ("a", "ca"), ("b", "ca")):
            issue(directory.name, name, by)
        for name in "ab":
            (self.at / f"of-{name}").mkdir()
            for file, content in (("tls.crt", f"{name}.crt"), ("tls.key", f"{name}.key"), ("ca.crt", "ca.crt")):
                shutil.copy(self.at / content, self.at / f"of-{name}" / file)
                os.utime(self.at / f"of-{name}" / file, (1, 1))
        self.lead("a")

    def lead(self, name: str) -> None:
        """Has the mounted directory be that of a name, in one step."""
        (self.at / "next").symlink_to(f"of-{name}")
        (self.at / "next").rename(self.at / "mounted")

    def shaken(self, credentials: cp.Credentials) -> bytes:
        """The certificate that a plugin shows which reaches its host."""
        host = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        host.load_cert_chain(self.at / "host.crt", self.at / "host.key")
        host.verify_mode = ssl.CERT_REQUIRED
        host.load_verify_locations(self.at / "ca.crt")
        to_host, to_plugin = ssl.MemoryBIO(), ssl.MemoryBIO()
        plugin_side = credentials.client_context().wrap_bio(to_plugin, to_host, server_hostname="localhost")
        host_side = host.wrap_bio(to_host, to_plugin, server_side=True)
        shake(plugin_side, host_side)
        host_side.do_handshake()
        shown = host_side.getpeercert(binary_form=True)
        assert shown is not None
        return ssl.DER_cert_to_PEM_cert(shown).encode()

    @unittest.skipUnless(shutil.which("openssl"), "openssl makes the certificates")
    def test_what_does_not_fit_together_leaves_the_last_that_did(self) -> None:
        credentials = cp.Credentials(str(self.at / "mounted"))
        before = credentials.read()
        for name, content in (("tls.key", b""), ("tls.key", (self.at / "b.key").read_bytes()), ("ca.crt", b""), ("ca.crt", b"\xe9"), ("tls.crt", None)):
            file = self.at / "of-a" / name
            good = file.read_bytes()
            file.unlink()
            if content is not None:
                file.touch(0o600)
                file.write_bytes(content)
            with self.subTest(name, content=content):
                self.assertEqual(before, credentials.read())
                self.assertEqual(before.certificate, self.shaken(credentials))  # a plugin that lost its host is back nevertheless
                if content is not None:
                    with self.assertRaisesRegex(cp.ConfigError, "needs tls.crt, tls.key and ca.crt"):
                        cp.Credentials(str(self.at / "mounted"))
            file.touch(0o600)
            file.write_bytes(good)

    @unittest.skipUnless(shutil.which("openssl"), "openssl makes the certificates")
    def test_a_mounted_secret_that_is_replaced_between_two_of_its_files(self) -> None:
        content, reads = getattr(trust, "_content"), [0]

        def swapped(name: str, private: bool = False) -> bytes:
            reads[0] += 1
            if reads[0] == 2:
                self.lead("b")
            return bytes(content(name, private))

        with mock.patch.object(trust, "_content", swapped):
            credentials = cp.Credentials(str(self.at / "mounted"))
        files = credentials.read()
        of_b = (self.at / "b.crt").read_bytes(), (self.at / "b.key").read_bytes()
        self.assertEqual(of_b, (files.certificate, files.key))
        self.assertEqual(of_b[0], self.shaken(credentials))
        self.lead("a")
        self.assertEqual((self.at / "a.crt").read_bytes(), self.shaken(credentials))


def shake(plugin_side: ssl.SSLObject, host_side: ssl.SSLObject) -> None:
    """Has both sides say what they have to, in turn, until the plugin's is done."""
    for _ in range(10):
        try:
            plugin_side.do_handshake()
            return
        except ssl.SSLWantReadError:
            pass
        try:
            host_side.do_handshake()
        except ssl.SSLWantReadError:
            pass
    raise AssertionError("the handshake has no end")


if __name__ == "__main__":
    unittest.main()

// Who is taken for the host.
import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { chmodSync, chownSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { createServer, TLSSocket } from "node:tls";
import { inspect } from "node:util";
import { ConfigError, Credentials, HostNotTrusted, Plugin } from "../src/index.js";
import { requireNode } from "../src/link.js";
import { healthProof } from "../src/transcript.js";
import { HostTrust } from "../src/trust.js";
import { issue } from "./issue.js";
import { root } from "./tree.js";

const file = (name: string) => readFileSync(new URL("clients/testdata/" + name, root));
const certificate = (name: string) => new X509Certificate(file(name + ".crt")).raw;
const pins = Object.fromEntries(file("pins.txt").toString().trim().split("\n").map((line) => line.split(" "))) as Record<string, string>;
const own = (name: string) => ({ read: () => ({ cert: file(name + ".crt") }) }) as unknown as Credentials;
const pin = (name: string) => pins[name] ?? "";

test("the host of the plugin's own certificate", () => {
  const trust = new HostTrust(own("plugin"));
  assert.equal(trust.identity, "spiffe://td.test/host");
  assert.equal(trust.refuse(certificate("host")), undefined);
  assert.ok(trust.refuse(undefined) instanceof HostNotTrusted);
  for (const name of ["plugin", "two", "slash", "company"]) assert.ok(trust.refuse(certificate(name)) instanceof HostNotTrusted, name);
});

test("pins and identities", () => {
  const inBase64 = Buffer.from(pin("company"), "hex").toString("base64");
  for (const name of Object.keys(pins)) assert.equal(new HostTrust(own("company"), "", [pin(name)]).refuse(certificate(name)), undefined);
  assert.equal(new HostTrust(own("company"), "", [pin("host"), inBase64]).refuse(certificate("company")), undefined);
  assert.ok(new HostTrust(own("company"), "", [pin("host")]).refuse(certificate("company")));
  assert.ok(new HostTrust(own("plugin"), "spiffe://td.test/host", [pin("two")]).refuse(certificate("host")));
});

test("a byte order mark", () => {
  const says = "begins with a byte order mark: save the file as UTF-8 without one";
  const credentials = own("plugin");
  const made = (secret: Buffer) => new Plugin({ host: "https://127.0.0.1:1", selfId: "a", credentials, secret });
  for (const marked of [Buffer.from("\ufeffsixteen bytes or more\r\n"), Buffer.from("\ufeffsixteen bytes or more", "utf16le"),
    Buffer.from("\ufeffsixteen bytes or more", "utf16le").swap16()]) {
    assert.throws(() => made(marked), new ConfigError(`secret: ${says}`));
  }
  assert.ok(made(Buffer.from("efbbbf009cd17f02a11790ff00314400", "hex"))); // random bytes
  const directory = mkdtempSync(join(tmpdir(), "marked-"));
  try {
    for (const name of ["tls.crt", "tls.key", "ca.crt"]) {
      for (const other of ["tls.crt", "tls.key", "ca.crt"]) writeFileSync(join(directory, other), Buffer.concat([Buffer.from(name === other ? "\ufeff" : ""), file("plugin.crt")]), { mode: 0o600 });
      assert.throws(() => new Credentials(directory), (e) => e instanceof ConfigError && e.message.includes(`${join(directory, name)} ${says}`), name);
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test("files that are being replaced", () => {
  const directory = mkdtempSync(join(tmpdir(), "replaced-")), one = issue("one"), two = issue("two");
  let stamp = 1_000;
  const put = (...contents: Buffer[]) => {
    stamp++;
    for (const [i, name] of ["tls.crt", "tls.key", "ca.crt"].entries()) {
      writeFileSync(join(directory, name), contents[i] as Buffer, { mode: 0o600 });
      utimesSync(join(directory, name), stamp, stamp);
    }
  };
  try {
    put(one.cert, one.keyPEM, one.cert);
    const credentials = new Credentials(directory), good = credentials.read();
    for (const [what, contents, says] of [
      ["the certificate ahead of its key", [two.cert, one.keyPEM, one.cert], /mismatch/],
      ["half an authority", [one.cert, one.keyPEM, one.cert.subarray(0, 200)], /ca\.crt holds no whole PEM certificates/],
      ["one and a half", [one.cert, one.keyPEM, Buffer.concat([one.cert, two.cert.subarray(0, 200)])], /ca\.crt holds no whole PEM certificates/],
      ["no authority yet", [one.cert, one.keyPEM, Buffer.alloc(0)], /ca\.crt holds no whole PEM certificates/],
    ] as const) {
      put(...contents);
      assert.equal(credentials.read(), good, what);
      assert.throws(() => new Credentials(directory), (e) => e instanceof ConfigError && says.test(e.message), what);
    }
    put(one.cert, one.keyPEM, Buffer.concat([Buffer.from("# Zürich\n"), two.cert, one.cert]));
    assert.notEqual(credentials.read(), good);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test("files with the times of those before", () => {
  const directory = mkdtempSync(join(tmpdir(), "replaced-"));
  try {
    const ca = issue("ca");
    const put = (name: string) => {
      const { cert, keyPEM } = issue(name, ca);
      for (const [at, content] of [["tls.crt", cert], ["tls.key", keyPEM], ["ca.crt", ca.cert]] as const) {
        writeFileSync(join(directory, "next"), content, { mode: 0o600 });
        utimesSync(join(directory, "next"), 1, 1);
        renameSync(join(directory, "next"), join(directory, at));
      }
      return cert;
    };
    put("a");
    const credentials = new Credentials(directory);
    const now = put("b");
    assert.equal(credentials.read().cert.toString(), now.toString());
  } finally {
    rmSync(directory, { recursive: true });
  }
});

/** Credentials in a directory of their own, whose key has a mode of the test's. */
function withKey(use: (directory: string, key: string, refused: (mode: number) => (e: unknown) => boolean) => void): void {
  const directory = mkdtempSync(join(tmpdir(), "reachable-")), { cert, keyPEM } = issue("one"), key = join(directory, "tls.key");
  try {
    for (const name of ["tls.crt", "ca.crt"]) writeFileSync(join(directory, name), cert);
    writeFileSync(key, keyPEM, { mode: 0o600 });
    use(directory, key, (mode) => (e) => e instanceof ConfigError && e.message.includes(tooOpen(key, mode)));
  } finally {
    rmSync(directory, { recursive: true });
  }
}

const tooOpen = (key: string, mode: number) => `permissions are too open: ${key} has ${mode.toString(8).padStart(4, "0")}, others may reach it: chmod 0600 it, ` +
  "or mount it with mode 0400; 0440 is for a file of another owner, as a mounted secret is, whose group this process is in";
const noModes = { skip: process.platform === "win32" && "Windows has no such modes" };

test("a key that others reach", noModes, () => {
  withKey((directory, key, refused) => {
    for (const mode of [0o644, 0o640, 0o660, 0o620, 0o610, 0o604, 0o602, 0o601, 0o440, 0o444, 0o777]) {
      chmodSync(key, mode);
      assert.throws(() => new Credentials(directory), refused(mode), mode.toString(8));
    }
    for (const mode of [0o600, 0o400, 0o700]) {
      chmodSync(key, mode);
      assert.ok(new Credentials(directory), mode.toString(8));
    }
  });
});

test("a key that others reach behind a link", noModes, () => {
  withKey((directory, key, refused) => {
    renameSync(key, join(directory, "data"));
    symlinkSync("data", key);
    assert.ok(new Credentials(directory));
    chmodSync(join(directory, "data"), 0o604);
    assert.throws(() => new Credentials(directory), refused(0o604));
  });
});

test("a key of a mounted secret", { skip: process.geteuid?.() !== 0 && "only root can give a file away" }, (t) => {
  const other = 65534, foreign = 65533, mine = process.getegid?.() ?? 0, us = process.geteuid?.() ?? 0;
  withKey((directory, key, refused) => {
    for (const [uid, gid, mode, good] of [
      [other, mine, 0o440, true], [other, mine, 0o640, true], [other, mine, 0o040, true], [other, mine, 0o400, true],
      [other, mine, 0o444, false], [other, mine, 0o404, false], [other, mine, 0o460, false], [other, mine, 0o442, false],
      [other, foreign, 0o440, false], [us, mine, 0o440, false], [us, foreign, 0o640, false], [other, foreign, 0o600, true], [other, mine, 0o450, false],
    ] as const) {
      chownSync(key, uid, gid);
      chmodSync(key, mode);
      if (good) assert.ok(new Credentials(directory));
      else assert.throws(() => new Credentials(directory), refused(mode), `${uid} ${gid} ${mode.toString(8)}`);
    }
    chownSync(key, other, foreign);
    chmodSync(key, 0o440);
    t.mock.method(process as Required<typeof process>, "getgroups", () => [1, foreign]); // a group beside the first
    assert.ok(new Credentials(directory));
  });
});

test("a key that others reach replaces one while the plugin runs", noModes, () => {
  withKey((directory, key) => {
    const credentials = new Credentials(directory), good = credentials.read(), lines: string[] = [], next = issue("next");
    new Plugin({ host: "https://127.0.0.1:1", selfId: "a", credentials, hostIdentity: "spiffe://td.test/host", log: (line) => lines.push(line) });
    for (const [name, content] of [["tls.crt", next.cert], ["tls.key", next.keyPEM]] as const) {
      writeFileSync(join(directory, "next"), content);
      chmodSync(join(directory, "next"), 0o644);
      renameSync(join(directory, "next"), join(directory, name));
    }
    for (let i = 0; i < 3; i++) assert.equal(credentials.read(), good);
    assert.deepEqual(lines, [`certificate files refused, the previous certificate stays in use: ${tooOpen(key, 0o644)}`]);
    chmodSync(key, 0o600); // its times stay
    assert.equal(credentials.read().cert.toString(), next.cert.toString());
  });
});

test("a plugin is printed without its secret", () => {
  const secret = Buffer.from("sixteen bytes or more");
  const plugin = new Plugin({ host: "https://127.0.0.1:1", selfId: "a", credentials: own("plugin"), secret });
  const printed = inspect(plugin, { depth: 10, showHidden: true }) + JSON.stringify(plugin);
  for (const form of [secret.toString(), secret.toString("hex"), secret.toString("hex").replace(/..(?!$)/g, "$& "), [...secret].join(",")]) {
    assert.ok(!printed.includes(form), printed);
  }
});

test("what is no configuration", () => {
  const credentials = own("plugin");
  for (const wrong of [
    () => new HostTrust(own("company")), () => new HostTrust(own("host")),
    () => new HostTrust(own("plugin"), "spiffe://TD.test/host"), () => new HostTrust(own("plugin"), "", ["short"]),
    () => new Credentials(tmpdir()),
    () => new Plugin({ host: "http://127.0.0.1:1", selfId: "a", credentials }),
    () => new Plugin({ host: "https://127.0.0.1:1", selfId: "", credentials }),
    () => new Plugin({ host: "https://127.0.0.1:1", selfId: "a", credentials, secret: Buffer.from("short") }),
    () => new Plugin({ host: "https://127.0.0.1:1", selfId: "a", credentials, versions: [2, 1] }),
  ]) assert.throws(wrong, ConfigError);
});

test("the answer to a challenge", () => {
  const challenge = Uint8Array.from({ length: 32 }, (_, i) => i);
  const want = "27467192137a42e262385e687695f2ab55f67a1516a8abfe7b5dc3d56ba3b818";
  assert.equal(Buffer.from(healthProof("a token", "greeter-x7g2", challenge)).toString("hex"), want);
});

for (const [which, chain] of [["alone", false], ["with its authority", true]] as const) {
  test(`a host whose certificate, ${which}, is of an authority that the plugin does not know`, { timeout: 30_000 }, async (t) => {
    const mine = issue("mine"), other = issue("other"), leaf = issue("host", other);
    const server = createServer({ cert: chain ? Buffer.concat([leaf.cert, other.cert]) : leaf.cert, key: leaf.keyPEM, ALPNProtocols: ["h2"] });
    server.on("tlsClientError", () => undefined);
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const credentials = { read: () => ({ cert: mine.cert, key: mine.keyPEM, ca: mine.cert }) } as unknown as Credentials;
    const plugin = new Plugin({ host: url, selfId: "a", credentials, hostIdentity: "spiffe://td.test/host", log: () => undefined });
    t.after(async () => {
      await plugin.stop();
      await new Promise((closed) => server.close(closed));
    });
    await assert.rejects(plugin.start(), (e: Error) => {
      assert.ok(e instanceof HostNotTrusted, String(e));
      assert.ok(e.message.startsWith(url + ": "), e.message);
      assert.match(e.message, /: the host's certificate is of an authority that is not in ca\.crt; compare that with the host's, or have its WriteCredentials/);
      return true;
    });
  });
}

for (const [what, withRoot, says] of [
  ["alone in ca.crt", false, /: ca\.crt has an intermediate authority without its root, which Node needs as well; write the root into it, too$/],
  // TLS takes it; whose it is, is looked at behind that.
  ["in ca.crt with its root", true, /the certificate is that of nobody with a SPIFFE id instead of spiffe:\/\/td\.test\/host/],
] as const) {
  test(`a host whose certificate is of an intermediate authority that is ${what}`, { timeout: 30_000 }, async (t) => {
    const top = issue("root", undefined, true), middle = issue("middle", top, true), leaf = issue("host", middle), mine = issue("mine", middle);
    const ca = withRoot ? Buffer.concat([middle.cert, top.cert]) : middle.cert;
    const server = createServer({ cert: Buffer.concat([leaf.cert, middle.cert]), key: leaf.keyPEM, ALPNProtocols: ["h2"] });
    server.on("tlsClientError", () => undefined);
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const credentials = { read: () => ({ cert: Buffer.concat([mine.cert, middle.cert]), key: mine.keyPEM, ca }) } as unknown as Credentials;
    const plugin = new Plugin({ host: url, selfId: "a", credentials, hostIdentity: "spiffe://td.test/host", log: () => undefined });
    t.after(async () => {
      await plugin.stop();
      await new Promise((closed) => server.close(closed));
    });
    await assert.rejects(plugin.start(), (e: Error) => e instanceof HostNotTrusted && says.test(e.message) || assert.fail(String(e)));
  });
}

test("a runtime that cannot bind proofs to connections", (t) => {
  requireNode(TLSSocket.prototype, process.versions);
  for (const [versions, named] of [[{ node: "24.2.0", deno: "2.9.6" }, "Deno 2.9.6"], [{ node: "24.3.0", bun: "1.4.5" }, "Bun 1.4.5"], [{ node: "24.0.0" }, "node 24.0.0"]] as const) {
    assert.throws(() => requireNode({}, versions), (e: Error) => e instanceof ConfigError && e.message.includes(named) && e.message.includes("needs Node 20 or later"));
  }
  const prototype = TLSSocket.prototype as Partial<TLSSocket>, has = prototype.exportKeyingMaterial;
  t.after(() => { if (has) prototype.exportKeyingMaterial = has; });
  delete prototype.exportKeyingMaterial;
  assert.throws(() => new Plugin({ host: "https://127.0.0.1:1", selfId: "a", credentials: own("plugin") }), /exportKeyingMaterial/);
});

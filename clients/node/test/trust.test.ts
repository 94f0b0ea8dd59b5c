// Who is taken for the host.
import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { ConfigError, Credentials, HostNotTrusted, Plugin } from "../src/index.js";
import { healthProof } from "../src/transcript.js";
import { HostTrust } from "../src/trust.js";
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

// What run does where the host is not there.
import assert from "node:assert/strict";
import { type AddressInfo, createServer } from "node:net";
import { test } from "node:test";
import type { DescService } from "@bufbuild/protobuf";
import { ConfigError, type Credentials, type HealthState, Plugin, type PluginOptions } from "../src/index.js";
import { HostLink } from "../src/link.js";
import { fitReason } from "../src/plugin.js";
import { Session, type Settings } from "../src/session.js";
import { PluginLifecycle } from "../src/wire/plugin/v1/lifecycle_pb.js";
import { issue } from "./issue.js";

async function deadURL(): Promise<string> {
  const server = createServer();
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address() as AddressInfo;
  await new Promise((closed) => server.close(closed));
  return `https://127.0.0.1:${port}`;
}

for (const [where, address] of [["an address of its own", { host: "127.0.0.1", port: 0 }], ["the address towards its host", undefined]] as const) {
  for (const listens of [true, false]) {
    test(`with ${where} run ends at SIGTERM, and says once that it waits, ${listens ? "to log" : "to stderr"}`, async (t) => {
      const logged: string[] = [];
      const printed = t.mock.method(console, "error", () => undefined).mock;
      const plugin = new Plugin({
        host: await deadURL(), selfId: "greeter", hostIdentity: "spiffe://td.test/host",
        credentials: { read: () => ({}) } as unknown as Credentials, // nobody asks for them
        ...(address ? { address } : {}), ...(listens ? { log: (line: string) => logged.push(line) } : {}),
      });
      const heard = listens ? () => logged : () => printed.calls.map((call) => String(call.arguments[0]));
      const look = setInterval(() => {
        if (heard().length === 0) return;
        clearInterval(look); // run listens once
        process.kill(process.pid, "SIGTERM");
      }, 5);
      await plugin.run();
      clearInterval(look);
      assert.match(heard()[0] ?? "", /waiting for the host: https:/);
      if (!listens) assert.equal(heard().length, 1);
    });
  }
}

for (const [address, local, baseUrl, wanted] of [
  [undefined, "127.0.0.1", "", "https://127.0.0.1:"], [{ host: "127.0.0.1", port: 0 }, "", "", "https://127.0.0.1:"],
  [{ host: "0.0.0.0", port: 0 }, "127.0.0.1", "", "https://127.0.0.1:"], [{ host: "0.0.0.0", port: 0 }, "fd00::7", "", "https://[fd00::7]:"],
  [{ host: "0.0.0.0", port: 0 }, "", "https://plugin.test:", "https://plugin.test:"],
] as const) {
  test(`listening at ${address?.host ?? "an address of its own"}${baseUrl && " with a base URL"} it is called at ${wanted}`, async (t) => {
    const mine = issue("mine");
    t.mock.method(HostLink.prototype, "connect", async function (this: HostLink) {
      assert.ok(local, "the host is asked for an address that is known");
      this.local = local;
    });
    let called = "";
    t.mock.method(Session.prototype, "start", function (this: Session) {
      called = (this as unknown as { settings: Settings }).settings.registrations()[0]?.metadata?.["base_url"] ?? "";
    });
    t.mock.method(Session.prototype, "ready", async () => undefined);
    const plugin = new Plugin({
      host: "https://127.0.0.1:1", selfId: "greeter", hostIdentity: "spiffe://td.test/host", ...(address ? { address } : {}), ...(baseUrl ? { baseUrl } : {}),
      credentials: { read: () => ({ cert: mine.cert, key: mine.keyPEM, ca: mine.cert }) } as unknown as Credentials,
    });
    plugin.provide("clock", "1.0.0", PluginLifecycle, {});
    t.after(() => plugin.stop());
    await plugin.start();
    assert.ok(called.startsWith(wanted), called);
  });
}

test("what no host takes is refused before it is asked", () => {
  const make = (changed: Partial<PluginOptions>) => new Plugin({
    host: "https://127.0.0.1:1", selfId: "greeter", hostIdentity: "spiffe://td.test/host",
    credentials: { read: () => ({}) } as unknown as Credentials, ...changed,
  });
  for (const [changed, wanted] of [
    [{ selfId: "a b" }, 'selfId: "a b" is no name'], [{ selfId: "x".repeat(129) }, "selfId"], [{ selfId: ".a" }, "selfId"],
    [{ selfVersion: "x" }, 'selfVersion: "x" is no semantic version'], [{ requires: ["a b"] }, 'requires: "a b" is no name'],
    [{ host: "https://127.0.0.1:99999" }, "a port from 1 to 65535"], [{ host: "https://127.0.0.1:0" }, "has port 0"],
    [{ host: "rubbish" }, "is no base URL"], [{ host: "https://me:hidden@127.0.0.1:1" }, "host: carries credentials"],
    [{ host: "https://:hidden@127.0.0.1:x" }, "host: carries credentials"], [{ host: "https://127.0.0.1:1?token=hidden" }, "host: carries credentials, a query"],
    [{ credentials: "run/greeter" }, "credentials: are none; write new Credentials(DIRECTORY)"],
    [{ requires: "clock" }, 'requires: is one text, of which each letter would count; write a list, ["clock"]'], [{ hostPins: "ab".repeat(32) }, "hostPins: is one text"],
    [{ magicCookie: ["KEY", "x".repeat(257)] }, "magicCookie: a handshake takes 256 bytes"], 
    [{ baseUrl: "http://127.0.0.1:1" }, 'baseUrl: "http://127.0.0.1:1" is no base URL'],
    [{ baseUrl: "https://me:hidden@127.0.0.1:1" }, "baseUrl: carries credentials"],
    [{ host: "https://127.0.0.1:1/plugins" }, 'has the path "/plugins", below which plugins in Go reach a host, and this package does not'],
    ...[{ host: "", port: 1 }, { host: "[::]", port: 1 }, { host: "127.0.0.1", port: 65_536 }, { host: "127.0.0.1:1", port: 0.5 }, { port: 1 }]
      .map((address) => [{ address: address as { host: string; port: number } }, "is nothing to listen on"] as const),
  ] as const) {
    const refused = (e: Error) => e instanceof ConfigError && e.message.includes(wanted) && !e.message.includes("hidden");
    assert.throws(() => make(changed as unknown as Partial<PluginOptions>), refused, wanted);
  }
  const service = { typeName: "logger.v1.Logger" } as unknown as DescService;
  const plugin = make({ selfVersion: "v1.2", requires: ["b.c-d_e"] });
  assert.throws(() => plugin.provide("logger", "one", service, {}), /"one" is no semantic version/);
  assert.throws(() => plugin.provide("a/b", "1.0.0", service, {}), /"a\/b" is no name/);
  for (const [i, version] of ["1", "1.2", "1.2.3-rc.1+build", "v2.0.0", ""].entries()) plugin.provide(`logger${i}`, version, service, {});
  assert.throws(() => plugin.provide("logger0", "1", service, {}), /"logger0" is provided twice/);
  for (const state of ["up", 99, 0, undefined]) {
    assert.throws(() => plugin.setHealth(state as unknown as HealthState), (e) => e instanceof ConfigError && /setHealth: state: write/.test(e.message));
  }
});

test("any reason of health will do", () => {
  for (const [reason, wanted] of [
    ["", ""], ["disk full", "disk full"], ["disk full\r\nread-only", "disk full  read-only"], ["a\u202eb\u2028c", "a b c"],
    ["\ud800", "\ufffd"], ["é".repeat(3000), "é".repeat(510) + "…"], ["x".repeat(1024), "x".repeat(1024)],
  ] as const) {
    assert.equal(fitReason(reason), wanted);
  }
});

// What a host can make a plugin do, and show, that means it ill.
import assert from "node:assert/strict";
import * as http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { inspect } from "node:util";
import { Code, ConnectError, createClient, type HandlerContext } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { printable } from "../src/glyphs.js";
import { Closed, type Credentials, HandshakeRefused, Plugin, PluginError } from "../src/index.js";
import { ServiceRoute } from "../src/calls.js";
import { Log } from "../src/log.js";
import { HostTrust } from "../src/trust.js";
import { CapabilityBroker } from "../src/wire/plugin/v1/broker_pb.js";
import { HandshakeService } from "../src/wire/plugin/v1/handshake_pb.js";
import { PluginControl, PluginLifecycle } from "../src/wire/plugin/v1/lifecycle_pb.js";
import { ServiceRegistry, ServiceState } from "../src/wire/plugin/v1/registry_pb.js";
import { issue } from "./issue.js";

type Procedure = "handshake" | "register" | "withdraw" | "report" | "watch" | "call" | "capability";

interface Act {
  /** What the host does where a procedure is called. Where it returns, it answers as a host does. */
  (procedure: Procedure, cut: () => void, context: HandlerContext): unknown;
}

const ill = "\u001b[2J\u001b]0;owned\u0007\n2026-11-30 forged\u202e \u009b \u2800";
const unseen = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e\u2800]/; // a line feed apart, of which stacks have many

/** A host that plays an act, and a plugin of it. Whatever is left to chance takes its longest. */
async function stage(t: TestContext, act: Act, { chooses = "true", urls = [""], timeoutMs = 5_000 } = {}) {
  const mine = issue("mine");
  t.mock.method(HostTrust.prototype, "checkServer", () => undefined);
  t.mock.method(Math, "random", () => 0.99);
  const counts = { handshake: 0, register: 0, withdraw: 0, report: 0, watch: 0, call: 0, capability: 0, connections: 0 };
  const connections = new Set<http2.Http2Session>();
  const cuts = new Map<string, () => void>();
  const play = (procedure: Procedure, context: HandlerContext) => {
    counts[procedure]++;
    return act(procedure, cuts.get(context.requestHeader.get("x-connection") ?? "") ?? (() => undefined), context);
  };
  const called = connectNodeAdapter({
    requestPathPrefix: "/services/clock/-",
    routes: (router) => router.service(PluginControl, { getHealth: (_, context) => (play("call", context), {}) }),
  });
  const serve = connectNodeAdapter({
    routes: (router) => router
      .service(HandshakeService, {
        handshake: (_, context) => {
          play("handshake", context);
          return {
            coreProtocolVersion: 1, appProtocolVersion: 1, runtimeId: "me", runtimeToken: "x",
            serverMetadata: { "connectplugin.any_provider": chooses },
          };
        },
      })
      .service(ServiceRegistry, {
        registerService: (_, context) => (play("register", context), { registrationId: "one" }),
        unregisterService: (_, context) => (play("withdraw", context), {}),
        async *watchService(_, context) {
          play("watch", context);
          for (const [i, endpointUrl] of urls.entries()) {
            yield { serviceType: "clock", state: ServiceState.AVAILABLE, sequence: BigInt(i + 1), epoch: "e", endpoint: { endpointUrl } };
          }
          await new Promise((end) => context.signal.addEventListener("abort", end));
        },
      })
      .service(CapabilityBroker, { requestCapability: (_, context) => (play("capability", context), {}) })
      .service(PluginLifecycle, { reportHealth: async (_, context) => (await play("report", context), {}) }),
  });
  const server = http2.createSecureServer({ cert: mine.cert, key: mine.keyPEM }, (request, response) => {
    const { session } = request.stream;
    const port = String(session?.socket.remotePort);
    cuts.set(port, () => session?.destroy());
    request.headers["x-connection"] = port;
    (request.url.startsWith("/services/") ? called : serve)(request, response);
  });
  server.on("session", (session) => {
    counts.connections++;
    connections.add(session);
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const logged: string[] = [];
  const plugin = new Plugin({
    host: `https://127.0.0.1:${(server.address() as AddressInfo).port}`, selfId: "greeter", hostIdentity: "spiffe://td.test/host", timeoutMs,
    credentials: { read: () => ({ cert: mine.cert, key: mine.keyPEM, ca: mine.cert }) } as unknown as Credentials,
    address: { host: "127.0.0.1", port: 0 }, requires: ["clock"], log: (line) => logged.push(line),
  });
  t.after(async () => {
    await plugin.stop();
    for (const c of connections) c.destroy();
    await new Promise((closed) => server.close(closed));
  });
  return { counts, plugin, logged, clock: createClient(PluginControl, plugin.transport("clock")) };
}

async function until(holds: () => boolean, what: () => string): Promise<void> {
  for (const end = performance.now() + 40_000; !holds(); await new Promise(setImmediate)) assert.ok(performance.now() < end, what());
}

/** Says that the identity is not known: the host in a header, a provider in what it can. */
const forget = (context?: HandlerContext) => {
  context?.responseHeader.set("www-authenticate", "Bearer");
  throw new ConnectError("unauthenticated", Code.Unauthenticated, { "www-authenticate": "Bearer" });
};

test("a silent host does not hold up the end", { timeout: 60_000 }, async (t) => {
  const s = await stage(t, (procedure, _, { signal }) => (
    procedure === "report" ? new Promise((over) => signal.addEventListener("abort", over)) : undefined), { timeoutMs: 3_600_000 });
  const started = s.plugin.start().catch((e: unknown) => e);
  await until(() => s.counts.report === 1, () => JSON.stringify(s.counts));
  await s.plugin.stop();
  await started;
  assert.deepEqual(s.logged.filter((line) => line.includes("waiting")), []);
});

test("a type that another plugin provides is waited for", { timeout: 60_000 }, async (t) => {
  let left = false;
  const s = await stage(t, (procedure) => {
    if (procedure === "register" && !left) throw new ConnectError("another plugin provides the service type", Code.AlreadyExists);
  });
  s.plugin.provide("clock", "1.0.0", PluginLifecycle, {});
  const started = s.plugin.start();
  await until(() => s.counts.register >= 3, () => JSON.stringify(s.counts));
  left = true;
  await started;
  const waits = s.logged.filter((line) => line.includes("another plugin"));
  assert.ok(waits.length >= 3);
  for (const line of waits) assert.match(line, /^service clock: another plugin provides it; waiting until that has left/);
  assert.equal(s.counts.handshake, 1);
});

// Each counts what the host has to bear, of which so many take at least so long: a slow machine only takes longer.
const acts: readonly [string, Act, keyof Awaited<ReturnType<typeof stage>>["counts"], number, number][] = [
  ["forgets who reports", (procedure) => { if (procedure === "report") forget(); }, "handshake", 8, 900],
  ["ends the connection in the handshake", (procedure, cut) => { if (procedure === "handshake") cut(); }, "connections", 6, 900],
  ["ends the connection of a report", (procedure, cut) => { if (procedure === "report") cut(); }, "connections", 6, 900],
  ["ends the connection behind a report", (procedure, cut) => { if (procedure === "report") setTimeout(cut, 5); }, "connections", 7, 900],
  ["ends the connection of each watch", (procedure, cut) => { if (procedure === "watch") setTimeout(cut, 5); }, "watch", 5, 1_200],
  ["forgets who calls", (procedure, _, context) => { if (procedure === "call") forget(context); }, "handshake", 8, 900],
];

for (const [name, act, counted, many, ms] of acts) {
  test(`a host that ${name} is tried seldom`, { timeout: 60_000 }, async (t) => {
    const s = await stage(t, act);
    const begun = performance.now();
    const started = s.plugin.start().catch((e: unknown) => e);
    let over = false;
    const calls = counted === "handshake" && name.includes("calls") ? (async () => {
      await started;
      while (!over) {
        await s.clock.getHealth({}, { timeoutMs: 500 }).catch(() => undefined);
        await new Promise(setImmediate); // some fail at once
      }
    })() : undefined;
    await until(() => s.counts[counted] >= many, () => JSON.stringify(s.counts)).finally(() => { over = true; });
    const took = performance.now() - begun;
    await calls;
    await s.plugin.stop();
    assert.ok(took >= ms, `${many} in ${took} ms`);
    assert.ok(s.logged.length <= 6 * 16, `${s.logged.length} lines`);
  });
}

test("what is due, lost or forgotten cuts no wait short, and the end of the plugin does", { timeout: 60_000 }, async (t) => {
  const s = await stage(t, (procedure) => {
    if (procedure === "handshake") throw new ConnectError("busy", Code.ResourceExhausted, { "retry-after": "200" });
  });
  const started = s.plugin.start().catch((e: unknown) => e);
  await until(() => s.counts.handshake === 1, () => "no handshake came");
  for (const end = performance.now() + 200; performance.now() < end; await new Promise(setImmediate)) s.plugin.setHealth(1, "now");
  assert.equal(s.counts.handshake, 1);
  await s.plugin.stop();
  await started;
});

for (const [name, code] of [["a refusal", Code.PermissionDenied], ["an error", Code.Unavailable]] as const) {
  test(`${name} of the host is shown without what nobody sees`, { timeout: 60_000 }, async (t) => {
    const text = ill + "x".repeat(10_000);
    const s = await stage(t, (procedure) => {
      if (procedure === "handshake") throw new ConnectError(text, code);
    });
    const started = s.plugin.start().catch((e: unknown) => e);
    if (code === Code.Unavailable) {
      await until(() => s.logged.length > 0, () => "nothing was logged");
      await s.plugin.stop();
      assert.match(s.logged.join(), /waiting for the host: .*forged/);
    }
    const e = await started as PluginError;
    if (code === Code.PermissionDenied) {
      assert.ok(e instanceof HandshakeRefused && e.cause instanceof ConnectError && e.cause.code === code, String(e));
      assert.ok(!/\n/.test(e.message + e.cause.rawMessage), e.message);
      assert.ok(e.message.length < 2_100);
    }
    assert.ok(!unseen.test(inspect(e)), JSON.stringify(inspect(e)));
    for (const line of s.logged) assert.ok(!unseen.test(line) && !line.includes("\n") && line.length < 2_100, JSON.stringify(line));
  });
}

test("whoever ends registers nothing more, and withdraws what it has", { timeout: 60_000 }, async (t) => {
  const s = await stage(t, (procedure) => {
    if (procedure === "register") void s.plugin.stop();
  });
  for (let i = 0; i < 5; i++) s.plugin.provide(`clock${i}`, "1.0.0", HandshakeService, {});
  await assert.rejects(s.plugin.start(), Closed);
  await s.plugin.stop();
  assert.deepEqual([s.counts.register, s.counts.withdraw], [1, 1]);
});

test("refusals of a watch and of a capability are shown so, too", { timeout: 60_000 }, async (t) => {
  const s = await stage(t, (procedure) => {
    if (procedure === "watch" || procedure === "capability") throw new ConnectError(ill, Code.PermissionDenied);
  });
  await s.plugin.start();
  for (const ask of [() => s.plugin.requestCapability("logger"), () => s.plugin.watch("clock").next(), () => s.clock.getHealth({})]) {
    await assert.rejects(async () => ask(), (e) => e instanceof ConnectError && e.code === Code.PermissionDenied && /forged/.test(e.message) &&
      !unseen.test(inspect(e)) && !/\n/.test(e.rawMessage));
  }
});

test("a service that is refused for a while is there when it is not any more, and the host is asked seldom", { timeout: 60_000 }, async (t) => {
  let allowed = false;
  const before = ServiceRoute.again;
  ServiceRoute.again = 50;
  t.after(() => { ServiceRoute.again = before; });
  const s = await stage(t, (procedure) => {
    if (procedure === "watch" && !allowed) throw new ConnectError("not available", Code.NotFound);
  });
  const begun = performance.now();
  await s.plugin.start();
  await until(() => s.counts.watch >= 5, () => `${s.counts.watch} watches`);
  assert.ok(performance.now() - begun >= 0.9 * (50 + 100 + 200 + 400));
  await assert.rejects(s.clock.getHealth({}), (e) => e instanceof ConnectError && e.code === Code.NotFound);
  allowed = true;
  let works = false;
  void (async () => {
    for (; !works; await new Promise(setImmediate)) works = await s.clock.getHealth({}).then(() => true, () => false);
  })();
  await until(() => works, () => JSON.stringify(s.counts)).finally(() => { works = true; });
});

test("a provider that speaks for the host costs its caller no identity", { timeout: 60_000 }, async (t) => {
  const s = await stage(t, (procedure) => { if (procedure === "call") forget(); });
  await s.plugin.start();
  const clock = createClient(PluginControl, s.plugin.transport("clock", { protocol: "grpc-web" }));
  for (let i = 1; i <= 3; i++) {
    await assert.rejects(clock.getHealth({}, { timeoutMs: 20_000 }), (e) => e instanceof ConnectError && e.code === Code.Unauthenticated);
    assert.deepEqual([s.counts.call, s.counts.handshake], [i, 1]);
  }
});

test("a route that is no URL is none, and the next one is taken", { timeout: 60_000 }, async (t) => {
  const s = await stage(t, () => undefined, { chooses: "", urls: ["http://[", "https://127.0.0.1/services/clock/-"] });
  await s.plugin.start();
  let works = false;
  void (async () => {
    for (; !works; await new Promise(setImmediate)) works = await s.clock.getHealth({}).then(() => true, () => false);
  })();
  await until(() => works, () => JSON.stringify(s.counts)).finally(() => { works = true; });
});

test("what goes on is logged a few times, and then once in a while: the latest, with how many there were", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const lines: string[] = [], alerts: string[] = [];
  const log = new Log((line) => lines.push(line), (line) => alerts.push(line));
  for (let i = 0; i < 100; i++) log.say("enrolled as", String(i));
  for (let i = 0; i < 20; i++) log.warn("enrolled as", String(i));
  log.say("something else");
  assert.deepEqual(lines, [...Array.from({ length: 16 }, (_, i) => `enrolled as ${i}`), "something else"]);
  assert.equal(alerts.length, 16);
  t.mock.timers.tick(10_000);
  assert.deepEqual(lines.slice(17), ["enrolled as 99 (and 83 more like it)"]);
  assert.deepEqual(alerts.slice(16), ["enrolled as 19 (and 3 more like it)"]);
  log.say("enrolled as", "100");
  assert.equal(lines.length, 18);
  log.close();
  assert.deepEqual(lines.slice(18), ["enrolled as 100"]);
  for (let i = 0; i < 100; i++) log.say("enrolled as", String(i));
  t.mock.timers.tick(100_000);
  assert.equal(lines.length, 19);
  log.say("x".repeat(10_000) + ill);
  assert.ok((lines.at(-1) ?? "").length < 2_100);
});

test("characters that nobody sees", () => {
  for (const c of [0x00, 0x07, 0x0a, 0x0d, 0x1b, 0x7f, 0x85, 0x9b, 0xa0, 0xad, 0x34f, 0x115f, 0x180e, 0x200b, 0x200d, 0x202e, 0x2028, 0x2060, 0x2064,
    0x2066, 0x2800, 0x3164, 0xd800, 0xe000, 0xfe0f, 0xfeff, 0xfff9, 0xfffb, 0xe0001, 0xe0041, 0xe0100]) {
    assert.equal(printable(`a${String.fromCodePoint(c)}b`), "a\ufffdb", c.toString(16));
  }
  for (const text of ["{\"a\": \"ü é 🚀\"}", "a b", "日本語", "\ufffd"]) assert.equal(printable(text), text);
  assert.equal(printable("a\tb"), "a b");
});

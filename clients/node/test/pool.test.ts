// Which connections a plugin's words and calls go over.
import assert from "node:assert/strict";
import * as http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { createClient } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { ServiceRoute } from "../src/calls.js";
import { HostLink } from "../src/link.js";
import { Log } from "../src/log.js";
import { Session } from "../src/session.js";
import { afterEnd, type Credentials, type HostTrust } from "../src/trust.js";
import { HandshakeService } from "../src/wire/plugin/v1/handshake_pb.js";
import { HealthState, PluginControl, PluginLifecycle } from "../src/wire/plugin/v1/lifecycle_pb.js";
import { ServiceRegistry, ServiceState } from "../src/wire/plugin/v1/registry_pb.js";
import { haveEnded, issue } from "./issue.js";

const many = Object.fromEntries(Array.from({ length: 900 }, (_, i) => [`x-${i}`, "v"])); // fields of a head
const taken = 4; // streams of a connection
const mostConnections = 16; // for calls

/** A host that takes four streams of a connection, and a session with it. Calls of PluginControl stay open until release. */
async function stage(t: TestContext) {
  const mine = issue("mine");
  const reports: string[] = [], held: http2.Http2Session[] = [], connections = new Set<http2.Http2Session>();
  const waiting: (() => void)[] = [];
  const serve = connectNodeAdapter({
    routes: (router) => router
      .service(HandshakeService, {
        handshake: () => ({ coreProtocolVersion: 1, appProtocolVersion: 1, runtimeId: "me", runtimeToken: "x", serverMetadata: { "connectplugin.any_provider": "true" } }),
      })
      .service(ServiceRegistry, {
        async *watchService(_, { signal }) {
          yield { serviceType: "clock", state: ServiceState.AVAILABLE, sequence: 1n, epoch: "e" };
          await new Promise((end) => signal.addEventListener("abort", end));
        },
      })
      .service(PluginLifecycle, { reportHealth: ({ reason }) => (reports.push(reason), {}) }),
  });
  const called = connectNodeAdapter({
    requestPathPrefix: "/services/clock/-",
    routes: (router) => router.service(PluginControl, {
      getHealth: async () => {
        await new Promise<void>((released) => waiting.push(released));
        return { state: HealthState.HEALTHY };
      },
    }),
  });
  const server = http2.createSecureServer({ cert: mine.cert, key: mine.keyPEM, settings: { maxConcurrentStreams: taken } }, (request, response) => {
    if (request.url === "/unread") return;
    if (request.url === "/many") return void response.writeHead(200, many).end();
    const routed = request.url.startsWith("/services/");
    if (routed) held.push(request.stream.session as http2.Http2Session);
    (routed ? called : serve)(request, response);
  });
  server.on("session", (session) => connections.add(session));
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));

  let shown = mine;
  const credentials = { read: () => ({ cert: shown.cert, key: shown.keyPEM, ca: mine.cert }) } as unknown as Credentials;
  let reason = "first", losses = 0;
  const link = new HostLink(`https://127.0.0.1:${(server.address() as AddressInfo).port}`, credentials,
    { checkServer: () => undefined } as unknown as HostTrust, () => { losses++; session.lost(); });
  const session = new Session(link, {
    selfId: "a", secret: undefined, magicCookie: ["A", "B"], versions: [1, 1], timeoutMs: 2_000, reportEveryMs: 60_000,
    log: new Log(() => undefined, () => undefined), registrations: () => [], declare: () => undefined, health: () => ({ state: HealthState.HEALTHY, reason }),
  });
  const route = new ServiceRoute(session, "clock", "");
  const release = () => { for (const released of waiting.splice(0)) released(); };
  t.after(async () => {
    release();
    await session.end();
    link.close();
    await route.close();
    for (const c of connections) c.destroy();
    await new Promise((closed) => server.close(closed));
  });
  session.start();
  await session.ready(AbortSignal.timeout(10_000));
  const client = createClient(PluginControl, route.transport(link, "grpc"));
  return {
    held, connections, link, losses: () => losses, says: (text: string) => (reason = text, session.poke(true)), reported: () => reports.at(-1),
    call: () => client.getHealth({}, { timeoutMs: 60_000 }).then(() => "ok", (e: unknown) => String(e)),
    open: () => waiting.length, release, renews: (key = mine.key) => { shown = issue("mine", undefined, false, key); },
  };
}

async function until(holds: () => boolean, what: () => string): Promise<void> {
  for (const end = performance.now() + 20_000; !holds(); await new Promise(setImmediate)) assert.ok(performance.now() < end, what());
}

test("the plugin's reports do not wait behind its calls, and calls beyond what a connection takes go over another one", { timeout: 60_000 }, async (t) => {
  const s = await stage(t);
  const calls = [s.call()];
  await until(() => s.open() === 1, () => "no call came"); // by then the host has said how many it takes
  for (let i = 1; i < 2 * taken; i++) calls.push(s.call());
  s.says("busy");
  await until(() => s.reported() === "busy", () => `the last report was ${s.reported()}`);
  await until(() => s.open() === 2 * taken, () => `${s.open()} calls came`);
  assert.equal(new Set(s.held).size, 3); // one of them carries the watch of the route, too
  assert.equal(s.connections.size, 4);
  s.release();
  assert.deepEqual(new Set(await Promise.all(calls)), new Set(["ok"]));
  calls.push(s.call());
  await until(() => s.open() === 1, () => "no call came");
  assert.equal(s.connections.size, 4);
  s.release();
  assert.equal(await calls.at(-1), "ok");
});

test("a renewed certificate is shown over other connections, and what is open on the first goes on", { timeout: 60_000 }, async (t) => {
  const s = await stage(t);
  const calls = [s.call()];
  await until(() => s.open() === 1, () => "no call came");
  const [own] = s.connections;
  s.renews();
  s.says("renewed");
  await until(() => s.reported() === "renewed", () => `the last report was ${s.reported()}`);
  await until(() => own?.destroyed === true, () => "the first connection of the session is open");
  assert.equal(s.connections.size, 3);
  calls.push(s.call());
  await until(() => s.open() === 2, () => "no call came");
  assert.equal(s.connections.size, 4);
  assert.equal(new Set(s.held).size, 2);
  s.release();
  assert.deepEqual(await Promise.all(calls), ["ok", "ok"]);
  s.renews(issue("other").key);
  s.says("as before");
  await until(() => s.reported() === "as before", () => `the last report was ${s.reported()}`);
  assert.equal(s.connections.size, 4);
  assert.equal(s.losses(), 0);
});

test("an upload that nobody reads keeps no other call of the connection from its answer", { timeout: 60_000 }, async (t) => {
  const s = await stage(t);
  const first = s.call();
  await until(() => s.open() === 1, () => "no call came");
  const upload = await s.link.calls.request("POST", "/unread", { ":path": "/unread" }, {});
  upload.on("error", () => undefined).end(Buffer.alloc(24 << 20));
  const second = s.call();
  await until(() => s.open() === 2, () => "no other call came");
  s.release();
  assert.deepEqual(await Promise.all([first, second]), ["ok", "ok"]);
  upload.close();
});

test("USE-07: an answer may have as many fields as for a plugin in Go", { timeout: 60_000 }, async (t) => {
  const s = await stage(t);
  const stream = await s.link.calls.request("GET", "/many", { ":path": "/many" }, {});
  const said = await new Promise<http2.IncomingHttpHeaders>((done, failed) => stream.once("response", done).once("error", failed).end());
  assert.equal(said["x-899"], "v");
  stream.close();
});

test("connections for calls are bounded, and what is lost with one of them is no host", { timeout: 60_000 }, async (t) => {
  const s = await stage(t);
  const calls = [s.call()];
  await until(() => s.open() === 1, () => "no call came");
  const fit = mostConnections * taken - 1; // beside the watch
  while (calls.length < fit) {
    calls.push(s.call());
    await until(() => s.open() === calls.length, () => `${s.open()} calls of ${calls.length} came`);
  }
  for (let i = 0; i < taken; i++) calls.push(s.call());
  s.says("full");
  await until(() => s.reported() === "full", () => `the last report was ${s.reported()}`);
  assert.equal(s.open(), fit);
  assert.equal(s.connections.size, 1 + mostConnections);
  s.held.at(-1)?.destroy();
  assert.match(await (calls[fit - 1] ?? ""), /unavailable.*connection to the host was lost/);
  assert.equal(s.losses(), 0);
  const rest = Promise.all(calls);
  const look = setInterval(s.release, 5);
  t.after(() => clearInterval(look));
  const ended = await rest;
  assert.equal(ended.filter((e) => e !== "ok").length, taken, ended.join("\n"));
});

test("where the host's certificate has ended other connections are opened, and what is open goes on", { timeout: 60_000 }, async (t) => {
  const restore = haveEnded(t, 1);
  const s = await stage(t);
  const call = s.call();
  await until(() => s.open() === 1, () => "no call came");
  restore();
  const [own] = s.connections;
  s.says("again");
  await until(() => s.reported() === "again", () => `the last report was ${s.reported()}`);
  await until(() => own?.destroyed === true, () => "the first connection of the session is open");
  const count = s.connections.size;
  s.says("for good");
  await until(() => s.reported() === "for good", () => `the last report was ${s.reported()}`);
  assert.equal(s.connections.size, count);
  s.release();
  assert.equal(await call, "ok");
  assert.equal(s.losses(), 0);
});

test("a connection to the host ends once it has outlived the host's certificate, with what is open on it", { timeout: 60_000 }, async (t) => {
  const s = await stage(t);
  haveEnded(t, 58);
  let got = "";
  void s.call().then((how) => { got = how; });
  await until(() => got !== "", () => "the call goes on");
  assert.notEqual(got, "ok");
});

test("a connection ends once it has outlived the certificate that was shown on it", { timeout: 60_000 }, async (t) => {
  const alive = setInterval(() => undefined, 1_000); // the timers of connections keep no process
  t.after(() => clearInterval(alive));
  let ends = Date.now() - 59_990;
  const first = ends, asked: number[] = [];
  await new Promise<void>((over) => afterEnd(() => {
    asked.push(ends);
    if (asked.length === 2) ends += 10; // a later one was shown
    return ends;
  }, over));
  assert.ok(Date.now() >= first + 60_000);
  assert.ok(asked.length >= 3, `asked ${asked.length} times`);
  const soon = Date.now() - 59_950;
  const off = afterEnd(() => soon, () => assert.fail("it was called off"));
  off();
  await new Promise((later) => setTimeout(later, 100));
});

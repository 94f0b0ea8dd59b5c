// What strangers can do to the server of a plugin.
import assert from "node:assert/strict";
import { connect, Server as NetServer, type Socket } from "node:net";
import * as http2 from "node:http2";
import { test, type TestContext } from "node:test";
import type { ConnectRouter } from "@connectrpc/connect";
import { Log } from "../src/log.js";
import { Server } from "../src/serving.js";
import type { Credentials, HostTrust } from "../src/trust.js";
import { PluginControl } from "../src/wire/plugin/v1/lifecycle_pb.js";
import { haveEnded, issue } from "./issue.js";

/** A server whose host is whoever has its authority's certificate. */
async function stage(t: TestContext, routes: (router: ConnectRouter) => void = () => undefined) {
  const mine = issue("mine");
  const logged: string[] = [], servers: NetServer[] = [];
  const listen = NetServer.prototype.listen as (this: NetServer, ...args: unknown[]) => NetServer;
  t.mock.method(NetServer.prototype, "listen", function (this: NetServer, ...args: unknown[]) {
    servers.push(this);
    return listen.apply(this, args);
  } as typeof NetServer.prototype.listen);
  const server = new Server(
    { read: () => ({ cert: mine.cert, key: mine.keyPEM, ca: mine.cert }) } as unknown as Credentials, { refuse: () => undefined } as unknown as HostTrust,
    routes, new Log((line) => logged.push(line), (line) => logged.push(line)));
  const port = await server.listen("127.0.0.1", 0);
  const opened = new Set<Socket>();
  t.after(async () => {
    for (const socket of opened) socket.destroy();
    await server.close(1);
  });
  const stranger = async () => {
    const socket = connect(port, "127.0.0.1");
    opened.add(socket);
    socket.on("error", () => undefined).on("close", () => opened.delete(socket));
    await new Promise((done) => socket.once("connect", done));
    return socket;
  };
  /** A connection of the host's. */
  const dial = () => {
    const session = http2.connect(`https://127.0.0.1:${port}`, {
      cert: mine.cert, key: mine.keyPEM, ca: mine.cert, checkServerIdentity: () => undefined,
    });
    t.after(() => session.destroy());
    return session;
  };
  /** What the host gets for a call, which it does not read. */
  const ask = (session = dial(), path = "/", fields = {}) => new Promise<unknown>((done, failed) => {
    session.once("error", failed);
    const stream = session.request({ ":path": path, ":method": "POST", "content-type": "application/grpc", ...fields });
    stream.once("error", failed).once("response", (said) => done(said[":status"])).end(Buffer.alloc(5));
  });
  return { listening: servers[0] as NetServer, logged, stranger, opened, dial, ask, close: () => server.close(60_000) };
}

test("a connection that cannot be taken ends no process", async (t) => {
  const s = await stage(t);
  for (let i = 0; i < 3; i++) s.listening.emit("error", new Error("accept EMFILE")); // as net does
  assert.deepEqual(s.logged, Array.from({ length: 3 }, () => "a connection was not taken: accept EMFILE"));
  assert.equal(await s.ask(), 404);
});

test("strangers who say nothing make room for others", { timeout: 60_000 }, async (t) => {
  const s = await stage(t);
  const strangers: Socket[] = [];
  for (let i = 0; i < 200; i++) strangers.push(await s.stranger());
  for (const end = performance.now() + 40_000; s.opened.size > 64; await new Promise(setImmediate)) {
    assert.ok(performance.now() < end, `${s.opened.size} are open`);
  }
  assert.ok(strangers.at(-1)?.destroyed === false);
  assert.equal(await s.ask(), 404);
});

test("a stranger who says nothing holds up no end", { timeout: 60_000 }, async (t) => {
  const s = await stage(t);
  const stranger = await s.stranger();
  const ended = new Promise((done) => stranger.once("close", done));
  await s.close();
  await ended;
});

test("USE-07: a call may have as many fields as for a plugin in Go", { timeout: 60_000 }, async (t) => {
  const s = await stage(t);
  assert.equal(await s.ask(s.dial(), "/", Object.fromEntries(Array.from({ length: 900 }, (_, i) => [`x-${i}`, "v"]))), 404);
});

test("answers that are not read keep no others from being served on the connection", { timeout: 60_000 }, async (t) => {
  let served = 0;
  const large = { reason: "x".repeat(4 << 20) };
  const s = await stage(t, (router) => router.service(PluginControl, { getHealth: () => (served++, large) }));
  const session = s.dial(), path = "/connectplugin.v1.PluginControl/GetHealth";
  for (let i = 1; i <= 12; i++) {
    assert.equal(await s.ask(session, path), 200);
    assert.equal(served, i);
  }
});

test("a connection of the host ends once it has outlived its certificate, unless a later one was shown", { timeout: 60_000 }, async (t) => {
  const s = await stage(t);
  const restore = haveEnded(t, 61);
  await assert.rejects(s.ask());
  assert.match(s.logged.at(-1) ?? "", /a connection of the host ended, because its certificate did/);
  restore();
  assert.equal(await s.ask(), 404);
  const again = haveEnded(t, 61);
  assert.equal(await s.ask(), 404);
  again();
});

// Whom a call goes to.
import assert from "node:assert/strict";
import http2 from "node:http2";
import { type AddressInfo, connect, type Socket } from "node:net";
import { test } from "node:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { Http2SessionManager } from "@connectrpc/connect-node";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { ServiceRoute } from "../src/calls.js";
import { requestGrant } from "../src/capabilities.js";
import type { HostLink } from "../src/link.js";
import { Pool } from "../src/pool.js";
import type { Identity, Session } from "../src/session.js";
import { CapabilityBroker, type RequestCapabilityRequest } from "../src/wire/plugin/v1/broker_pb.js";
import { PluginLifecycle } from "../src/wire/plugin/v1/lifecycle_pb.js";
import { ServiceRegistry, ServiceState, type WatchServiceEvent } from "../src/wire/plugin/v1/registry_pb.js";

/** A session with one state of the type, and a host that answers nothing. */
function session(chooses: boolean): Session {
  const identity = { runtimeId: "me", headers: () => ({ authorization: "Bearer x" }) } as unknown as Identity;
  async function* watchService(_: unknown, { signal }: { signal: AbortSignal }): AsyncGenerator<WatchServiceEvent> {
    const endpoint = { endpointUrl: "/services/clock/clock-1", version: "1.0.0", providerId: "clock-1", metadata: {} };
    yield { state: ServiceState.AVAILABLE, endpoint, sequence: 1n, epoch: "e", resync: false, missed: 0n } as unknown as WatchServiceEvent;
    await new Promise((end) => signal.addEventListener("abort", end));
  }
  const discoverService = async () => ({ endpoint: { endpointUrl: "/services/clock/clock-2" } });
  return {
    identity: async () => identity, current: () => identity, hostChooses: () => chooses, refused: () => undefined,
    registry: { watchService, discoverService },
  } as unknown as Session;
}

for (const [chooses, constraint, path, told] of [
  [true, "", "/services/clock/-/", undefined], [true, ">=1.2, <2", "/services/clock/-/", ">=1.2, <2"],
  [false, "", "/services/clock/clock-1/", undefined], [false, ">=1.2, <2", "/services/clock/clock-2/", undefined],
] as const) {
  test(`the host ${chooses ? "chooses" : "does not choose"}, with the constraint "${constraint}"`, async () => {
    const seen: http2.IncomingHttpHeaders[] = [];
    const server = http2.createServer((req, res) => {
      seen.push(req.headers);
      res.stream.respond({ ":status": 200, "content-type": "application/grpc", "grpc-status": "12" }, { endStream: true });
    });
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const sessions = new Http2SessionManager(url);
    const route = new ServiceRoute(session(chooses), "clock", constraint);
    const client = createClient(PluginLifecycle, route.transport({ url, calls: new Pool(url, () => sessions) } as unknown as HostLink, "grpc"));
    await assert.rejects(client.reportHealth({}, { headers: { "x-plugin-constraint": "forged" } }));
    await route.close();
    sessions.abort();
    server.close();
    assert.equal(seen[0]?.[":path"], path + "connectplugin.v1.PluginLifecycle/ReportHealth");
    assert.equal(seen[0]?.["x-plugin-constraint"], told);
  });
}

for (const protocol of ["grpc", "connect", "grpc-web"] as const) {
  for (const [how, code] of [
    ["the host ends", Code.Unavailable], ["the connection is reset", Code.Unavailable], ["the caller gives up", Code.Canceled], ["the host ends the call", Code.Canceled],
  ] as const) {
    test(`in ${protocol}, calls in flight where ${how}`, async (t) => {
      const type = { grpc: "application/grpc", connect: "application/connect+proto", "grpc-web": "application/grpc-web+proto" }[protocol];
      const streams: http2.ServerHttp2Stream[] = [];
      let accepted: Socket | undefined, all = () => { /* nobody waits yet */ };
      const server = http2.createServer((req, res) => {
        streams.push(res.stream);
        res.stream.on("error", () => undefined);
        if (String(req.headers[":path"]).endsWith("WatchService")) {
          res.stream.respond({ ":status": 200, "content-type": type });
          res.stream.write(Buffer.alloc(5)); // an empty message
        }
      });
      server.on("connection", (socket: Socket) => { accepted = socket; });
      await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
      const { port } = server.address() as AddressInfo;
      const url = `http://127.0.0.1:${port}`;
      const lost = () => { link.lostAt = performance.now(); };
      const sessions = new Http2SessionManager(url, {}, {
        createConnection: () => connect(port, "127.0.0.1").once("error", lost).once("close", lost),
      });
      const link: HostLink = { url, calls: new Pool(url, () => sessions), lostAt: -Infinity } as unknown as HostLink;
      const route = new ServiceRoute(session(true), "clock", "");
      t.after(async () => {
        sessions.abort();
        await route.close();
        await new Promise((closed) => server.close(closed));
      });
      const transport = route.transport(link, protocol);
      const caller = new AbortController();
      const failed = (e: unknown) => ConnectError.from(e).code;
      const unary = createClient(PluginLifecycle, transport).reportHealth({}, { signal: caller.signal }).then(() => "ok", failed);
      const first = new Promise<void>((got) => { all = got; });
      const stream = (async () => {
        for await (const _ of createClient(ServiceRegistry, transport).watchService({}, { signal: caller.signal })) all();
      })().then(() => "ok", failed);
      await first;
      while (streams.length < 2) await new Promise(setImmediate);
      if (how === "the host ends") accepted?.destroy();
      else if (how === "the connection is reset") accepted?.resetAndDestroy();
      else if (how === "the caller gives up") caller.abort();
      else for (const s of streams) s.close(http2.constants.NGHTTP2_CANCEL);
      assert.equal(await unary, code);
      if (how === "the host ends the call") await stream; // whatever its protocol makes of an answer without an end
      else assert.equal(await stream, code);
    });
  }
}

for (const [how, code] of [
  ["the host grants", undefined], ["the host refuses", Code.PermissionDenied], ["the host says nothing of it", Code.Internal], ["the host ends", Code.Unavailable],
] as const) {
  test(`a capability that is asked for where ${how}`, async (t) => {
    const seen: [RequestCapabilityRequest, string | null][] = [];
    let accepted: Socket | undefined;
    const server = http2.createServer(connectNodeAdapter({
      routes: (router) => router.service(CapabilityBroker, {
        requestCapability: async (request, context) => {
          seen.push([request, context.requestHeader.get("authorization")]);
          if (how === "the host refuses") throw new ConnectError("no such capability", Code.PermissionDenied);
          if (how === "the host ends") await new Promise((never) => { accepted?.destroy(); accepted?.once("close", never); });
          return how === "the host grants" ? { grant: { grantId: "g", endpointUrl: "/capabilities/clock/g", bearerToken: "secret" } } : {};
        },
      }),
    }));
    server.on("connection", (socket: Socket) => { accepted = socket; });
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    const { port } = server.address() as AddressInfo;
    const link = { url: `http://127.0.0.1:${port}`, lostAt: -Infinity } as unknown as { url: string; lostAt: number; calls: Http2SessionManager };
    const lost = () => { link.lostAt = performance.now(); };
    link.calls = new Http2SessionManager(link.url, {}, {
      createConnection: () => connect(port, "127.0.0.1").once("error", lost).once("close", lost),
    });
    t.after(async () => {
      link.calls.abort();
      await new Promise((closed) => server.close(closed));
    });
    const wanted = { capabilityType: "clock", minVersion: "1.2.0", reason: "the time" };
    const asked = requestGrant(session(true), link as unknown as HostLink, wanted, 10_000, 10_000);
    if (code === undefined) {
      const { grantId, endpointUrl, bearerToken } = (await asked).grant;
      assert.deepEqual([grantId, endpointUrl, bearerToken], ["g", "/capabilities/clock/g", "secret"]);
    } else {
      await assert.rejects(asked, (e) => ConnectError.from(e).code === code);
    }
    assert.equal(seen.length, 1);
    const [request, token] = seen[0] ?? assert.fail();
    assert.deepEqual([request.capabilityType, request.minVersion, request.reason, token], ["clock", "1.2.0", "the time", "Bearer x"]);
  });
}

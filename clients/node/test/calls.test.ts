// Whom a call goes to.
import assert from "node:assert/strict";
import http2 from "node:http2";
import { type AddressInfo } from "node:net";
import { test } from "node:test";
import { createClient } from "@connectrpc/connect";
import { Http2SessionManager } from "@connectrpc/connect-node";
import { ServiceRoute } from "../src/calls.js";
import type { HostLink } from "../src/link.js";
import type { Identity, Session } from "../src/session.js";
import { PluginLifecycle } from "../src/wire/plugin/v1/lifecycle_pb.js";
import { ServiceState, type WatchServiceEvent } from "../src/wire/plugin/v1/registry_pb.js";

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
    const client = createClient(PluginLifecycle, route.transport({ url, sessions } as unknown as HostLink, "grpc"));
    await assert.rejects(client.reportHealth({}, { headers: { "x-plugin-constraint": "forged" } }));
    await route.close();
    sessions.abort();
    server.close();
    assert.equal(seen[0]?.[":path"], path + "connectplugin.v1.PluginLifecycle/ReportHealth");
    assert.equal(seen[0]?.["x-plugin-constraint"], told);
  });
}

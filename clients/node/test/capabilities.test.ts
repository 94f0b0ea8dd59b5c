// Calls of a host's capabilities: where they go, with what, and when another grant is asked for.
import assert from "node:assert/strict";
import * as http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { create } from "@bufbuild/protobuf";
import { StringValueSchema, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient, type HandlerContext } from "@connectrpc/connect";
import { connectNodeAdapter, Http2SessionManager } from "@connectrpc/connect-node";
import { Subject } from "../conformance/wire/subject_pb.js";
import type { Protocol } from "../src/calls.js";
import { CapabilityRoute, requestGrant } from "../src/capabilities.js";
import { Closed } from "../src/errors.js";
import { ConfigError, type Credentials, Plugin } from "../src/index.js";
import type { HostLink } from "../src/link.js";
import type { Identity, Session } from "../src/session.js";
import { CapabilityBroker, type RequestCapabilityRequest } from "../src/wire/plugin/v1/broker_pb.js";

const protocols = ["grpc", "connect", "grpc-web"] as const;
const wanted = { capabilityType: "clock", minVersion: ">=1.2, <2", reason: "the time" };
const text = (value: string) => create(StringValueSchema, { value });

/** A host with the capability clock, and a session that gets another identity where the host does not know the one that there is. */
async function stage(t: TestContext) {
  const host = {
    token: "mine1", base: "https://elsewhere.invalid", path: "/capabilities/clock/", word: "grant", life: 3_600_000 as number | undefined, ahead: 0,
    fails: undefined as Code | undefined, answers: Promise.resolve(), valid: new Map<string, string>(),
    asked: [] as RequestCapabilityRequest[], called: [] as { path: string; told: Headers }[],
  };
  const refuse = () => {
    throw new ConnectError("unauthenticated", Code.Unauthenticated, { "www-authenticate": "Bearer" });
  };
  const check = ({ requestHeader: told }: HandlerContext) => {
    const path = told.get("x-path") ?? "";
    const token = host.valid.get(path.replace(/\/connectplugin\..*/, ""));
    if (!token || told.get("authorization") !== `Bearer ${token}`) refuse();
    host.called.push({ path, told });
  };
  const serve = connectNodeAdapter({
    routes: (router) => router
      .service(CapabilityBroker, {
        requestCapability: async (request, context) => {
          host.asked.push(request);
          const number = host.asked.length;
          await host.answers;
          if (context.requestHeader.get("authorization") !== `Bearer ${host.token}`) refuse();
          if (host.fails !== undefined) throw new ConnectError("not available", host.fails);
          if (host.ahead) context.responseHeader.set("date", new Date(Date.now() + host.ahead).toUTCString());
          host.valid.set(`${host.path}g${number}`, `${host.word}${number}`);
          return { grant: {
            grantId: `g${number}`, endpointUrl: `${host.base}${host.path}g${number}`, bearerToken: `${host.word}${number}`,
            ...(host.life === undefined ? {} : { expiresAt: timestampFromMs(Date.now() + host.ahead + host.life) }),
          } };
        },
      })
      .service(Subject, {
        echo: (m, context) => (check(context), m),
        async collect(all, context) {
          check(context);
          let got = "";
          for await (const m of all) got += m.value;
          return text(got);
        },
        async *repeat(m, context) {
          check(context);
          yield m;
        },
        async *converse(all, context) {
          check(context);
          yield* all;
        },
      }),
  });
  const server = http2.createServer((request, response) => {
    request.headers["x-path"] = request.url;
    request.url = request.url.replace(/^.*(\/connectplugin\..*)/, "$1");
    serve(request, response);
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const calls = new Http2SessionManager(url);
  t.after(async () => {
    calls.abort();
    await new Promise((closed) => server.close(closed));
  });
  const me = { number: 1, forgotten: [] as string[], error: undefined as Error | undefined };
  const current = () => ({
    runtimeId: `me${me.number}`, headers: () => ({ "x-plugin-runtime-id": `me${me.number}`, authorization: `Bearer mine${me.number}` }),
  }) as unknown as Identity;
  const session = {
    current, identity: async () => { if (me.error) throw me.error; return current(); },
    refused: ({ runtimeId }: Identity) => { if (runtimeId === `me${me.number}`) me.forgotten.push(runtimeId), me.number++; },
  } as unknown as Session;
  const link = { url, calls, lostAt: -Infinity } as unknown as HostLink;
  const route = (timeoutMs = 10_000) => new CapabilityRoute(session, link, wanted, timeoutMs);
  return { host, me, route, byHand: () => requestGrant(session, link, wanted, 1_000, 5_000) };
}

async function* two() {
  yield text("a");
  yield text("b");
}

const headers = { authorization: "Bearer forged", "x-plugin-runtime-id": "forged", "x-plugin-constraint": "forged", mine: "kept" };

/** Calls of all four kinds. */
const kinds: Record<string, (route: CapabilityRoute, protocol?: Protocol, timeoutMs?: number) => Promise<string>> = {
  unary: async (route, protocol = "grpc", timeoutMs = 20_000) =>
    (await createClient(Subject, route.transport(protocol)).echo(text("ab"), { headers, timeoutMs })).value,
  "client stream": async (route, protocol = "grpc", timeoutMs = 20_000) =>
    (await createClient(Subject, route.transport(protocol)).collect(two(), { headers, timeoutMs })).value,
  "server stream": async (route, protocol = "grpc", timeoutMs = 20_000) => {
    let got = "";
    for await (const m of createClient(Subject, route.transport(protocol)).repeat(text("ab"), { headers, timeoutMs })) got += m.value;
    return got;
  },
  "both stream": async (route, protocol = "grpc", timeoutMs = 20_000) => {
    let got = "";
    for await (const m of createClient(Subject, route.transport(protocol)).converse(two(), { headers, timeoutMs })) got += m.value;
    return got;
  },
};
const call = kinds["unary"]!;
const coded = (code: Code, says = /./) => (e: unknown) => e instanceof ConnectError && e.code === code && says.test(e.rawMessage) || assert.fail(String(e));

for (const protocol of protocols) {
  test(`in ${protocol}, calls of all kinds go to the grant's path at the host, with the grant`, async (t) => {
    const { host, route } = await stage(t);
    const clock = route();
    for (const [kind, play] of Object.entries(kinds)) assert.equal(await play(clock, protocol), "ab", kind);
    assert.deepEqual(host.asked.map((a) => [a.capabilityType, a.minVersion, a.reason]), [Object.values(wanted)]);
    const methods = ["Echo", "Collect", "Repeat", "Converse"];
    assert.deepEqual(host.called.map((c) => c.path), methods.map((m) => `/capabilities/clock/g1/${Subject.typeName}/${m}`));
    for (const { told } of host.called) {
      assert.deepEqual(Object.keys(headers).map((name) => told.get(name)), ["Bearer grant1", "me1", null, "kept"]);
    }
  });

  test(`in ${protocol}, a grant that was taken away is replaced, and the identity stays`, async (t) => {
    const { host, me, route } = await stage(t);
    const clock = route();
    for (const [kind, play] of Object.entries(kinds)) {
      await call(clock);
      host.valid.clear();
      await assert.rejects(play(clock, protocol), coded(Code.Unauthenticated), kind);
      assert.equal(await play(clock, protocol), "ab", kind);
    }
    assert.deepEqual([me.forgotten, host.asked.length], [[], 5]);
  });

  test(`in ${protocol}, a call is made once more where the host lost the plugin`, async (t) => {
    const { host, me, route } = await stage(t);
    const clock = route();
    await call(clock, protocol);
    host.valid.clear();
    host.token = "mine2";
    assert.equal(await call(clock, protocol), "ab");
    assert.deepEqual([me.forgotten, host.called.at(-1)?.told.get("authorization")], [["me1"], "Bearer grant3"]);
  });
}

for (const [life, age, many, ahead] of [
  [3_600_000, 2_000_000, 1, 0], [3_600_000, 2_600_000, 2, 0], [undefined, 1e9, 1, 0], [-5_000, 1e9, 1, 0],
  [3_600_000, 2_000_000, 1, 5e6], [3_600_000, 2_600_000, 2, 5e6], [3_600_000, 2_000_000, 1, -3_590_000], [3_600_000, 2_600_000, 2, -5e6],
] as const) {
  test(`a grant for ${life} ms after ${age} ms, by a clock ${ahead} ms ahead`, async (t) => {
    const { host, route } = await stage(t);
    host.life = life;
    host.ahead = ahead;
    const clock = route(), now = performance.now.bind(performance);
    await call(clock);
    t.mock.method(performance, "now", () => now() + age);
    await call(clock);
    assert.equal(host.asked.length, many);
  });
}

for (const [age, fails, many, token] of [[30_000, undefined, 1, 1], [500_000, undefined, 2, 2], [500_000, Code.ResourceExhausted, 2, 1]] as const) {
  test(`who asks again after ${age} ms gets what the host has then${fails ? ", where it has too many" : ""}`, async (t) => {
    const { host, route } = await stage(t);
    const clock = route(), now = performance.now.bind(performance);
    await call(clock);
    t.mock.method(performance, "now", () => now() + age);
    host.fails = fails;
    clock.confirm();
    await call(clock);
    await call(clock);
    assert.deepEqual([host.asked.length, host.called.at(-1)?.told.get("authorization")], [many, `Bearer grant${token}`]);
  });
}

test("another identity has another grant", async (t) => {
  const { host, me, route } = await stage(t);
  const clock = route();
  await call(clock);
  me.number = 2;
  host.token = "mine2";
  await call(clock);
  assert.deepEqual(host.called.map(({ told }) => [told.get("authorization"), told.get("x-plugin-runtime-id")]), [["Bearer grant1", "me1"], ["Bearer grant2", "me2"]]);
});

test("a host that loses each identity is asked twice", async (t) => {
  const { host, route, byHand } = await stage(t);
  host.token = "nobody";
  for (const ask of [() => call(route()), byHand]) {
    host.asked = [];
    await assert.rejects(ask(), coded(Code.Unauthenticated));
    assert.equal(host.asked.length, 2);
  }
});

test("what the host does not grant", async (t) => {
  const { host, me, route, byHand } = await stage(t);
  for (const [code, says] of [[Code.NotFound, /PluginPolicy.Capabilities.*not available/], [Code.ResourceExhausted, /^not available/]] as const) {
    host.fails = code;
    for (const ask of [() => call(route()), byHand]) await assert.rejects(ask(), coded(code, says));
  }
  assert.deepEqual([host.called, me.forgotten], [[], []]);
});

for (const [base, path, word] of [
  ["", "/capabilities/other/", "grant"], ["", "/services/clock/", "grant"], ["", "/capabilities/clock/../", "grant"], ["", "/capabilities/clock/.", "grant"],
  ["", "/capabilities/clock/a/", "grant"], ["https://[", "/", "grant"], ["", "/capabilities/clock/", "two words"], ["", "/capabilities/clock/", "x".repeat(600)],
] as const) {
  test(`a grant at ${base}${path} with ${word.slice(0, 10)} is used for nothing`, async (t) => {
    const { host, route } = await stage(t);
    Object.assign(host, { base, path, word });
    await assert.rejects(call(route()), coded(Code.Internal, /^capability "clock": the host's grant is malformed$/));
    assert.deepEqual(host.called, []);
  });
}

test("who waits for a grant waits no longer than the call may take, or the plugin for its host", { timeout: 45_000 }, async (t) => {
  const { host, route } = await stage(t);
  let answer = () => { /* nobody waits yet */ };
  host.answers = new Promise((done) => { answer = done; });
  const clock = route(50_000), bounded = route(300);
  await Promise.all(Object.values(kinds).map((play) => assert.rejects(play(clock, "grpc", 300), coded(Code.DeadlineExceeded))));
  assert.equal(host.asked.length, 1);
  await assert.rejects(call(bounded, "grpc", 50_000), coded(Code.DeadlineExceeded));
  assert.deepEqual(host.called, []);
  answer();
  assert.equal(await call(clock), "ab");
  assert.equal(host.called.length, 1); // that one
});

test("many calls share a grant", async (t) => {
  const { host, route } = await stage(t);
  const clock = route();
  assert.deepEqual(new Set(await Promise.all(Array.from({ length: 60 }, () => call(clock)))), new Set(["ab"]));
  assert.equal(host.asked.length, 1);
});

test("a plugin that has ended calls nobody", async (t) => {
  const { host, me, route } = await stage(t);
  me.error = new Closed("the plugin has ended");
  await assert.rejects(call(route()), coded(Code.Unavailable));
  assert.deepEqual(host.asked, []);
});

test("names that no host takes are refused, who asks for the same shares it, and what a plugin keeps is bounded", (t) => {
  const plugin = new Plugin({ host: "https://127.0.0.1:1", selfId: "greeter", hostIdentity: "spiffe://td.test/host", credentials: {} as Credentials });
  for (const name of ["", "a/b", "../x", "x".repeat(129)]) assert.throws(() => plugin.capability(name), ConfigError);
  const { mock } = t.mock.method(CapabilityRoute.prototype, "transport");
  const route = (name: string, constraint = "") => (plugin.capability(name, { constraint }), mock.calls.at(-1)?.this);
  assert.equal(route("clock", "1"), route("clock", "1"));
  assert.notEqual(route("clock", "1"), route("clock"));
  for (let i = 0; i < 256; i++) plugin.capability(`c${i}`);
  assert.equal(route("clock", "1"), route("clock", "1"));
  assert.notEqual(route("another"), route("another"));
});

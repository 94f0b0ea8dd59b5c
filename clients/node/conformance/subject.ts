// What connectplugin-conformance drives to find out whether this package behaves as docs/protocol.md says. README.md beside
// the kit describes the service.
import { env, stderr } from "node:process";
import { create, fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { type StringValue, StringValueSchema } from "@bufbuild/protobuf/wkt";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { caller, Credentials, HealthState, Plugin } from "../src/index.js";
import { proveRequest, responseIsProven } from "../src/transcript.js";
import { HandshakeRequestSchema, HandshakeResponseSchema } from "../src/wire/plugin/v1/handshake_pb.js";
import { Subject } from "./wire/subject_pb.js";

const kit = "conformance.kit";
const health: Record<string, HealthState> = {
  healthy: HealthState.HEALTHY, degraded: HealthState.DEGRADED, unhealthy: HealthState.UNHEALTHY,
};
const text = (value: string) => create(StringValueSchema, { value });
const codeName = (code: Code) => (Code[code] ?? "").replace(/(?<=.)[A-Z]/g, "_$&").toLowerCase();

const secret = Buffer.from(env["CONFORMANCE_SECRET"] ?? "", "hex");
const plugin = new Plugin({
  host: env["CONFORMANCE_HOST"] ?? "", selfId: env["CONFORMANCE_SELF"] ?? "", selfVersion: "1.0.0",
  credentials: new Credentials(env["CONFORMANCE_DIR"] ?? ""), requires: [kit], ...(secret.length > 0 ? { secret } : {}),
  log: (line) => stderr.write(line + "\n"),
});

function split(value: string): [string, string] {
  const [head = "", ...rest] = value.split(" ");
  return [head, rest.join(" ")];
}

async function* each(values: string[]): AsyncGenerator<MessageInitShape<typeof StringValueSchema>> {
  for (const v of values) yield text(v);
}

async function play(client: Client<typeof Subject>, method: string, values: string[]): Promise<string[]> {
  const got: string[] = [];
  switch (method) {
    case "Collect":
      return [(await client.collect(each(values))).value];
    case "Repeat":
      for await (const m of client.repeat(text(values[0] ?? ""))) got.push(m.value);
      return got;
    case "Converse": {
      let came = () => { /* nobody waits yet */ };
      async function* oneByOne() {
        for (const v of values) {
          const answered = new Promise<void>((done) => (came = done));
          yield text(v);
          await answered;
        }
      }
      for await (const m of client.converse(oneByOne())) {
        got.push(m.value);
        came();
      }
      return got;
    }
    default: {
      const of = { Echo: client.echo, Who: client.who, Fail: client.fail }[method];
      return of ? [(await of(text(values[0] ?? ""))).value] : [];
    }
  }
}

plugin.provide("conformance.subject", "1.0.0", Subject, {
  echo: (m) => m,
  who: (_, context) => text(caller(context).selfId),
  fail(m) {
    const [code, said] = split(m.value);
    throw new ConnectError(said, Number(code));
  },
  async collect(messages) {
    const got: string[] = [];
    for await (const m of messages) got.push(m.value);
    return text(got.join(","));
  },
  async *repeat(m) {
    for (let i = 0; i < Number(m.value); i++) yield text(String(i));
  },
  async *converse(messages: AsyncIterable<StringValue>) {
    yield* messages;
  },
  async call(m) {
    const { method, values, atOnce: n = 1, capability } = JSON.parse(m.value) as { method: string; values: string[] | null; atOnce?: number; capability?: string };
    const client = createClient(Subject, capability ? plugin.capability(capability) : plugin.transport(kit));
    try {
      const [got = []] = await Promise.all(Array.from({ length: n }, () => play(client, method, values ?? [])));
      return text(JSON.stringify({ values: got }));
    } catch (e) {
      const failure = ConnectError.from(e);
      return text(JSON.stringify({ code: codeName(failure.code), text: failure.rawMessage }));
    }
  },
  async *watch(m, context) {
    for await (const s of plugin.watch(m.value, context.signal)) {
      yield text(JSON.stringify({
        state: s.state, provider: s.providerId, sequence: Number(s.sequence), resync: s.resync, missed: Number(s.missed),
      }));
    }
  },
  prove(m) {
    const said = JSON.parse(m.value) as Record<"secret" | "binding" | "request" | "response", string>;
    const [secret, binding] = [Buffer.from(said.secret, "hex"), said.binding ? Buffer.from(said.binding, "hex") : undefined];
    const request = fromBinary(HandshakeRequestSchema, Buffer.from(said.request, "hex"));
    const response = fromBinary(HandshakeResponseSchema, Buffer.from(said.response, "hex"));
    proveRequest(request, secret, binding);
    return text(JSON.stringify({
      proof: Buffer.from(request.clientProof).toString("hex"), proven: responseIsProven(request, response, secret, binding),
    }));
  },
  health(m) {
    const [state, reason] = split(m.value);
    plugin.setHealth(health[state] ?? HealthState.UNSPECIFIED, reason);
    return m;
  },
});

await plugin.run();

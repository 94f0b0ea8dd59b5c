// The proofs of the handshake, as docs/protocol.md writes them down under "Proofs".
import { createHash, createHmac, hkdfSync, timingSafeEqual } from "node:crypto";
import { type DescField, type Message, ScalarType } from "@bufbuild/protobuf";
import { reflect, type ReflectMessage } from "@bufbuild/protobuf/reflect";
import {
  type HandshakeRequest,
  HandshakeRequestSchema,
  type HandshakeResponse,
  HandshakeResponseSchema,
} from "./wire/plugin/v1/handshake_pb.js";

export const nonceSize = 32;
export const minSecretSize = 16;
export const exporterLabel = "EXPORTER-connectplugin-handshake";
export const exporterSize = 32;

const label = "connectplugin handshake v1 ";

/** HKDF-SHA256 (RFC 5869) with 32 bytes of output, for the proofs of one direction. */
export function deriveKey(secret: Uint8Array, salt: Uint8Array, direction: "client" | "server"): Buffer {
  return Buffer.from(hkdfSync("sha256", secret, salt, label + direction, 32));
}

/** What the proof of the client covers. */
export function requestTranscript(request: HandshakeRequest, binding?: Uint8Array): Buffer {
  const said = message(reflect(HandshakeRequestSchema, request), HandshakeRequestSchema.field.clientProof);
  return Buffer.concat([bytes(Buffer.from(label + "request")), said, optional(binding)]);
}

/** What ties the answer to its request. */
export function requestHash(request: HandshakeRequest): Buffer {
  const said = message(reflect(HandshakeRequestSchema, request));
  return createHash("sha256").update(bytes(Buffer.from(label + "request hash"))).update(said).digest();
}

/** What the proof of the host covers. */
export function responseTranscript(request: HandshakeRequest, response: HandshakeResponse, binding?: Uint8Array): Buffer {
  const said = message(reflect(HandshakeResponseSchema, response), HandshakeResponseSchema.field.challengeResponse);
  return Buffer.concat([bytes(Buffer.from(label + "response")), said, bytes(requestHash(request)), optional(binding)]);
}

/** Sets clientProof. Nothing of the request may change afterwards. */
export function proveRequest(request: HandshakeRequest, secret: Uint8Array, binding?: Uint8Array): void {
  const key = deriveKey(secret, request.clientNonce, "client");
  request.clientProof = proof(key, requestTranscript(request, binding));
}

/** Reports whether an answer is that of a host which holds the secret, to this request, unaltered. */
export function responseIsProven(
  request: HandshakeRequest, response: HandshakeResponse, secret: Uint8Array, binding?: Uint8Array,
): boolean {
  if (response.serverNonce.length !== nonceSize) return false;
  const key = deriveKey(secret, Buffer.concat([request.clientNonce, response.serverNonce]), "server");
  const want = proof(key, responseTranscript(request, response, binding));
  return response.challengeResponse.length === want.length && timingSafeEqual(want, response.challengeResponse);
}

/** Shows that who holds a token answers for a runtime id ("Health questions"). It does not give the token away. */
export function healthProof(token: string, runtimeId: string, challenge: Uint8Array): Uint8Array<ArrayBuffer> {
  const key = createHash("sha256").update(token).digest().subarray(0, 16);
  return proof(key, Buffer.concat([Buffer.from("connectplugin health v1"), Buffer.from(runtimeId), challenge].map(bytes)));
}

function proof(key: Uint8Array, transcript: Uint8Array): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(createHmac("sha256", key).update(transcript).digest());
}

function u64(n: number | bigint): Buffer {
  const out = Buffer.alloc(8);
  out.writeBigUInt64BE(BigInt.asUintN(64, BigInt(n)));
  return out;
}

function bytes(b: Uint8Array): Buffer {
  return Buffer.concat([u64(b.length), b]);
}

function optional(b?: Uint8Array): Buffer {
  return b === undefined ? Buffer.from([0]) : Buffer.concat([Buffer.from([1]), bytes(b)]);
}

function message(m: ReflectMessage, without?: DescField): Buffer {
  const entries: Buffer[] = [];
  const unknown = unknownFields(m.message);
  if (unknown.length > 0) entries.push(Buffer.concat([u64(0), Buffer.from("u"), bytes(unknown)]));
  for (const field of m.sortedFields) {
    if (m.isSet(field) && field !== without) entries.push(Buffer.concat([u64(field.number), fieldValue(m, field)]));
  }
  return Buffer.concat([u64(entries.length), ...entries]);
}

/** The bytes as received of the fields that our definition does not have, at this level. */
function unknownFields(m: Message): Buffer {
  return Buffer.concat((m.$unknown ?? []).flatMap((f) => [varint(f.no * 8 + f.wireType), f.data]));
}

function varint(n: number): Buffer {
  const out: number[] = [];
  for (; n > 0x7f; n = Math.floor(n / 128)) out.push((n & 0x7f) | 0x80);
  return Buffer.from([...out, n]);
}

function fieldValue(m: ReflectMessage, field: DescField): Buffer {
  switch (field.fieldKind) {
    case "list": {
      const items = [...m.get(field)].map((v) => single(field.message ? "message" : (field.scalar ?? "enum"), v));
      return Buffer.concat([Buffer.from("l"), u64(items.length), ...items]);
    }
    case "map": {
      const pairs = [...m.get(field)].map(([k, v]) => ({
        order: field.mapKey === ScalarType.STRING ? Buffer.from(String(k)) : single(field.mapKey, k).subarray(1),
        pair: Buffer.concat([single(field.mapKey, k), single(field.message ? "message" : (field.scalar ?? "enum"), v)]),
      }));
      pairs.sort((a, b) => Buffer.compare(a.order, b.order));
      return Buffer.concat([Buffer.from("k"), u64(pairs.length), ...pairs.map((p) => p.pair)]);
    }
    case "message":
      return single("message", m.get(field));
    case "enum":
      return single("enum", m.get(field));
    case "scalar":
      return single(field.scalar, m.get(field));
  }
}

function single(kind: ScalarType | "enum" | "message", value: unknown): Buffer {
  switch (kind) {
    case "message":
      return Buffer.concat([Buffer.from("m"), message(value as ReflectMessage)]);
    case ScalarType.STRING:
      return Buffer.concat([Buffer.from("s"), bytes(Buffer.from(value as string))]);
    case ScalarType.BYTES:
      return Buffer.concat([Buffer.from("b"), bytes(value as Uint8Array)]);
    case ScalarType.FLOAT:
    case ScalarType.DOUBLE: {
      const out = Buffer.alloc(9, "f");
      out.writeDoubleBE(value as number, 1);
      return out;
    }
    default:
      return Buffer.concat([Buffer.from("i"), u64(typeof value === "boolean" ? Number(value) : (value as number | bigint))]);
  }
}

// Holds the proofs against the vectors of the library.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import * as transcript from "../src/transcript.js";
import { root } from "./tree.js";
import { HandshakeRequestSchema, HandshakeResponseSchema } from "../src/wire/plugin/v1/handshake_pb.js";

const file = new URL("docs/testdata/handshake_vectors.json", root);
const vectors = JSON.parse(readFileSync(file, "utf8")) as Record<string, string>[];

test("there are vectors", () => assert.ok(vectors.length > 3));

for (const v of vectors) {
  test(v["name"] ?? "", () => {
    const bytes = (key: string) => Buffer.from(v[key] ?? "", "hex");
    const hex = (b: Uint8Array) => Buffer.from(b).toString("hex");
    const request = fromBinary(HandshakeRequestSchema, bytes("request"));
    const response = fromBinary(HandshakeResponseSchema, bytes("response"));
    const binding = v["binding"] ? bytes("binding") : undefined;
    const secret = bytes("secret");
    assert.equal(hex(transcript.requestTranscript(request, binding)), v["request_transcript"]);
    assert.equal(hex(transcript.deriveKey(secret, request.clientNonce, "client")), v["client_key"]);
    assert.equal(hex(transcript.requestHash(request)), v["request_hash"]);
    assert.equal(hex(transcript.responseTranscript(request, response, binding)), v["response_transcript"]);
    assert.ok(transcript.responseIsProven(request, response, secret, binding));
    assert.ok(!transcript.responseIsProven(request, response, Buffer.concat([secret, secret]), binding));
    transcript.proveRequest(request, secret, binding);
    assert.equal(hex(request.clientProof), v["client_proof"]);
    response.warnings.push("altered");
    assert.ok(!transcript.responseIsProven(request, response, secret, binding));
  });
}

// Certificates of the tests' own, as small as X.509 lets them be.
import { createPublicKey, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import type { TestContext } from "node:test";
import { type PeerCertificate, TLSSocket } from "node:tls";

const der = (tag: number, ...parts: Buffer[]): Buffer => {
  const body = Buffer.concat(parts);
  const size = body.length < 128 ? [body.length] : body.length < 256 ? [0x81, body.length] : [0x82, body.length >> 8, body.length & 255];
  return Buffer.concat([Buffer.from([tag, ...size]), body]);
};
const pem = (body: Buffer) => Buffer.from(`-----BEGIN CERTIFICATE-----\n${body.toString("base64")}\n-----END CERTIFICATE-----\n`);
const ecdsa = der(0x30, Buffer.from("06082a8648ce3d040302", "hex")); // with SHA-256
const name = (text: string) => der(0x30, der(0x31, der(0x30, Buffer.from("0603550403", "hex"), der(0x0c, Buffer.from(text)))));

export interface Issuer {
  readonly subject: string;
  readonly key: KeyObject;
  readonly cert: Buffer;
  readonly keyPEM: Buffer;
}

/** What has a certificate be an authority's: CA:TRUE, critical. */
const authority = der(0xa3, der(0x30, der(0x30, Buffer.from("0603551d130101ff", "hex"), der(0x04, der(0x30, Buffer.from("0101ff", "hex"))))));

/** Makes a certificate, by default one that its subject issues itself, and with a key of its own; one of an authority says so where another one issued it. */
export function issue(
  subject: string, by?: Issuer, ca = false, privateKey = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey,
): Issuer {
  const publicKey = createPublicKey(privateKey);
  const day = (years: number) => der(0x18, Buffer.from(`${new Date().getUTCFullYear() + years}0101000000Z`));
  const content = der(0x30, ...(ca ? [der(0xa0, der(0x02, Buffer.from([2])))] : []),
    der(0x02, Buffer.from([1])), ecdsa, name(by?.subject ?? subject), der(0x30, day(-1), day(2)), name(subject),
    publicKey.export({ type: "spki", format: "der" }), ...(ca ? [authority] : []));
  const signed = sign("sha256", content, by?.key ?? privateKey);
  return {
    subject, key: privateKey, cert: pem(der(0x30, content, ecdsa, der(0x03, Buffer.from([0]), signed))),
    keyPEM: Buffer.from(privateKey.export({ type: "pkcs8", format: "pem" })),
  };
}

/** Has the certificates of peers look as if they had ended so many seconds ago, until that is restored. */
export function haveEnded(t: TestContext, seconds: number): () => void {
  const shown = TLSSocket.prototype.getPeerCertificate as (this: TLSSocket) => PeerCertificate;
  const mocked = t.mock.method(TLSSocket.prototype, "getPeerCertificate", function (this: TLSSocket) {
    return { ...shown.apply(this), valid_to: new Date(Date.now() - seconds * 1_000).toUTCString() };
  } as typeof TLSSocket.prototype.getPeerCertificate);
  return () => mocked.mock.restore();
}

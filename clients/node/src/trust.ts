// Who the plugin is, and how it knows its host.
import { createHash, X509Certificate } from "node:crypto";
import { closeSync, fstatSync, openSync, readFileSync, type Stats, statSync } from "node:fs";
import { join } from "node:path";
import { checkServerIdentity, createSecureContext, type PeerCertificate } from "node:tls";
import { ConfigError, HostNotTrusted } from "./errors.js";
import type { Log } from "./log.js";

const marks = [["efbbbf", "utf-8"], ["fffe", "utf-16le"], ["feff", "utf-16be"]] as const;
const othersAccess = 0o077; // bits by which others than the owner reach a file
const groupRead = 0o040;
const marked = "begins with a byte order mark: save the file as UTF-8 without one";

const spiffe = /^spiffe:\/\/([a-z0-9._-]+)((?:\/[A-Za-z0-9._-]+)+)$/;

/** The content of a directory of credentials at one moment, PEM. */
export interface Files {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly ca: Buffer;
}

/**
 * A directory with tls.crt (the certificate, then its intermediates), tls.key and ca.crt, as a host's WriteCredentials, a
 * launcher or a certificate manager writes it. It is read again when the files change. Only its owner may reach tls.key.
 */
export class Credentials {
  #stamp = "";
  #files: Files | undefined;
  #refused = ""; // what was said last

  constructor(readonly directory: string) {
    this.read();
  }

  /** Returns the files as they are now; the last good ones while they are being replaced. */
  read(): Files {
    const names = ["tls.crt", "tls.key", "ca.crt"].map((n) => join(this.directory, n)) as [string, string, string];
    try {
      const stamp = names.map((n) => statSync(n, { bigint: true })).map((s) => `${s.ino} ${s.mtimeNs}`).join(); // copies may keep their times
      if (stamp !== this.#stamp) {
        const [cert, key, ca] = names.map((n, i) => i === 1 ? readPrivate(n) : readFileSync(n)) as [Buffer, Buffer, Buffer];
        for (const [i, content] of [cert, key, ca].entries()) {
          if (marks.some(([mark]) => content.toString("hex", 0, 3).startsWith(mark))) throw new ConfigError(`${names[i]} ${marked}`);
        }
        createSecureContext({ cert, key, ca }); // they fit together
        requireWhole(names[2], ca.toString("latin1"));
        this.#files = { cert, key, ca };
        this.#stamp = stamp;
        this.#refused = "";
      }
    } catch (e) {
      if (!this.#files) throw new ConfigError(`credentials: ${this.directory} needs tls.crt, tls.key and ca.crt: ${String(e)}`);
      this.#refuse(e instanceof Error ? e.message : String(e));
    }
    return this.#files as Files;
  }

  /** Says once why the files that are there now are not used. */
  #refuse(text: string): void {
    const log = logs.get(this);
    if (!log || text === this.#refused) return;
    this.#refused = text;
    log.warn("certificate files refused, the previous certificate stays in use:", text);
  }
}

const logs = new WeakMap<Credentials, Log>();

/** Has a plugin's log say why files were not taken over: that of the latest plugin, where several share them. */
export function hearRefused(credentials: Credentials, log: Log): void {
  logs.set(credentials, log);
}

/** Reads a file that its owner alone may reach. What is asked about is the opened file, whatever the name leads to by now. */
function readPrivate(name: string): Buffer {
  const file = openSync(name, "r");
  try {
    checkPrivate(name, fstatSync(file));
    return readFileSync(file);
  } finally {
    closeSync(file);
  }
}

/**
 * Refuses a file that others reach, in the words of the library in Go. A file of another owner may be readable by a group that
 * this process is in: a secret that is mounted into a container. Windows has no such bits.
 */
function checkPrivate(name: string, info: Stats): void {
  if (process.platform === "win32") return;
  const mode = info.mode & 0o777;
  let others = mode & othersAccess;
  if (info.uid !== process.geteuid?.() && (info.gid === process.getegid?.() || process.getgroups?.().includes(info.gid))) others &= ~groupRead;
  if (others === 0) return;
  throw new ConfigError(`permissions are too open: ${name} has ${mode.toString(8).padStart(4, "0")}, others may reach it: chmod 0600 it, or mount it with mode 0400; ` +
    "0440 is for a file of another owner, as a mounted secret is, whose group this process is in");
}

/** Refuses authorities that are not all there. Node takes such a file for one of fewer authorities, or of none, and then the host for a stranger. */
function requireWhole(name: string, pem: string): void {
  const begun = pem.match(/-----BEGIN [A-Z0-9 ]*CERTIFICATE-----/g) ?? [];
  const whole = pem.match(/-----BEGIN ([A-Z0-9 ]*CERTIFICATE)-----[^-]*-----END \1-----/g) ?? [];
  if (begun.length === 0 || whole.length < begun.length) throw new ConfigError(`${name} holds no whole PEM certificates`);
}

/** What the host's certificate has to be, in both directions: where the plugin calls and where it is called. */
export class HostTrust {
  readonly identity: string;
  readonly #pins: ReadonlySet<string>;

  constructor(credentials: Credentials, identity = "", pins: readonly string[] = []) {
    if (identity && !spiffe.test(identity)) {
      throw new ConfigError(`hostIdentity: ${JSON.stringify(identity)} is no SPIFFE id; write one, or hostPins`);
    }
    this.#pins = new Set(pins.map(parsePin));
    this.identity = identity || (this.#pins.size > 0 ? "" : hostOfDomain(credentials.read().cert));
  }

  /** Says why a certificate that TLS has verified is not the host's; undefined where it is. */
  refuse(certificate: Buffer | undefined): HostNotTrusted | undefined {
    if (!certificate) return new HostNotTrusted("it shows no certificate");
    const parsed = new X509Certificate(certificate);
    const shown = spiffeID(parsed);
    if (this.identity && shown !== this.identity) {
      return new HostNotTrusted(`the certificate is that of ${shown || "nobody with a SPIFFE id"} instead of ${this.identity}`);
    }
    if (this.#pins.size > 0 && !this.#pins.has(spkiDigest(parsed))) {
      return new HostNotTrusted("the key of the certificate is not among hostPins");
    }
    return undefined;
  }

  /** For tls.connect: a SPIFFE id stands in for host names, a pin does not. */
  checkServer(name: string, certificate: PeerCertificate): Error | undefined {
    return this.refuse(certificate.raw) ?? (this.identity ? undefined : checkServerIdentity(name, certificate));
  }
}

function hostOfDomain(pem: Buffer): string {
  const match = spiffe.exec(spiffeID(new X509Certificate(pem)));
  if (!match || !/^\/(plugin|launch)\/.+$/.test(match[2] ?? "")) {
    throw new ConfigError("hostIdentity: the plugin's certificate does not tell which host is its own; " +
      "write the host's SPIFFE id, or hostPins");
  }
  return `spiffe://${match[1]}/host`;
}

/** How long a connection outlives the certificate that was shown on it, in milliseconds. */
const overtime = 60_000;
const longestTimer = 2 ** 31 - 1; // Node takes more for none

/** When a certificate that a peer showed ends, in milliseconds since 1970. */
export function endOf(certificate: Pick<PeerCertificate, "valid_to">): number {
  return Date.parse(certificate.valid_to);
}

/** Calls end once a connection has outlived what ends says, which is asked again then: it may be later by that time. Returns what calls it off. */
export function afterEnd(ends: () => number, end: () => void): () => void {
  let timer: NodeJS.Timeout | undefined;
  const look = () => {
    const left = ends() + overtime - Date.now();
    if (left > 0) timer = setTimeout(look, Math.min(left, longestTimer)).unref();
    else end();
  };
  look();
  return () => clearTimeout(timer);
}

/** The SPIFFE id of a certificate; empty where it has none, or more than one URI. */
function spiffeID(certificate: X509Certificate): string {
  const uris = (certificate.subjectAltName ?? "").split(", ").filter((n) => n.startsWith("URI:")).map((n) => n.slice(4));
  return uris.length === 1 && spiffe.test(uris[0] ?? "") ? (uris[0] ?? "") : "";
}

/** The SHA-256 of the public key (SPKI, RFC 7469), hex. */
function spkiDigest(certificate: X509Certificate): string {
  return createHash("sha256").update(certificate.publicKey.export({ type: "spki", format: "der" })).digest("hex");
}

/** Refuses a secret with what an editor put before its text; one of random bytes may begin so. */
export function checkMark(name: string, secret: Uint8Array): void {
  for (const [mark, encoding] of marks) {
    if (!Buffer.from(secret).toString("hex", 0, 3).startsWith(mark)) continue;
    let text: string;
    try {
      text = new TextDecoder(encoding, { fatal: true }).decode(secret); // without the mark
    } catch {
      continue;
    }
    if (encoding === "utf-8" ? /^[\P{C}\s]*$/u.test(text) : /^[\x20-\x7e\s]*$/.test(text)) throw new ConfigError(`${name}: ${marked}`);
  }
}

function parsePin(text: string): string {
  const pin = /^[0-9a-fA-F]{64}$/.test(text) ? Buffer.from(text, "hex") : Buffer.from(text, "base64");
  if (pin.length !== 32) throw new ConfigError(`hostPins: ${JSON.stringify(text)} is no SHA-256 of a public key in base64 or hex`);
  return pin.toString("hex");
}

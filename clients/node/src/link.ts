// The connections to the host.
import { connect as connectTLS, TLSSocket } from "node:tls";
import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { Http2SessionManager } from "@connectrpc/connect-node";
import { ConfigError, HostNotTrusted, Unreachable } from "./errors.js";
import { Pool, Sole } from "./pool.js";
import { exporterLabel, exporterSize } from "./transcript.js";
import { afterEnd, type Credentials, endOf, type Files, type HostTrust } from "./trust.js";

/** Bounds each message from the host, in bytes. */
export const maxMessage = 4 << 20;

/** Bounds what waits to be written on a connection, in megabytes. Beyond Node's own bound, 10, it refuses what comes: the answers to all
 * calls of a plugin of which one uploads to somebody who does not read, and the calls of all of a provider of which one does not read. */
export const maxSessionMemory = 1_024;

/** Bounds the fields of a head, which Node has be 128: a head with more ends its call, without a word of what it said. A host takes 256 KiB
 * of a provider, and a field costs 32 bytes there. */
export const maxHeaderListPairs = 8_192;

/** Reaches nobody but the host: whose certificate it is, is checked before anything is sent. */
export class HostLink {
  readonly url: string;
  /** The connection of the session alone: what the plugin says of itself does not wait behind its calls. */
  readonly own: Sole;
  /** Those for everything else: calls, and watches, which stay open. */
  readonly calls: Pool;
  /** The address from which the host was reached; empty before. */
  local = "";
  /** When a connection for calls was lost last that carried any, by performance.now. */
  lostAt = -Infinity;
  #socket: TLSSocket | undefined;
  #shown: Files | undefined; // what was shown on it
  #ends = Infinity; // the certificate that the host showed there
  #refusal: Error | undefined;

  constructor(url: string, private readonly credentials: Credentials, private readonly trust: HostTrust, private readonly lost: () => void) {
    requireNode(TLSSocket.prototype, process.versions);
    const parsed = parseBaseUrl("host", url);
    this.url = parsed.origin;
    const manager = (createConnection: () => TLSSocket) => new Http2SessionManager(
      this.url,
      // A silent stream looks like one whose host is gone.
      { pingIntervalMs: 30_000, pingTimeoutMs: 15_000, connectTimeoutMs: 10_000 },
      { createConnection, maxSessionMemory, maxHeaderListPairs },
    );
    this.own = new Sole(this.url, () => manager(() => this.#dialOwn(parsed)));
    this.calls = new Pool(this.url, (busy) => manager(() => this.#dialForCalls(parsed, busy)));
  }

  /** Makes sure of a connection, and returns the value that binds a proof to it. */
  async connect(): Promise<Uint8Array> {
    await this.#showRenewed();
    this.#refusal = undefined;
    const reason = await this.own.connect();
    const refusal = this.#refusal as Error | undefined;
    if (refusal) throw refusal;
    const socket = this.#socket;
    if (reason !== undefined || !socket || socket.destroyed) throw new Unreachable(`${this.url} does not answer${reason ?? ""}`);
    return socket.exportKeyingMaterial(exporterSize, exporterLabel, Buffer.alloc(0));
  }

  /** Opens other connections where those that there are show a certificate that was renewed since: the host ends them with it,
   * unless it was shown the new one; and where the host's own has ended. What is open on them goes on, for as long as that may be.
   * One with another key makes another plugin of this process, which it becomes when the host ends them. */
  async #showRenewed(): Promise<void> {
    const socket = this.#socket, shown = this.#shown, ends = this.#ends, now = this.credentials.read();
    if (!shown || !socket || socket.destroyed) return;
    const renewed = !now.cert.equals(shown.cert) && now.key.equals(shown.key);
    if (!renewed && Date.now() < ends) return;
    if (await this.own.replace()) {
      this.calls.retire();
    } else if (!socket.destroyed) { // it is better than none
      this.#socket = socket;
      this.#shown = shown;
      this.#ends = ends;
    }
  }

  close(): void {
    this.own.abort();
    this.calls.abort();
    this.#socket?.destroy();
  }

  #dial(url: URL, { cert, key, ca } = this.credentials.read()): TLSSocket {
    const name = url.hostname.replace(/^\[|\]$/g, "");
    const socket = connectTLS({
      host: name, port: Number(url.port || 443), cert, key, ca, minVersion: "TLSv1.3", ALPNProtocols: ["h2"],
      rejectUnauthorized: true,
      ...(/^[0-9.]+$|:/.test(name) ? {} : { servername: name }),
      checkServerIdentity: (_, certificate) => this.trust.checkServer(name, certificate),
    });
    socket.once("secureConnect", () => {
      const ends = endOf(socket.getPeerCertificate());
      socket.once("close", afterEnd(() => ends, () => socket.destroy()));
    });
    return socket;
  }

  #dialOwn(url: URL): TLSSocket {
    const files = this.credentials.read(), socket = this.#dial(url, files);
    socket.once("secureConnect", () => {
      this.#socket = socket;
      this.#shown = files;
      this.#ends = endOf(socket.getPeerCertificate());
      this.local = socket.localAddress ?? "";
    });
    socket.once("error", (e: NodeJS.ErrnoException) => {
      if (e instanceof HostNotTrusted) this.#refusal = e;
      else if (untrusted.has(e.code ?? "")) this.#refusal = new HostNotTrusted(`${this.url}: ${explain(e)}`);
    });
    socket.once("close", () => {
      if (this.#socket === socket) this.lost();
    });
    return socket;
  }

  #dialForCalls(url: URL, busy: () => boolean): TLSSocket {
    const socket = this.#dial(url);
    const broke = () => {
      if (busy()) this.lostAt = performance.now();
    };
    socket.once("secureConnect", () => socket.once("error", broke).once("close", broke)); // calls hear of an error before the end
    return socket;
  }
}

/** Refuses what is no URL of a server, in which there may be a secret: then without it. */
export function parseBaseUrl(field: string, url: string): URL {
  if (/[@?#]/.test(url)) {
    throw new ConfigError(`${field}: carries credentials, a query or a fragment; write for example "https://127.0.0.1:8443" and nothing else`);
  }
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (!parsed && /^https:\/\/[^/]*:\d+\/?$/.test(url)) {
    throw new ConfigError(`${field}: ${JSON.stringify(url)} has no port, or no host, that there can be; write for example "https://127.0.0.1:8443", ` +
      "with a port from 1 to 65535");
  }
  if (parsed?.port === "0") throw new ConfigError(`${field}: ${JSON.stringify(url)} has port 0; write one from 1 to 65535`);
  if (parsed?.protocol === "https:" && parsed.pathname !== "/") {
    throw new ConfigError(`${field}: ${JSON.stringify(url)} has the path ${JSON.stringify(parsed.pathname)}, below which plugins in Go reach a host, and this ` +
      "package does not; have the host answer at a port, or under a name, of its own");
  }
  if (parsed?.protocol !== "https:" || parsed.pathname !== "/") {
    throw new ConfigError(`${field}: ${JSON.stringify(url)} is no base URL; write for example "https://127.0.0.1:8443"`);
  }
  return parsed;
}

/** Refuses a runtime that cannot bind proofs to a connection, before anything is sent. */
export function requireNode(socket: object, versions: Readonly<Record<string, string | undefined>>): void {
  if ("exportKeyingMaterial" in socket) return;
  const other = (["deno", "bun"] as const).find((name) => versions[name]);
  const here = other ? `${other === "deno" ? "Deno" : "Bun"} ${versions[other]}` : `what this is (node ${versions["node"]})`;
  throw new ConfigError(`the plugin needs Node 20 or later: ${here} has no TLSSocket.exportKeyingMaterial, without which nothing ` +
    "is proven to the host; run it with node");
}

/** Says what to do about a certificate that TLS refused. */
function explain(e: NodeJS.ErrnoException): string {
  if (!unknown.has(e.code ?? "")) return e.message;
  if (e.code === "UNABLE_TO_GET_ISSUER_CERT") {
    // Go, Python and gRPC trust such an authority for itself. A client of Node's can be told to, and a server cannot.
    return `${e.message}: ca.crt has an intermediate authority without its root, which Node needs as well; write the root into it, too`;
  }
  return `${e.message}: the host's certificate is of an authority that is not in ca.crt; compare that with the host's, or have its ` +
    "WriteCredentials write all three files again";
}

/** Has calls that end with the connection to the host fail as unavailable. connect-node says canceled, as if the caller had given them up. */
export function tellLoss(link: Pick<HostLink, "lostAt">): Interceptor {
  return (next) => async (req) => {
    const begun = performance.now();
    const told = (e: unknown) => {
      const broke = e instanceof ConnectError && ends.has(e.code) && link.lostAt >= begun && !req.signal.aborted;
      return broke ? new ConnectError("the connection to the host was lost", Code.Unavailable, undefined, undefined, e) : e;
    };
    async function* messages<T>(all: AsyncIterable<T>): AsyncGenerator<T> {
      try {
        yield* all;
      } catch (e) {
        throw told(e);
      }
    }
    try {
      const answer = await next(req);
      return answer.stream ? { ...answer, message: messages(answer.message) } : answer;
    } catch (e) {
      throw told(e);
    }
  };
}

const ends: ReadonlySet<Code> = new Set([Code.Canceled, Code.Aborted]); // as connect-node tells of a stream without a connection

const unknown: ReadonlySet<string> = new Set([ // authorities
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE", "SELF_SIGNED_CERT_IN_CHAIN", "DEPTH_ZERO_SELF_SIGNED_CERT", "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
]);

const untrusted: ReadonlySet<string> = new Set([
  ...unknown, "CERT_HAS_EXPIRED", "CERT_NOT_YET_VALID", "CERT_SIGNATURE_FAILURE",
  "CERT_UNTRUSTED", "CERT_REJECTED", "INVALID_CA", "INVALID_PURPOSE", "ERR_TLS_CERT_ALTNAME_INVALID",
]);

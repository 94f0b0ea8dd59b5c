// What the plugin serves to its host.
import * as http2 from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { Code, ConnectError, type ConnectRouter, type HandlerContext } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { maxHeaderListPairs, maxMessage, maxSessionMemory } from "./link.js";
import type { Log } from "./log.js";
import { afterEnd, type Credentials, endOf, type HostTrust } from "./trust.js";

const handshakeTimeout = 10_000;
const mostStrangers = 64; // connections of whom TLS has not said yet who it is

/** The plugin that calls, as the host says. */
export interface Caller {
  readonly runtimeId: string;
  readonly selfId: string;
  readonly selfVersion: string;
}

/** The plugin behind a call that an implementation serves. */
export function caller(context: HandlerContext): Caller {
  const said = (name: string) => context.requestHeader.get("x-plugin-caller-" + name) ?? "";
  return { runtimeId: said("id"), selfId: said("self-id"), selfVersion: said("self-version") };
}

/**
 * A server for the host alone. TLS verifies that a caller's certificate is of a trusted authority, which those of other
 * plugins are, too; the server looks whose it is, once for each connection.
 */
export class Server {
  readonly #server: http2.Http2SecureServer;
  readonly #sessions = new Map<http2.Http2Session, boolean>(); // whether it is the host's
  readonly #strangers = new Map<string, Socket>(); // by their address, the oldest first
  #ends = -Infinity; // of the certificates that the host showed, the latest

  constructor(credentials: Credentials, trust: HostTrust, routes: (router: ConnectRouter) => void, private readonly log: Log) {
    const serve = connectNodeAdapter({ routes, readMaxBytes: maxMessage });
    const options = { ...credentials.read(), minVersion: "TLSv1.3" as const, ALPNProtocols: ["h2"] };
    const bounds = { handshakeTimeout, maxSessionMemory, maxHeaderListPairs };
    this.#server = http2.createSecureServer({ ...options, requestCert: true, rejectUnauthorized: true, allowHTTP1: false, ...bounds },
      (request, response) => {
        if (this.#sessions.get(request.stream.session as http2.Http2Session)) serve(request, response);
        else request.stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
      });
    let used = credentials.read();
    this.#server.prependListener("connection", (socket: Socket) => { // before TLS begins
      const files = credentials.read();
      if (files !== used) this.#server.setSecureContext({ ...options, ...(used = files) });
      this.#comes(socket);
    });
    this.#server.on("session", (session) => {
      this.#strangers.delete(place(session.socket));
      const shown = (session.socket as TLSSocket).getPeerCertificate(), refusal = trust.refuse(shown.raw);
      this.#sessions.set(session, !refusal);
      if (!refusal) this.#ends = Math.max(this.#ends, endOf(shown));
      // Whoever renewed its certificate shows it on another connection, and may keep this one, as in Go.
      const off = refusal ? () => undefined : afterEnd(() => this.#ends, () => {
        log.say("a connection of the host ended, because its certificate did and no later one was shown");
        session.destroy();
      });
      session.on("close", () => {
        off();
        this.#sessions.delete(session);
      });
      session.on("error", () => { /* the host cut it */ });
      if (refusal) {
        log.say("somebody else than the host called:", refusal.message);
        session.destroy();
      }
    });
    this.#server.on("sessionError", () => { /* as above */ });
  }

  /** Listens and returns the port. */
  listen(host: string, port: number): Promise<number> {
    return new Promise((done, failed) => {
      this.#server.once("error", failed);
      this.#server.listen(port, host, () => {
        // Without a listener an error would end the process.
        this.#server.off("error", failed).on("error", (e) => this.log.warn("a connection was not taken:", e.message));
        done((this.#server.address() as AddressInfo).port);
      });
    });
  }

  /** Has the oldest of those make room that show no certificate: they would take every descriptor of the process. */
  #comes(socket: Socket): void {
    const from = place(socket);
    this.#strangers.set(from, socket);
    socket.once("close", () => {
      if (this.#strangers.get(from) === socket) this.#strangers.delete(from);
    });
    const [oldest] = this.#strangers.values();
    if (this.#strangers.size > mostStrangers) oldest?.destroy();
  }

  /** Lets the calls in flight finish, for so many milliseconds at most. */
  async close(graceMs: number): Promise<void> {
    const closed = new Promise<void>((done) => this.#server.close(() => done()));
    for (const socket of this.#strangers.values()) socket.destroy(); // they would hold up the end
    for (const session of this.#sessions.keys()) session.close(); // GOAWAY, and the streams go on
    const timer = setTimeout(() => {
      for (const session of this.#sessions.keys()) session.destroy();
    }, graceMs);
    await closed;
    clearTimeout(timer);
  }
}

function place(socket: Pick<Socket, "remoteAddress" | "remotePort">): string {
  return `${socket.remoteAddress} ${socket.remotePort}`;
}

/** The error of a method that this plugin does not offer. */
export function enrolsItself(): never {
  throw new ConnectError("this plugin enrols itself", Code.FailedPrecondition);
}

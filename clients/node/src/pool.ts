// The connections for a plugin's calls.
import type * as http2 from "node:http2";
import type { GrpcTransportOptions, Http2SessionManager } from "@connectrpc/connect-node";

const mostConnections = 16; // as a client in Go
const atFirst = 100; // streams of a connection, which Node takes for the host's word while that has not come

/** What a transport sends over. */
export type Manager = NonNullable<GrpcTransportOptions["sessionManager"]>;

interface Connection {
  readonly manager: Http2SessionManager;
  /** Its streams, and those that wait for it. */
  open: number;
  /** Nothing new goes over it. */
  retired: boolean;
}

const callHeader = "x-connectplugin-call"; // names a call to its pool, and goes no further

/** What is known of a call's answer before its body. */
export interface Note {
  /** Its headers have a challenge, which the host lets nobody but itself send. What stands in trailers may be a provider's word: those
   * of gRPC-Web are part of the body. */
  challenged: boolean;
  /** Nobody asks any more. */
  over(): void;
}

/** Opens another connection where those that there are carry as many streams as the host takes of one. Beyond 16 of them, calls wait. */
export class Pool implements Manager {
  #connections: Connection[] = [];
  readonly #leaving = new Set<Connection>();
  #streams = atFirst; // that the host takes of a connection
  #latest: http2.Http2Session | undefined;
  readonly #managers = new WeakMap<http2.ClientHttp2Stream, Http2SessionManager>();
  readonly #notes = new Map<string, Note>(); // by the name of the call
  #named = 0;

  /** busy reports whether the connection carries anything. */
  constructor(readonly authority: string, private readonly manage: (busy: () => boolean) => Http2SessionManager) {}

  async request(...request: Parameters<Manager["request"]>): Promise<http2.ClientHttp2Stream> {
    const { [callHeader]: call, ...headers } = request[2];
    request[2] = headers;
    const connection = this.#choose();
    connection.open++;
    try {
      const stream = await connection.manager.request(...request);
      this.#latest = stream.session;
      this.#managers.set(stream, connection.manager);
      stream.once("close", () => this.#leave(connection));
      stream.once("response", (said) => {
        const note = this.#notes.get(String(call));
        if (note && "www-authenticate" in said) note.challenged = true;
      });
      return stream;
    } catch (e) {
      this.#leave(connection);
      throw e;
    }
  }

  /** Takes note of the answer to the one request that is sent with these headers. */
  note(header: Headers): Note {
    const call = String(this.#named++), note = { challenged: false, over: () => void this.#notes.delete(call) };
    this.#notes.set(call, note);
    header.set(callHeader, call);
    return note;
  }

  notifyResponseByteRead(stream: http2.ClientHttp2Stream): void {
    this.#managers.get(stream)?.notifyResponseByteRead(stream);
  }

  abort(): void {
    for (const { manager } of [...this.#connections, ...this.#leaving]) manager.abort();
  }

  /** Has what is new go over other connections. Each of those that there are ends with the last that it carries. */
  retire(): void {
    const retired = this.#connections;
    this.#connections = [];
    for (const connection of retired) {
      connection.retired = true;
      connection.open++;
      this.#leaving.add(connection);
      this.#leave(connection);
    }
  }

  #leave(connection: Connection): void {
    if (--connection.open > 0 || !connection.retired) return;
    this.#leaving.delete(connection);
    connection.manager.abort();
  }

  /** The first that has room, so that the last become idle and close; where none has, another one, or the one with the fewest streams. */
  #choose(): Connection {
    const said = this.#latest?.destroyed === false ? this.#latest.remoteSettings.maxConcurrentStreams : undefined;
    if (said !== undefined && said !== atFirst) this.#streams = Math.max(said, 1);
    const free = this.#connections.find((c) => c.open < this.#streams);
    if (free) return free;
    if (this.#connections.length < mostConnections) {
      const connection: Connection = { manager: this.manage(() => connection.open > 0), open: 0, retired: false };
      this.#connections.push(connection);
      return connection;
    }
    return this.#connections.reduce((least, c) => (c.open < least.open ? c : least));
  }
}

/** One connection, in whose place another may be put. */
export class Sole implements Manager {
  #manager: Http2SessionManager;

  constructor(readonly authority: string, private readonly manage: () => Http2SessionManager) {
    this.#manager = manage();
  }

  request(...request: Parameters<Manager["request"]>): Promise<http2.ClientHttp2Stream> {
    return this.#manager.request(...request);
  }

  notifyResponseByteRead(stream: http2.ClientHttp2Stream): void {
    this.#manager.notifyResponseByteRead(stream);
  }

  /** Makes sure of the connection. Returns why there is none. */
  async connect(): Promise<string | undefined> {
    return reasonOf(this.#manager, await this.#manager.connect());
  }

  /** Puts another in its place, and ends it, where another can be had. */
  async replace(): Promise<boolean> {
    const another = this.manage();
    if (reasonOf(another, await another.connect()) !== undefined) {
      another.abort();
      return false;
    }
    const before = this.#manager;
    this.#manager = another;
    before.abort();
    return true;
  }

  abort(): void {
    this.#manager.abort();
  }
}

function reasonOf(manager: Http2SessionManager, state: string): string | undefined {
  if (state === "open" || state === "idle") return undefined;
  const error = manager.error();
  return error ? `: ${String(error)}` : "";
}

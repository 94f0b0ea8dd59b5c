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
}

/** Opens another connection where those that there are carry as many streams as the host takes of one. Beyond 16 of them, calls wait. */
export class Pool implements Manager {
  readonly #connections: Connection[] = [];
  #streams = atFirst; // that the host takes of a connection
  #latest: http2.Http2Session | undefined;
  readonly #managers = new WeakMap<http2.ClientHttp2Stream, Http2SessionManager>();

  /** busy reports whether the connection carries anything. */
  constructor(readonly authority: string, private readonly manage: (busy: () => boolean) => Http2SessionManager) {}

  async request(...request: Parameters<Manager["request"]>): Promise<http2.ClientHttp2Stream> {
    const connection = this.#choose();
    connection.open++;
    try {
      const stream = await connection.manager.request(...request);
      this.#latest = stream.session;
      this.#managers.set(stream, connection.manager);
      stream.once("close", () => connection.open--);
      return stream;
    } catch (e) {
      connection.open--;
      throw e;
    }
  }

  notifyResponseByteRead(stream: http2.ClientHttp2Stream): void {
    this.#managers.get(stream)?.notifyResponseByteRead(stream);
  }

  abort(): void {
    for (const { manager } of this.#connections) manager.abort();
  }

  /** The first that has room, so that the last become idle and close; where none has, another one, or the one with the fewest streams. */
  #choose(): Connection {
    const said = this.#latest?.destroyed === false ? this.#latest.remoteSettings.maxConcurrentStreams : undefined;
    if (said !== undefined && said !== atFirst) this.#streams = Math.max(said, 1);
    const free = this.#connections.find((c) => c.open < this.#streams);
    if (free) return free;
    if (this.#connections.length < mostConnections) {
      const connection: Connection = { manager: this.manage(() => connection.open > 0), open: 0 };
      this.#connections.push(connection);
      return connection;
    }
    return this.#connections.reduce((least, c) => (c.open < least.open ? c : least));
  }
}

// Calls of other plugins' services through the host.
import { Code, ConnectError, type Interceptor, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { Closed, PluginError, Unreachable } from "./errors.js";
import { type HostLink, maxMessage, tellLoss } from "./link.js";
import type { Identity, Session } from "./session.js";
import { pause } from "./pace.js";
import { type ServiceState, watch } from "./watching.js";

/** How long a call waits for news of its host, and of its service. */
export const newsWait = 1_000;

export type Protocol = "grpc" | "connect" | "grpc-web";

const transports = { grpc: createGrpcTransport, connect: createConnectTransport, "grpc-web": createGrpcWebTransport };

/** A transport over the connections for calls, with an interceptor that says where to. */
export function connected(link: HostLink, protocol: Protocol, interceptor: Interceptor): Transport {
  return transports[protocol]({
    baseUrl: link.url, httpVersion: "2", sessionManager: link.calls, readMaxBytes: maxMessage,
    interceptors: [tellLoss(link), interceptor],
  });
}

const mostAgain = 60_000;
const any = "-"; // in the place of a provider: the host chooses
const constraintHeader = "x-plugin-constraint";

/** Leads to the providers of a type. The host chooses one for each call; where it does not know how, all go to the provider
 * of the moment, which the route learns from the registry. */
export class ServiceRoute {
  /** How long to wait at first before a host is asked again that refused to tell of the service. */
  static again = 1_000;
  #route = "";
  #owner = ""; // the runtime id under which the route is known
  #next = "";
  #error: unknown;
  #waiters = new Set<() => void>();
  readonly #end = new AbortController();
  readonly #done: Promise<void>;
  private readonly constraint: string;

  constructor(private readonly session: Session, private readonly serviceType: string, constraint: string) {
    this.constraint = constraint.trim().replace(/\s+/g, " "); // it goes into a header field
    this.#done = this.#follow();
  }

  /** A transport for createClient. A unary call that the host refused because it did not know the plugin's identity any
   * more is made once more with a new one; the provider saw nothing of the first. */
  transport(link: HostLink, protocol: Protocol): Transport {
    return connected(link, protocol, this.#interceptor(link));
  }

  async close(): Promise<void> {
    this.#end.abort();
    await this.#done;
  }

  #interceptor({ url: base, calls }: HostLink): Interceptor {
    return (next) => async (req) => {
      const path = req.url.slice(base.length);
      const send = async () => {
        const { route, identity } = await this.#aim(req.signal);
        req.header.delete(constraintHeader);
        if (this.constraint && route.endsWith("/" + any)) req.header.set(constraintHeader, this.constraint);
        for (const [name, value] of Object.entries(identity.headers())) req.header.set(name, value);
        const note = calls.note(req.header);
        return { identity, note, answer: next({ ...req, url: base + route + path }).finally(note.over) };
      };
      const { identity, note, answer } = await send();
      try {
        return await answer;
      } catch (e) {
        if (!hostForgot(e) || !note.challenged) throw e;
        this.session.refused(identity);
        if (req.stream) throw e;
        return (await send()).answer;
      }
    };
  }

  /** Follows the type until its end or the plugin's. A host that refuses that may allow it later: it is asked less and less often,
   * and calls fail as refused until then. */
  async #follow(): Promise<void> {
    for (let wait = ServiceRoute.again; ; wait = Math.min(2 * wait, mostAgain)) {
      let error: unknown = new ConnectError("the plugin has ended", Code.Unavailable);
      let refused = false;
      try {
        const states = watch(this.session, this.serviceType, this.#end.signal, {
          // After a break nothing is known, though nothing may have changed.
          resumes: false,
          opened: (identity) => { this.#next = identity.runtimeId; },
          broken: () => { this.#route = ""; },
        });
        for await (const state of states) {
          this.#route = await this.#routeOf(state);
          this.#owner = this.#next;
          this.#error = undefined;
          wait = ServiceRoute.again;
          this.#tell();
        }
      } catch (e) {
        error = e;
        refused = e instanceof ConnectError;
      }
      this.#route = "";
      this.#error = error;
      this.#tell();
      if (!refused) return;
      await pause(wait / 2 + (Math.random() * wait) / 2, this.#end.signal);
    }
  }

  async #routeOf(state: ServiceState): Promise<string> {
    if (state.state === "unavailable") return "";
    if (this.session.hostChooses()) return `/services/${this.serviceType}/${any}`;
    let url = state.endpointUrl;
    if (this.constraint) {
      try {
        const identity = await this.session.identity(newsWait, this.#end.signal);
        const said = { serviceType: this.serviceType, minVersion: this.constraint };
        const answer = await this.session.registry.discoverService(said, { headers: identity.headers(), signal: this.#end.signal });
        url = answer.endpoint?.endpointUrl ?? "";
      } catch (e) {
        if (e instanceof Closed || !(e instanceof ConnectError || e instanceof PluginError)) throw e;
        return "";
      }
    }
    // Only routes through the host are believed, wherever the URL says that it points.
    const path = URL.canParse(url, "https://host.invalid") ? new URL(url, "https://host.invalid").pathname.replace(/\/$/, "") : "";
    const head = `/services/${this.serviceType}/`;
    return path.startsWith(head) && /^[A-Za-z0-9._~-]+$/.test(path.slice(head.length)) ? path : "";
  }

  /** The route of the moment, and the identity under which it holds. */
  async #aim(signal: AbortSignal): Promise<{ route: string; identity: Identity }> {
    const until = performance.now() + newsWait;
    const identity = await this.session.identity(newsWait, signal).catch((e: unknown) => {
      throw e instanceof Unreachable ? new ConnectError(e.message, Code.Unavailable) : e;
    });
    while (this.#error === undefined && !(this.#route && this.#owner === identity.runtimeId)) {
      const left = until - performance.now();
      if (left <= 0 || signal.aborted) throw new ConnectError(`no provider of ${this.serviceType} is available`, Code.Unavailable);
      await this.#news(left);
    }
    if (this.#error !== undefined) throw this.#error;
    return { route: this.#route, identity };
  }

  #tell(): void {
    for (const waiter of [...this.#waiters]) waiter();
  }

  #news(ms: number): Promise<void> {
    return new Promise((woken) => {
      const done = () => {
        clearTimeout(timer);
        this.#waiters.delete(done);
        woken();
      };
      const timer = setTimeout(done, ms);
      this.#waiters.add(done);
    });
  }
}

/** Reports whether the host refused a call because of its credential. A provider's own refusal has no challenge. */
export function hostForgot(e: unknown): boolean {
  return e instanceof ConnectError && e.code === Code.Unauthenticated && e.metadata.has("www-authenticate");
}

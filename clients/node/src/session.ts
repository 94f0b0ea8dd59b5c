// A plugin's identity: enrolment, renewal, registration and reports.
import { randomBytes } from "node:crypto";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampMs, timestampNow } from "@bufbuild/protobuf/wkt";
import { type CallOptions, type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Closed, HandshakeRefused, HostNotTrusted, shown, Unreachable } from "./errors.js";
import { type HostLink, maxMessage } from "./link.js";
import type { Log } from "./log.js";
import { Pace, pause } from "./pace.js";
import type { Manager } from "./pool.js";
import { healthProof, nonceSize, proveRequest, responseIsProven } from "./transcript.js";
import { type HandshakeRequest, HandshakeRequestSchema, type HandshakeResponse, HandshakeService } from "./wire/plugin/v1/handshake_pb.js";
import { HealthState, PluginLifecycle, type ReportHealthRequestSchema } from "./wire/plugin/v1/lifecycle_pb.js";
import { type RegisterServiceRequestSchema, ServiceRegistry } from "./wire/plugin/v1/registry_pb.js";

/** The part of a lifetime after which to renew. */
export const renewAfter = 2 / 3;
const renewFloor = 100;
const anyProvider = "connectplugin.any_provider";
const longest = 2 ** 31 - 1; // that a timer can wait

const final: ReadonlySet<Code> = new Set([
  Code.Unauthenticated, Code.InvalidArgument, Code.FailedPrecondition, Code.PermissionDenied, Code.Unimplemented, Code.NotFound,
]);

/** How long a plugin that ends waits for a host that says nothing, in milliseconds: as one in Go. */
const silence = 3_000;

/** What the host gave this process: its runtime id, and the token that proves it. */
export class Identity {
  readonly #token: string; // not printed
  readonly given = performance.now();
  constructor(readonly runtimeId: string, token: string, readonly renewAt: number) {
    this.#token = token;
  }

  /** Answers the challenge of a health question. */
  prove(challenge: Uint8Array): Uint8Array<ArrayBuffer> {
    return healthProof(this.#token, this.runtimeId, challenge);
  }

  headers(): Record<string, string> {
    return { "x-plugin-runtime-id": this.runtimeId, authorization: "Bearer " + this.#token };
  }
}

/** What the session needs to know of the plugin. */
export interface Settings {
  readonly selfId: string;
  readonly secret: Uint8Array | undefined;
  readonly magicCookie: readonly [string, string];
  readonly versions: readonly [number, number];
  readonly timeoutMs: number;
  readonly reportEveryMs: number;
  readonly log: Log;
  registrations(): MessageInitShape<typeof RegisterServiceRequestSchema>[];
  declare(request: HandshakeRequest): void;
  health(): MessageInitShape<typeof ReportHealthRequestSchema>;
}

/** The identity is not valid any more. */
class Forgotten extends Unreachable {
  constructor(readonly identity: Identity) {
    super("the host does not know this plugin any more; enrolling anew");
  }
}

/** Another plugin provides what this one has to. */
class Taken extends Unreachable {}

/** The connection ended, over which the host had taken the plugin. */
class Lost extends Unreachable {}

/** Keeps a plugin enrolled, registered and reported. */
export class Session {
  readonly #pace = new Pace();
  readonly #handshakes: Client<typeof HandshakeService>;
  readonly #lifecycle: Client<typeof PluginLifecycle>;
  readonly #registry: Client<typeof ServiceRegistry>;
  /** The registry for those who watch and look up, which is not over the session's own connection. */
  readonly registry: Client<typeof ServiceRegistry>;
  #identity: Identity | undefined;
  #suspect = false; // the connection broke: the host may have forgotten the identity
  #broken: Forgotten | Lost | undefined; // of which #run has not heard
  #ready = false;
  #error: Error | undefined;
  #ended = new AbortController();
  #closed = false;
  #patience = silence; // of who ends the session
  #wake = new AbortController();
  #waiters = new Set<() => void>();
  #registered: string[] = [];
  #registeredAs = "";
  #reportAt = 0;
  #trusted = false;
  #chooses = false;
  #away = false; // and it was said
  #running: Promise<void> | undefined;

  constructor(private readonly link: HostLink, private readonly settings: Settings) {
    const over = (sessionManager: Manager) => createGrpcTransport({
      baseUrl: link.url, sessionManager, readMaxBytes: maxMessage, acceptCompression: [],
    });
    const transport = over(link.own);
    this.#handshakes = createClient(HandshakeService, transport);
    this.#lifecycle = createClient(PluginLifecycle, transport);
    this.#registry = createClient(ServiceRegistry, transport);
    this.registry = createClient(ServiceRegistry, over(link.calls));
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Waits until the plugin is enrolled and registered. Throws Closed where the plugin is to stop before that. */
  async ready(stopping: AbortSignal): Promise<void> {
    await this.#until(() => this.#ready, stopping);
    if (!this.#ready) throw new Closed("the plugin was stopped before its host had taken it");
  }

  /** Waits for what ends the session by itself. */
  async failed(signal: AbortSignal): Promise<void> {
    await this.#until(() => false, signal);
  }

  /** The identity of the moment. Waits while there is none. */
  async identity(waitMs: number, signal?: AbortSignal): Promise<Identity> {
    const limit = AbortSignal.any([AbortSignal.timeout(waitMs), ...(signal ? [signal] : [])]);
    await this.#until(() => this.#identity !== undefined && !this.#suspect, limit);
    if (!this.#identity) throw new Unreachable("the host is away"); // one that may be forgotten is better than none
    return this.#identity;
  }

  /** The identity of the moment; undefined while there is none. */
  current(): Identity | undefined {
    return this.#identity;
  }

  /** Whether the host chooses among the providers of a type, call by call. */
  hostChooses(): boolean {
    return this.#chooses;
  }

  /** Takes account of an answer that says that the identity is not valid any more. */
  refused(identity: Identity): void {
    if (this.#identity !== identity) return;
    this.#identity = undefined;
    this.#broken = new Forgotten(identity);
    this.poke(true);
  }

  /** Takes account of the loss of the connection to the host. */
  lost(): void {
    this.#suspect = true;
    this.#broken ??= new Lost("the connection to the host was lost");
    this.poke(true);
  }

  /** Has the session look at once, unless it waits after a failure; with report it tells the host the plugin's health. */
  poke(report = false): void {
    if (report) this.#reportAt = 0;
    this.#wake.abort();
  }

  /** Ends the session's work, and waits for it, or until it is clear that the host is silent. The identity stays good for calls until leave. */
  async end(): Promise<void> {
    this.#ended.abort();
    this.#wake.abort();
    const over = new AbortController();
    await this.#patient((left) => Promise.race([this.#running, pause(left, over.signal)]));
    over.abort();
  }

  /** Takes the time that something of the end takes from what there is for all of it. */
  async #patient<T>(does: (left: number) => Promise<T>): Promise<T> {
    const begun = performance.now();
    try {
      return await does(this.#patience);
    } finally {
      this.#patience -= performance.now() - begun;
    }
  }

  /** Takes the registrations back, so that no new calls come. After end. */
  async withdraw(): Promise<void> {
    for (const registrationId of this.#registered) {
      if (!(await this.#lastWord((o) => this.#registry.unregisterService({ registrationId }, o)))) break;
    }
    this.#registered = [];
  }

  /** Gives the identity back. After end. */
  async leave(): Promise<void> {
    const said = { state: HealthState.UNHEALTHY, reason: "the plugin ends", leaving: true };
    await this.#lastWord((o) => this.#lifecycle.reportHealth(said, o));
    this.#identity = undefined;
    this.#closed = true;
    this.#tell();
  }

  async #lastWord(call: (options: CallOptions) => Promise<unknown>): Promise<boolean> {
    const headers = this.#identity?.headers();
    if (!headers || this.#patience <= 0) return false;
    try {
      await this.#patient((left) => call({ headers, timeoutMs: Math.ceil(Math.min(2_000, this.settings.timeoutMs, left)) }));
      return true;
    } catch (e) {
      this.settings.log.say("the host is gone:", String(e));
      return false;
    }
  }

  #tell(): void {
    for (const waiter of [...this.#waiters]) waiter();
  }

  /** Waits until something holds or a signal comes. Throws what ended the session. */
  async #until(holds: () => boolean, signal: AbortSignal): Promise<void> {
    for (;;) {
      if (this.#error) throw this.#error;
      if (this.#closed) throw new Closed("the plugin has ended");
      if (holds() || signal.aborted) return;
      await new Promise<void>((woken) => {
        const done = () => {
          this.#waiters.delete(done);
          signal.removeEventListener("abort", done);
          woken();
        };
        this.#waiters.add(done);
        signal.addEventListener("abort", done);
      });
    }
  }

  async #run(): Promise<void> {
    while (!this.#ended.signal.aborted) {
      const hold = await this.#attempt();
      if (hold === undefined) return;
      await pause(hold, this.#ended.signal); // whatever has become due
    }
  }

  /** Does what is due and rests until something else is. Returns the milliseconds in which nothing is to be tried; undefined where the
   * session ended by itself. */
  async #attempt(): Promise<number | undefined> {
    this.#wake = new AbortController();
    try {
      const broken = this.#takeBroken();
      if (broken instanceof Forgotten) throw broken;
      const due = await this.#step();
      this.#pace.reached();
      this.#away = false;
      await pause(Math.min(due, longest), AbortSignal.any([this.#wake.signal, this.#ended.signal]));
      const broke = this.#takeBroken();
      return broke && !this.#ended.signal.aborted ? this.#interrupted(broke) : 0;
    } catch (e) {
      if (e instanceof Closed) return undefined;
      if (e instanceof HandshakeRefused || (e instanceof HostNotTrusted && !this.#trusted) || isDefect(e)) {
        this.#error = e as Error;
        this.#tell();
        return undefined;
      }
      return this.#interrupted(e);
    }
  }

  #takeBroken(): Forgotten | Lost | undefined {
    const broken = this.#broken;
    this.#broken = undefined;
    return broken;
  }

  /** Says what is wrong, and returns for how long nothing is to be tried. */
  #interrupted(e: unknown): number {
    const { log } = this.settings;
    if (e instanceof Lost) return this.#pace.lost();
    if (e instanceof Forgotten) {
      const hold = this.#pace.forgotten(e.identity.given);
      log.say(e.message);
      if (hold > 0) log.warn("the host forgets this plugin as soon as it has enrolled; where several hosts answer under one URL, give each its own");
      return hold;
    }
    const message = e instanceof ConnectError ? e.rawMessage : (e as Error).message;
    if (e instanceof HostNotTrusted) {
      log.warn("the host is not trusted:", message);
    } else {
      const level = this.#away ? "say" : "warn"; // the first time is enough
      if (this.#ended.signal.aborted) return 0; // of what the end broke off nobody has to hear
      if (e instanceof Taken) log[level](message);
      else log[level]("waiting for the host:", message);
      this.#away = true;
    }
    return this.#pace.failed(e);
  }

  /** Does what is due and returns the milliseconds until something else is. */
  async #step(): Promise<number> {
    const binding = await this.link.connect();
    let identity = this.#identity;
    try {
      if (!identity || performance.now() >= identity.renewAt) identity = await this.#exchange(identity, binding);
      if (this.#registeredAs !== identity.runtimeId) {
        await this.#register(identity);
        this.#reportAt = 0;
      }
      if (performance.now() >= this.#reportAt) {
        this.#reportAt = performance.now() + this.settings.reportEveryMs;
        await this.#lifecycle.reportHealth(this.settings.health(), this.#options(identity));
      }
    } catch (e) {
      if (!(e instanceof ConnectError) || e.code !== Code.Unauthenticated || !identity) throw e;
      this.refused(identity);
      const broken = this.#takeBroken(); // each identity is forgotten once
      throw broken instanceof Forgotten ? broken : new Forgotten(identity);
    }
    this.#suspect = false;
    this.#ready = true;
    this.#tell();
    return Math.max(0, Math.min(this.#reportAt, identity.renewAt) - performance.now());
  }

  #options(identity: Identity | undefined): CallOptions {
    return { timeoutMs: this.settings.timeoutMs, ...(identity ? { headers: identity.headers() } : {}) };
  }

  async #register(identity: Identity): Promise<void> {
    const done: string[] = (this.#registered = []);
    for (const said of this.settings.registrations()) {
      if (this.#ended.signal.aborted) throw new Closed("the plugin ends"); // each may take its timeout
      try {
        done.push((await this.#registry.registerService(said, this.#options(identity))).registrationId);
      } catch (e) {
        if (e instanceof ConnectError && e.code === Code.AlreadyExists) {
          throw new Taken(`service ${said.serviceType}: another plugin provides it; waiting until that has left, or the host's policy lets ` +
            "several (AllowMultiple)", { cause: shown(e) });
        }
        if (e instanceof ConnectError && (e.code === Code.PermissionDenied || e.code === Code.InvalidArgument)) {
          throw new HandshakeRefused(`service ${said.serviceType}: the host's policy does not allow this plugin to provide it there, ` +
            `or another plugin does; the host's log says which: ${e.rawMessage}`, { cause: shown(e) });
        }
        throw e;
      }
      this.settings.log.say(`service registered: ${said.serviceType}`);
    }
    this.#registeredAs = identity.runtimeId;
  }

  /** One handshake: a renewal where there is an identity, an enrolment otherwise. */
  async #exchange(current: Identity | undefined, binding: Uint8Array): Promise<Identity> {
    const request = this.#request(binding);
    let answer: HandshakeResponse;
    try {
      answer = await this.#handshakes.handshake(request, this.#options(current));
    } catch (e) {
      if (!current && e instanceof ConnectError && final.has(e.code)) {
        throw new HandshakeRefused(`the host does not accept self id ${this.settings.selfId}: it may not be in the host's policy, or be revoked ` +
          `there, or its secret or certificate is wrong; the host's log says which: ${e.rawMessage}`, { cause: shown(e) });
      }
      throw e;
    }
    this.#check(request, answer, current, binding);
    this.#trusted = true;
    for (const warning of answer.warnings.slice(0, 16)) this.settings.log.warn("the host warns:", JSON.stringify(warning.slice(0, 1024)));
    this.#chooses = answer.serverMetadata[anyProvider] === "true";
    this.#identity = new Identity(answer.runtimeId, answer.runtimeToken, renewAt(request, answer));
    this.settings.log.say(current ? "renewed as" : "enrolled as", answer.runtimeId);
    return this.#identity;
  }

  #request(binding: Uint8Array): HandshakeRequest {
    const s = this.settings;
    const request = create(HandshakeRequestSchema, {
      coreProtocolVersion: 1, appProtocolVersion: s.versions[1], minProtocolVersion: s.versions[0], maxProtocolVersion: s.versions[1],
      magicCookieKey: s.magicCookie[0], magicCookieValue: s.magicCookie[1], selfId: s.selfId,
      clientNonce: Uint8Array.from(randomBytes(nonceSize)), issuedAt: timestampNow(),
    });
    s.declare(request);
    if (s.secret) proveRequest(request, s.secret, binding);
    return request;
  }

  /** Believes an answer only where it is proven, complete and within what was offered. */
  #check(request: HandshakeRequest, answer: HandshakeResponse, current: Identity | undefined, binding: Uint8Array): void {
    const { secret, selfId, versions } = this.settings;
    if (secret && !responseIsProven(request, answer, secret, binding)) {
      throw new HostNotTrusted(`its answer does not prove that it holds the secret of ${selfId}, or was altered on the way`);
    }
    if (answer.coreProtocolVersion !== 1) throw new HostNotTrusted(`it answers with core protocol version ${answer.coreProtocolVersion}`);
    if (answer.appProtocolVersion < versions[0] || answer.appProtocolVersion > versions[1]) {
      throw new HostNotTrusted(`it answers with application version ${answer.appProtocolVersion}, outside of ${versions.join(" to ")}`);
    }
    if (!isWord(answer.runtimeId) || !isWord(answer.runtimeToken)) throw new HostNotTrusted("its answer has no runtime id or no token");
    if (current && answer.runtimeId !== current.runtimeId) throw new HostNotTrusted("a renewal changed the runtime id");
  }
}

function isWord(text: string): boolean {
  return /^[A-Za-z0-9._~-]{1,512}$/.test(text);
}

function isDefect(e: unknown): boolean {
  return !(e instanceof ConnectError) && !(e instanceof Unreachable) && !(e instanceof HostNotTrusted);
}

/** When to renew, by our own steady clock: clocks of two machines may differ. */
function renewAt(request: HandshakeRequest, answer: HandshakeResponse): number {
  if (!answer.tokenExpiresAt || !request.issuedAt) return Infinity;
  const life = timestampMs(answer.tokenExpiresAt) - timestampMs(request.issuedAt);
  if (life <= 0) throw new HostNotTrusted("its token ended before it was asked for; compare the clocks");
  return performance.now() + Math.max(renewFloor, life * renewAfter);
}

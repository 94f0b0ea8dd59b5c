// A plugin process.
import type { DescService } from "@bufbuild/protobuf";
import { Code, ConnectError, type ConnectRouter, type ServiceImpl, type Transport } from "@connectrpc/connect";
import { type Protocol, ServiceRoute } from "./calls.js";
import { CapabilityRoute, requestGrant } from "./capabilities.js";
import { Closed, ConfigError, Unreachable } from "./errors.js";
import { HostLink, parseBaseUrl } from "./link.js";
import { Log } from "./log.js";
import { Pace, pause } from "./pace.js";
import { enrolsItself, Server } from "./serving.js";
import { Session } from "./session.js";
import { minSecretSize } from "./transcript.js";
import { checkMark, type Credentials, hearRefused, HostTrust } from "./trust.js";
import { type ServiceState, watch } from "./watching.js";
import type { CapabilityGrant } from "./wire/plugin/v1/broker_pb.js";
import type { HandshakeRequest } from "./wire/plugin/v1/handshake_pb.js";
import { type GetHealthRequest, HealthState, PluginControl } from "./wire/plugin/v1/lifecycle_pb.js";
import { PluginIdentity } from "./wire/plugin/v1/plugininfo_pb.js";

/** A service type that the plugin calls or watches. A string in its place accepts any version. */
export interface Dependency {
  readonly type: string;
  readonly minVersion?: string;
}

export interface PluginOptions {
  /** The host's base URL. */
  readonly host: string;
  /** The plugin's name, for which the host's policy is written. */
  readonly selfId: string;
  readonly selfVersion?: string;
  /** The plugin's certificate, key and authorities. */
  readonly credentials: Credentials;
  /** The enrolment secret of selfId, where there is one: the plugin proves it, and accepts only a host that proves it, too. */
  readonly secret?: Uint8Array;
  /** The types that the plugin calls or watches; the host lets it use no others. */
  readonly requires?: readonly (string | Dependency)[];
  /** The host's SPIFFE id. Not needed where the plugin's own certificate is that of an Authority of connectplugin. */
  readonly hostIdentity?: string;
  /** SHA-256 digests of the host's public key, base64 or hex; the host has to have one of them. */
  readonly hostPins?: readonly string[];
  /** Where the plugin listens. By default a free port, on the address from which it reaches its host. A host of "0.0.0.0" or "::" is every
   * address of the machine: it is called at the one from which it reaches its host then. */
  readonly address?: { readonly host: string; readonly port: number };
  /** Where the host calls the plugin, if that is another. */
  readonly baseUrl?: string;
  /** The lowest and the highest application version. [1, 1] by default. */
  readonly versions?: readonly [number, number];
  readonly magicCookie?: readonly [string, string];
  /** Bounds each call to the host, in milliseconds. 10,000 by default. */
  readonly timeoutMs?: number;
  /** The time between two reports of health, in milliseconds. 10,000 by default. */
  readonly reportEveryMs?: number;
  /** For how long calls in flight may finish at the end, in milliseconds. 10,000 by default. */
  readonly graceMs?: number;
  /** Hears what happens, line by line. By default only what an operator has to know is printed to stderr: that the plugin
   * waits for its host, that it lost it, and of what the host warns. */
  readonly log?: (line: string) => void;
}

const maxChallenge = 64;
const mostCapabilities = 256; // that are shared; of others each asker has its own

interface Provided {
  readonly type: string;
  readonly version: string;
  readonly path: string;
  readonly metadata: Readonly<Record<string, string>>;
}

const cookie = ["CONNECT_PLUGIN", "d3f40b3c2e1a5f8b9c4d7e6a1b2c3d4e"] as const;

/** A plugin that serves and calls services through its host. Whoever else answers in the host's place or calls the plugin is refused. */
export class Plugin {
  /** Aborts when the host or a signal asks the plugin to stop. A stream that could go on for ever ends itself then. */
  readonly stopping: AbortSignal;
  readonly #options: PluginOptions; // not printed: the secret is among them
  readonly #stop = new AbortController();
  readonly #link: HostLink;
  readonly #session: Session;
  readonly #trust: HostTrust;
  readonly #provided: Provided[] = [];
  readonly #adders: ((router: ConnectRouter) => void)[] = [];
  readonly #routes = new Map<string, ServiceRoute>();
  readonly #capabilities = new Map<string, CapabilityRoute>();
  readonly #watches = new AbortController();
  readonly #log: Log;
  #server: Server | undefined;
  #baseUrl: string;
  #graceMs: number;
  #health: { state: HealthState; reason: string } = { state: HealthState.HEALTHY, reason: "" };
  #stopped: Promise<void> | undefined;

  constructor(options: PluginOptions) {
    validate(options);
    this.#options = options;
    this.stopping = this.#stop.signal;
    this.#log = new Log(options.log ?? (() => { /* nobody listens */ }), options.log ?? ((line) => console.error(`connectplugin: ${line}`)));
    this.#baseUrl = options.baseUrl ?? "";
    this.#graceMs = options.graceMs ?? 10_000;
    this.#trust = new HostTrust(options.credentials, options.hostIdentity, options.hostPins);
    hearRefused(options.credentials, this.#log);
    this.#link = new HostLink(options.host, options.credentials, this.#trust, () => this.#session.lost());
    this.#session = new Session(this.#link, {
      selfId: options.selfId, secret: options.secret, magicCookie: options.magicCookie ?? cookie, versions: options.versions ?? [1, 1],
      timeoutMs: options.timeoutMs ?? 10_000, reportEveryMs: options.reportEveryMs ?? 10_000, log: this.#log,
      health: () => this.#health,
      declare: (request) => this.#declare(request),
      registrations: () => this.#provided.map((p) => ({
        serviceType: p.type, version: p.version, endpointPath: p.path, metadata: { ...p.metadata, base_url: this.#baseUrl },
      })),
    });
  }

  /** Offers a service to others: its type, its semantic version, the generated service and its implementation. Before start. */
  provide<S extends DescService>(
    type: string, version: string, service: S, implementation: Partial<ServiceImpl<S>>, metadata: Readonly<Record<string, string>> = {},
  ): this {
    if (this.#server) throw new ConfigError("provide: the plugin has started");
    checkName("provide: type", type);
    checkVersion("provide: version", version);
    if (this.#provided.some((p) => p.type === type)) {
      throw new ConfigError(`provide: type: ${JSON.stringify(type)} is provided twice, and a plugin provides a type once`);
    }
    this.#provided.push({ type, version, path: `/${service.typeName}/`, metadata });
    this.#adders.push((router) => router.service(service, implementation));
    return this;
  }

  /** A transport for createClient that leads to the provider of a type, of a version that satisfies the constraint ("1.2.0",
   * ">=1.2, <2"). The router translates no protocols: gRPC, the default, is understood by every provider. It may be made before
   * start; calls wait a second for news, and fail as unavailable. */
  transport(type: string, { constraint = "", protocol = "grpc" as Protocol } = {}): Transport {
    const key = `${type} ${constraint}`;
    let route = this.#routes.get(key);
    if (!route) this.#routes.set(key, (route = new ServiceRoute(this.#session, type, constraint)));
    return route.transport(this.#link, protocol);
  }

  /** Yields the states of a type: first as it is, then at every change, until the signal or the plugin's end. After start. */
  watch(type: string, signal?: AbortSignal): AsyncGenerator<ServiceState> {
    const until = AbortSignal.any([this.#watches.signal, ...(signal ? [signal] : [])]);
    return watch(this.#session, type, until, { resumes: true });
  }

  /** A transport for createClient that leads to a capability of the host, of a version that satisfies the constraint. It may be
   * made before start. The host is asked for a grant by the first call, which fails as not found where the host has none or
   * policy allows none. The reason is for the host's audit log. Who asks again for the same shares the grant. */
  capability(type: string, { constraint = "", reason = "", protocol = "grpc" as Protocol } = {}): Transport {
    checkName("capability", type);
    const key = JSON.stringify([type, constraint, reason]);
    let route = this.#capabilities.get(key);
    if (!route) {
      route = new CapabilityRoute(this.#session, this.#link, { capabilityType: type, minVersion: constraint, reason }, this.#options.timeoutMs ?? 10_000);
      if (this.#capabilities.size < mostCapabilities) this.#capabilities.set(key, route);
    }
    route.confirm();
    return route.transport(protocol);
  }

  /** Asks the host for a grant, for who makes calls with it by hand. Its bearerToken goes to its endpointUrl and nowhere else.
   * capability does both, and renews it. */
  async requestCapability(capabilityType: string, minVersion = "", reason = ""): Promise<CapabilityGrant> {
    const timeoutMs = this.#options.timeoutMs ?? 10_000;
    return (await requestGrant(this.#session, this.#link, { capabilityType, minVersion, reason }, timeoutMs, timeoutMs)).grant;
  }

  /** Says how the plugin is. The host is told at once. Of the reason it gets one line of 1,024 bytes at most. */
  setHealth(state: HealthState, reason = ""): void {
    if (![HealthState.HEALTHY, HealthState.DEGRADED, HealthState.UNHEALTHY].includes(state)) { // no host takes a report of another one
      throw new ConfigError("setHealth: state: write HealthState.HEALTHY, DEGRADED or UNHEALTHY");
    }
    this.#health = { state, reason: fitReason(reason) };
    this.#session.poke(true);
  }

  /** The id of this process at its host. It changes when the host forgot the plugin. */
  async runtimeId(): Promise<string> {
    return (await this.#session.identity(this.#options.timeoutMs ?? 10_000)).runtimeId;
  }

  /** Serves, enrols and registers. It waits for the host however long that takes, and resolves when the plugin can be called. It
   * rejects with HostNotTrusted or HandshakeRefused, and with Closed where the plugin is stopped before that. */
  async start(): Promise<void> {
    const asked = this.#options.address, everywhere = asked && isEverywhere(asked.host);
    const local = !asked || (everywhere && !this.#baseUrl) ? await this.#addressTowardsHost() : asked.host;
    const { host, port } = asked ?? { host: local, port: 0 };
    this.#server = new Server(this.#options.credentials, this.#trust, (router) => this.#serve(router), this.#log);
    const listening = await this.#server.listen(host, port);
    this.#baseUrl ||= `https://${local.includes(":") ? `[${local}]` : local}:${listening}`;
    this.#session.start();
    await this.#session.ready(this.stopping);
  }

  /** Starts, unless it has started, and serves until SIGTERM, SIGINT or the host asks to stop. Then it withdraws what it offers,
   * finishes the calls in flight, and leaves. It resolves then, also where the host was never there. */
  async run(): Promise<void> {
    const asked = () => this.#stop.abort();
    process.once("SIGTERM", asked).once("SIGINT", asked);
    try {
      if (!this.#server) await this.start();
      await this.#session.failed(this.stopping);
    } catch (e) {
      if (!(e instanceof Closed) || !this.stopping.aborted) throw e;
    } finally {
      process.removeListener("SIGTERM", asked).removeListener("SIGINT", asked);
      await this.stop();
    }
  }

  /** Withdraws what the plugin offers, finishes the calls in flight, and gives the identity back. */
  stop(): Promise<void> {
    this.#stop.abort();
    return (this.#stopped ??= this.#shut());
  }

  async #shut(): Promise<void> {
    await this.#session.end();
    await this.#session.withdraw();
    await this.#server?.close(this.#graceMs);
    this.#watches.abort();
    for (const route of this.#routes.values()) await route.close();
    await this.#session.leave();
    this.#link.close();
    this.#log.close();
  }

  async #addressTowardsHost(): Promise<string> {
    for (let pace = new Pace(), told = false; ; told = true) {
      try {
        await this.#link.connect();
        return this.#link.local;
      } catch (e) {
        if (!(e instanceof Unreachable)) throw e;
        this.#log[told ? "say" : "warn"]("waiting for the host:", e.message);
        await pause(pace.failed(e), this.stopping);
        if (this.stopping.aborted) throw new Closed("the plugin was stopped before its host was there");
      }
    }
  }

  #declare(request: HandshakeRequest): void {
    request.selfVersion = this.#options.selfVersion ?? "";
    for (const { type, version, path } of this.#provided) request.provides.push({ $typeName: "connectplugin.v1.ServiceDeclaration", type, version, path });
    for (const r of this.#options.requires ?? []) {
      const { type, minVersion = "" } = typeof r === "string" ? { type: r } : r;
      request.requires.push({ $typeName: "connectplugin.v1.ServiceDependency", type, minVersion, requiredForStartup: false, watchForChanges: false });
    }
  }

  #answerHealth({ runtimeId, challenge }: GetHealthRequest) {
    const identity = this.#session.current();
    if (challenge.length > maxChallenge) throw new ConnectError("challenge: is too long", Code.InvalidArgument);
    if (runtimeId && runtimeId !== identity?.runtimeId) throw new ConnectError("this is another plugin", Code.NotFound);
    return { ...this.#health, ...(challenge.length > 0 && identity ? { proof: identity.prove(challenge) } : {}) };
  }

  #serve(router: ConnectRouter): void {
    for (const add of this.#adders) add(router);
    router.service(PluginControl, {
      getHealth: (request) => this.#answerHealth(request),
      shutdown: ({ gracePeriodSeconds, reason }) => {
        if (gracePeriodSeconds < 0) throw new ConnectError("grace_period_seconds: is negative", Code.InvalidArgument);
        this.#log.say("the host asks the plugin to stop:", JSON.stringify(reason.slice(0, 1024)));
        if (gracePeriodSeconds > 0) this.#graceMs = Math.min(this.#graceMs, gracePeriodSeconds * 1000);
        setImmediate(() => this.#stop.abort()); // the answer first
        return { acknowledged: true };
      },
    });
    router.service(PluginIdentity, {
      getPluginInfo: () => ({
        selfId: this.#options.selfId, selfVersion: this.#options.selfVersion ?? "",
        provides: this.#provided.map(({ type, version, path }) => ({ type, version, path })),
        requires: (this.#options.requires ?? []).map((r) => (typeof r === "string" ? { type: r } : r)),
      }),
      setRuntimeIdentity: enrolsItself,
    });
  }
}

/** Whether a host stands for all addresses of the machine, so that nobody can call it by that. */
function isEverywhere(host: string): boolean {
  return host === "0.0.0.0" || host === "::";
}

function checkAddress({ host, port }: { readonly host: string; readonly port: number }): void {
  if (typeof host === "string" && /^[^[\]/\s]+$/.test(host) && Number.isInteger(port) && port >= 0 && port <= 65_535) return;
  throw new ConfigError(`address: ${JSON.stringify({ host, port }).slice(0, 128)} is nothing to listen on; write for example { host: "10.0.0.7", port: 8443 }, ` +
    'with "0.0.0.0" or "::" as the host for every address of the machine');
}

function validate(o: PluginOptions): void {
  const [lowest, highest] = o.versions ?? [1, 1];
  if (!o.selfId) throw new ConfigError("selfId: is empty; write the name that the host's policy knows");
  checkName("selfId", o.selfId);
  checkVersion("selfVersion", o.selfVersion ?? "");
  for (const [field, several] of [["requires", o.requires], ["hostPins", o.hostPins]] as const) {
    if (typeof several === "string") {
      throw new ConfigError(`${field}: is one text, of which each letter would count; write a list, [${JSON.stringify(several)}]`);
    }
  }
  for (const r of o.requires ?? []) checkName("requires", typeof r === "string" ? r : r.type);
  if (typeof (o.credentials as unknown) !== "object" || !o.credentials) throw new ConfigError("credentials: are none; write new Credentials(DIRECTORY)");
  if (o.baseUrl) parseBaseUrl("baseUrl", o.baseUrl);
  if ((o.magicCookie ?? cookie).some((text) => Buffer.byteLength(text) > mostOfCookie)) {
    throw new ConfigError(`magicCookie: a handshake takes ${mostOfCookie} bytes at most of key and value each`);
  }
  if (o.secret && o.secret.length < minSecretSize) {
    throw new ConfigError(`secret: has ${o.secret.length} bytes; write at least ${minSecretSize} random ones`);
  }
  checkMark("secret", o.secret ?? new Uint8Array());
  if (o.address) checkAddress(o.address);
  if (lowest < 1 || lowest > highest) throw new ConfigError("versions: the range is empty; write the lowest and the highest, from 1 on");
  if ([o.timeoutMs, o.reportEveryMs, o.graceMs].some((ms) => ms !== undefined && !(ms > 0))) {
    throw new ConfigError("timeoutMs, reportEveryMs, graceMs: write positive times");
  }
}

const mostOfReason = 1024; // bytes

/** A reason that hosts take: they refuse a report with any other, and the state with it. */
export function fitReason(reason: string): string {
  const text = Buffer.from(reason.replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, " "));
  if (text.length <= mostOfReason) return text.toString();
  const more = "…";
  return new TextDecoder().decode(text.subarray(0, mostOfReason - Buffer.byteLength(more)), { stream: true }) + more;
}

const mostOfName = 128;
const mostOfCookie = 256; // bytes

/** Refuses a name that no host takes: of a plugin, or of a service type. */
function checkName(field: string, name: string): void {
  if (/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name) && name.length <= mostOfName) return;
  throw new ConfigError(`${field}: ${JSON.stringify(name.slice(0, mostOfName))} is no name; write letters, digits, '.', '_' and '-', the first ` +
    `of them a letter or digit, ${mostOfName} at most`);
}

/** Refuses what is no semantic version. Empty is none, and no host minds that. */
function checkVersion(field: string, version: string): void {
  if (!version || /^v?[0-9]+(\.[0-9]+)?(\.[0-9]+)?(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$/.test(version)) return;
  throw new ConfigError(`${field}: ${JSON.stringify(version.slice(0, 64))} is no semantic version; write for example "1.2.3"`);
}

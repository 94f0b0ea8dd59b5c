// The state of a service type, followed over the loss of the host and of the identity.
import { create, equals } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { Closed, shown, Unreachable } from "./errors.js";
import { pause } from "./pace.js";
import type { Identity, Session } from "./session.js";
import { ServiceState as State, type WatchServiceEvent, WatchServiceEventSchema, WatchServiceRequestSchema } from "./wire/plugin/v1/registry_pb.js";

const firstWait = 100, mostWait = 5_000;
const old = 1_000; // the age from which on a stream was of use
const final: ReadonlySet<Code> = new Set([Code.NotFound, Code.PermissionDenied, Code.InvalidArgument, Code.Unimplemented]);

/** The whole state of a service type after a change. */
export interface ServiceState {
  readonly serviceType: string;
  readonly state: "available" | "degraded" | "unavailable";
  /** The provider to use, empty where there is none. */
  readonly providerId: string;
  readonly version: string;
  /** The provider's route through the host. */
  readonly endpointUrl: string;
  /** The provider's own word; nothing in it is to be trusted. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly sequence: bigint;
  /** States before this one were missed. */
  readonly resync: boolean;
  /** How many, where the host knows it. */
  readonly missed: bigint;
}

export interface WatchHooks {
  opened?(identity: Identity): void;
  broken?(): void;
  /** Whether a broken stream is resumed where it was; otherwise each begins with the current state. */
  resumes: boolean;
}

/**
 * Yields the states of one type. Each state comes once; a broken stream is resumed where it was. It throws a ConnectError
 * where the host refuses the watch, and ends with the signal or the plugin.
 */
export async function* watch(session: Session, serviceType: string, signal: AbortSignal, hooks: WatchHooks): AsyncGenerator<ServiceState> {
  const at = { sequence: 0n, epoch: "", last: undefined as WatchServiceEvent | undefined };
  for (let failures = 0; !signal.aborted; ) {
    let identity: Identity | undefined;
    let came = Infinity; // the first state
    try {
      identity = await session.identity(mostWait, signal);
      const request = create(WatchServiceRequestSchema, {
        serviceType, ...(hooks.resumes ? { resumeAfter: at.sequence, epoch: at.epoch } : {}),
      });
      hooks.opened?.(identity);
      for await (const event of session.registry.watchService(request, { headers: identity.headers(), signal })) {
        came = Math.min(came, performance.now());
        if (isNew(event, at) || !hooks.resumes) yield stateOf(event);
      }
    } catch (e) {
      if (signal.aborted || e instanceof Closed) return;
      if (!(e instanceof ConnectError) && !(e instanceof Unreachable)) throw e;
      if (e instanceof ConnectError && final.has(e.code)) throw shown(e);
      if (e instanceof ConnectError && e.code === Code.Unauthenticated && identity) session.refused(identity);
    }
    hooks.broken?.();
    if (performance.now() - came >= old) failures = 0;
    const wait = Math.min(firstWait * 2 ** Math.min(failures++, 10), mostWait);
    await pause(wait / 2 + (Math.random() * wait) / 2, signal);
  }
}

/** Remembers where the watch is, and reports whether the state was not seen yet. */
function isNew(event: WatchServiceEvent, at: { sequence: bigint; epoch: string; last: WatchServiceEvent | undefined }): boolean {
  if (event.epoch === "") { // a host of the first wire version
    const same = at.last !== undefined && equals(WatchServiceEventSchema, at.last, event);
    at.last = event;
    return !same;
  }
  if (event.epoch === at.epoch && event.sequence > 0n && event.sequence <= at.sequence) return false;
  at.sequence = event.sequence;
  at.epoch = event.epoch;
  return true;
}

function stateOf(event: WatchServiceEvent): ServiceState {
  const names = { [State.AVAILABLE]: "available", [State.DEGRADED]: "degraded" } as Partial<Record<State, "available" | "degraded">>;
  return {
    serviceType: event.serviceType, state: names[event.state] ?? "unavailable",
    providerId: event.endpoint?.providerId ?? "", version: event.endpoint?.version ?? "",
    endpointUrl: event.endpoint?.endpointUrl ?? "", metadata: event.endpoint?.metadata ?? {},
    sequence: event.sequence, resync: event.resync, missed: event.missed,
  };
}

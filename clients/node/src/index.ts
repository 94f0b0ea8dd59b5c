export type { Protocol } from "./calls.js";
export { Closed, ConfigError, HandshakeRefused, HostNotTrusted, PluginError, Unreachable } from "./errors.js";
export { type Dependency, Plugin, type PluginOptions } from "./plugin.js";
export { type Caller, caller } from "./serving.js";
export { Credentials } from "./trust.js";
export type { ServiceState } from "./watching.js";
export type { CapabilityGrant } from "./wire/plugin/v1/broker_pb.js";
export { HealthState } from "./wire/plugin/v1/lifecycle_pb.js";

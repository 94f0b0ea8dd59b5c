import { ConnectError } from "@connectrpc/connect";
import { printable } from "./glyphs.js";

/** The parent of all errors of this package. Those of calls are ConnectError, as everywhere in Connect. What a host said stands in a message
 * as people may see it. */
export class PluginError extends Error {
  override name = "PluginError";
  constructor(message: string, options?: ErrorOptions) {
    super(printable(message), options);
  }
}

/** The configuration is wrong. The text names the field and what to write instead. */
export class ConfigError extends PluginError {
  override name = "ConfigError";
}

/** The host is not the one that the plugin was told of, or did not prove that it holds the secret. */
export class HostNotTrusted extends PluginError {
  override name = "HostNotTrusted";
}

/** The host does not take this plugin; the host's log says why. Trying again is of no use. */
export class HandshakeRefused extends PluginError {
  override name = "HandshakeRefused";
}

/** The host does not answer. It may again. */
export class Unreachable extends PluginError {
  override name = "Unreachable";
}

/** The plugin has ended. */
export class Closed extends PluginError {
  override name = "Closed";
}

/** What the host itself answered, with its text as people may see it. */
export function shown(e: ConnectError, meaning = ""): ConnectError {
  const out = new ConnectError(printable(meaning + e.rawMessage), e.code, e.metadata);
  out.details = e.details;
  return out;
}

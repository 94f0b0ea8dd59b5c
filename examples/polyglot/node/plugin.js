// The relay in JavaScript: plugin.js HOST DIRECTORY, with its credentials in DIRECTORY/node.
import { join } from "node:path";
import { caller, Credentials, Plugin } from "connectplugin";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { RelayService } from "./relay_pb.js";

const [host, directory] = process.argv.slice(2);
const next = {};

const plugin = new Plugin({
  host, selfId: "node", credentials: new Credentials(join(directory, "node")), requires: ["relay.go", "relay.python"],
  log: (line) => console.error(line),
}).provide("relay.node", "1.0.0", RelayService, {
  async relay({ route, text }, context) {
    const lines = [`node heard "${text}" from ${caller(context).selfId}`];
    if (route.length > 0) {
      const following = next[route[0]];
      if (!following) throw new ConnectError(`no relay in "${route[0]}"`, Code.InvalidArgument);
      lines.push(...(await following.relay({ route: route.slice(1), text }, { timeoutMs: 5000 })).lines);
    }
    return { lines };
  },
});

for (const language of ["go", "python"]) next[language] = createClient(RelayService, plugin.transport("relay." + language));
await plugin.run();

// Package connectplugin is a plugin platform for plugins that run outside the
// host's process: sidecars, containers, other machines.
//
// A [Host] offers its plugins one TLS-only HTTP/2 endpoint with a handshake, a
// capability broker, a service registry and a router for calls from plugin to
// plugin, all over Connect RPC (https://connectrpc.com). A plugin is a process
// that calls [ServePlugin], or an old one that speaks the same wire.
//
// Everything is denied until [ServeConfig.Policy] allows it: a plugin provides,
// requires and is granted only what it declared and policy allows.
//
// # To write a host
//
// Each of these has an example:
//
//   - [ServeConfig] configures a host. Two fields are needed: certificates (TLS or
//     Authority) and Policy.
//   - [Authority] makes the certificates of the host and of its plugins.
//   - [Policy] says what each plugin may do, and how it proves that it is the
//     plugin.
//   - [NewHost] makes a host, and [Host.Serve] serves it; [Serve] does both for a
//     whole program.
//   - [Host.SetPolicy] replaces the policy while plugins run.
//   - [CapabilityBroker] grants what the host itself can do for plugins.
//
// # To write a plugin
//
//   - [ServePlugin] is everything that a plugin's process does.
//   - [NewClient] is for a program that only calls.
//   - [Client.Service] calls another plugin, whichever provides a service.
//   - [Client.WatchService] follows whether anybody does.
//   - [Client.Capability] calls what the host grants.
//   - [DispenseTyped] makes a client of a plugin that the host itself serves.
//
// A program that only calls gives its identity back at the end with [Client.Leave].
//
// No function takes a nil context: it panics, as in package context and in Connect.
//
// # What is easily confused
//
// Three ways to call something. [Client.Service] reaches a service type of
// another plugin, through the host's router; which plugin provides it may change
// from call to call. [Client.Dispense] makes a client of a [Plugin] that is part
// of the host's own program ([ServeConfig.Plugins]). [Client.Capability] reaches
// a [CapabilityHandler] of the host that is granted for a time and can be taken
// back on its own ([CapabilityBroker.RevokeGrant]).
//
// Three proofs. A [Secret] and certificates prove in the handshake which plugin
// enrols: a secret is shared with the host beforehand, and proves the host to the
// plugin as well; a certificate is that of the TLS connection, and the token that
// the handshake issues is bound to its key. [PluginPolicy] demands one, the other
// or both; where it names neither, the certificate that the host's [Authority] gave the
// plugin is proof enough. [ServeConfig.AuthProviders] have no part in that: they let callers who
// are no plugins, and so have no token, call the host's own plugins.
//
// Three addresses. The endpoint of a plugin is the base URL at which the host
// dials it: [PluginPolicy.Endpoint] or, where policy leaves that to the plugin,
// [PluginServerConfig.BaseURL]. ([ClientConfig.Endpoint] is another name of
// HostURL.) A path is where one service lies below that ([PluginService.Path]).
// [ServiceConn.BaseURL] and [CapabilityConn.BaseURL] are routes through the host,
// good with their HTTPClient only; no plugin learns where another one is.
package connectplugin

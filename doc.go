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
package connectplugin

// Package connectpluginv2 lets plugins and hosts use version 2 of Connect
// (connectrpc.com/connect/v2) with the library, whose own API is that of version 1. The wire
// is the same, so callers and providers of both versions mix.
//
// A caller gives [NewTransport] a [connectplugin.ServiceConn] or a
// [connectplugin.CapabilityConn]; a provider gives [NewService] its server, and serves what
// that returns with [connectplugin.ServePlugin]; [Plugin] is a service for
// [connectplugin.PluginSet] and for plugins that a host launches. [ClientInterceptor] and
// [ServerInterceptor] make interceptors of those of the library: retry, circuit breaker,
// limits, authentication.
package connectpluginv2

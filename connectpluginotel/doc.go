// Package connectpluginotel makes OpenTelemetry metrics and traces of what happens in a host
// of connect-plugin-go. Set [New]'s result, or that of [NewPrometheus], as
// connectplugin.ServeConfig.Observer.
//
// Names and attributes are those of the semantic conventions for RPC, version 1.43.0
// (https://opentelemetry.io/docs/specs/semconv/rpc/), and where those have none they begin
// with "connectplugin.":
//
//	rpc.server.call.duration      s   calls that the host routed or served, as callers see them; not those that a bound on rates, bytes or
//	                                  open calls refused, which are refusals
//	rpc.client.call.duration      s   the last attempt of a routed call at its provider
//	connectplugin.provider.wait   s   until the provider's answer to a routed call began
//	connectplugin.router.io       By  bodies of routed calls, by connectplugin.direction
//	connectplugin.handshakes          by rpc.response.status_code and connectplugin.renewed
//	connectplugin.watches             watches that are open
//	connectplugin.launches            by connectplugin.plugin and connectplugin.failed
//	connectplugin.exits               by connectplugin.plugin and connectplugin.unasked
//	connectplugin.refusals            by connectplugin.reason and connectplugin.place
//	connectplugin.host.usage          what the host holds, by connectplugin.resource (see Host)
//
// Calls have rpc.system.name, rpc.method ("_OTHER" where the host knows no such procedure),
// rpc.response.status_code, error.type where they failed, connectplugin.caller, and of routed
// ones connectplugin.provider and connectplugin.type. Where there are more combinations of
// them than Config.MaxSeries, the names of further ones are "_OTHER": peers cannot grow what a
// monitoring system has to keep.
//
// A call that the host serves itself, such as one of its own plugins or of a capability, is a
// span below its caller's, where the caller traces.
//
// A routed call is one span between its caller's and its provider's, in one trace: the W3C
// trace context that the caller sent is its parent, and the provider gets its own. Baggage
// passes as it is. Whether a trace is kept is decided by the sampler of the TracerProvider; a
// sampler that trusts its parent trusts the callers.
package connectpluginotel

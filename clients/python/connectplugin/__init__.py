"""Plugins in Python for hosts of connectplugin, on grpcio.

    import connectplugin as cp

    plugin = cp.Plugin(host="https://127.0.0.1:8443", self_id="greeter", credentials=cp.Credentials("run/greeter"))
    plugin.provide("greeter", "1.0.0", "greeter.v1.GreeterService",
                   lambda server: add_GreeterServiceServicer_to_server(Greeter(), server))
    plugin.run()
"""
from .calls import NoProvider, ServiceChannel
from .capabilities import CapabilityChannel, NoGrant
from .errors import Closed, ConfigError, HandshakeRefused, HostError, HostNotTrusted, PluginError
from .plugin import DEGRADED, HEALTHY, UNHEALTHY, Dependency, Plugin
from .serving import Caller, caller
from .trust import Credentials
from .watching import ServiceState, Watch
from .watching import AVAILABLE as SERVICE_AVAILABLE
from .watching import DEGRADED as SERVICE_DEGRADED
from .watching import UNAVAILABLE as SERVICE_UNAVAILABLE

__all__ = [
    "Caller", "CapabilityChannel", "Closed", "ConfigError", "Credentials", "DEGRADED", "Dependency", "HEALTHY", "HandshakeRefused",
    "HostError", "HostNotTrusted", "NoGrant", "NoProvider", "Plugin", "PluginError", "SERVICE_AVAILABLE", "SERVICE_DEGRADED",
    "SERVICE_UNAVAILABLE", "ServiceChannel", "ServiceState", "UNHEALTHY", "Watch", "caller",
]

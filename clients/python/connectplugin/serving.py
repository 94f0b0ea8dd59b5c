"""What the plugin serves to its host."""
import contextlib
import inspect
from concurrent import futures
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Optional, Sequence

import grpc
import ssl

from .errors import ConfigError, HostNotTrusted
from .link import METADATA
from .log import Log
from .trust import Credentials, HostTrust, outlived
from .wire import handshake_pb2 as hs
from .wire import lifecycle_pb2 as lc
from .wire import plugininfo_pb2 as info
from .workers import Workers

_POOL = "experimental_thread_pool"  # grpcio's name for the threads that a handler of its own has
_CONTROL_WORKERS = 4
_HANDSHAKE = ("grpc.server_handshake_timeout_ms", 10_000)  # 120 s by default, in which who says nothing holds a descriptor

_ALONE = ("grpc.so_reuseport", 0)  # else another process may listen there, too, and get a part of the calls

_CONTROL, _IDENTITY = "connectplugin.v1.PluginControl", "connectplugin.v1.PluginIdentity"


@dataclass(frozen=True)
class Caller:
    """The plugin that calls, as the host says."""

    runtime_id: str
    self_id: str
    self_version: str


def caller(context: grpc.ServicerContext) -> Caller:
    """The plugin behind a call that a servicer serves."""
    fields = dict(context.invocation_metadata())
    return Caller(*(fields.get("x-plugin-caller-" + n, "") for n in ("id", "self-id", "self-version")))


class OnlyHost(grpc.ServerInterceptor):  # type: ignore[misc]
    """Serves the host alone. TLS has verified that the caller's certificate is of a trusted authority, which those of
    other plugins are, too; this says whose it is."""

    def __init__(self, trust: HostTrust, log: Log, workers: Workers, refusals: futures.Executor) -> None:
        self._trust, self._log, self._workers, self._refusals = trust, log, workers, refusals

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        handler = continuation(details)
        if handler is None:
            return None
        kind = ("stream" if handler.request_streaming else "unary") + "_" + ("stream" if handler.response_streaming else "unary")
        serve = getattr(handler, kind)
        if inspect.iscoroutinefunction(serve) or inspect.isasyncgenfunction(serve):
            serve = self._asynchronous(details.method)
        # A handler of streams begins before a message has come, so that whoever is refused holds no worker until one does.
        taken = (lambda requests, _: requests) if handler.request_streaming else _only
        if handler.response_streaming:
            def checked(requests: Any, context: grpc.ServicerContext) -> Any:
                self._check(context)
                with _answered():
                    yield from serve(taken(requests, context), context)
        else:
            def checked(requests: Any, context: grpc.ServicerContext) -> Any:
                self._check(context)
                with _answered():
                    return serve(taken(requests, context), context)
        caller = _named(details)
        if hasattr(serve, _POOL):
            setattr(checked, _POOL, getattr(serve, _POOL))
        elif self._workers.full(caller):
            checked = self._refuse()
            setattr(checked, _POOL, self._refusals)
        else:
            setattr(checked, _POOL, self._workers.of(caller))
        make = grpc.stream_stream_rpc_method_handler if handler.response_streaming else grpc.stream_unary_rpc_method_handler
        return make(checked, handler.request_deserializer, handler.response_serializer)

    def _asynchronous(self, method: str) -> Any:
        """A handler in the place of one that is asyncio's, which nobody would await."""
        def unawaited(_: Any, context: grpc.ServicerContext) -> Any:
            self._log.warning("%s is async, and servicers are called in threads: write def, and have it wait for what is asyncio's with "
                              "asyncio.run_coroutine_threadsafe(…, loop).result()", method)
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "the plugin cannot serve this method")

        return unawaited

    def _refuse(self) -> Any:
        """A handler for a call of whoever has too many."""
        def busy(_: Any, context: grpc.ServicerContext) -> Any:
            self._check(context)
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls of this caller wait for a thread")

        return busy

    def _check(self, context: grpc.ServicerContext) -> None:
        pem = context.auth_context().get("x509_pem_cert", [b""])[0]
        try:
            if not pem:
                raise HostNotTrusted("it has no certificate")
            certificate = ssl.PEM_cert_to_DER_cert(pem.decode())
            self._trust.check(certificate)
            if outlived(certificate):  # a host of this library has shown a later one, on another connection
                raise HostNotTrusted("its certificate has ended since it connected")
        except HostNotTrusted as e:
            self._log.warning("somebody else than the host called: %s", e)
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the caller is not the host")


def _named(details: Any) -> str:
    """Who calls, as the host says: the plugin, whichever of its instances."""
    fields = dict(details.invocation_metadata)
    return str(fields.get("x-plugin-caller-self-id") or fields.get("x-plugin-caller-id", ""))


@contextlib.contextmanager
def _answered() -> Iterator[None]:
    """Has grpcio answer whatever a servicer raises. Of what is no Exception, as what sys.exit raises is none, it says nothing: whoever
    called would wait for ever, and the plugin's end for the call."""
    try:
        yield
    except (Exception, GeneratorExit):
        raise
    except BaseException as e:
        raise RuntimeError(f"the servicer raised {type(e).__name__}") from e


def _only(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
    """The message of a call that has one."""
    for request in requests:
        return request
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message")


class Refusal(Exception):
    """An answer with a code."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Control:
    """What the host may ask of the plugin."""

    health: Callable[[lc.GetHealthRequest], lc.GetHealthResponse]
    shutdown: Callable[[lc.ShutdownRequest], None]
    declare: Callable[[Any], None]


def new_server(credentials: Credentials, trust: HostTrust, control: Control, address: str, shared: Workers,
               options: Sequence[tuple[str, Any]], log: Log) -> tuple[grpc.Server, int]:
    """Returns a server that listens and does not serve yet, and its port."""
    # Calls that hold all workers keep nobody from learning that the plugin lives, or from stopping it.
    apart = futures.ThreadPoolExecutor(_CONTROL_WORKERS, "connectplugin-control")
    server = grpc.server(shared.pool, interceptors=[OnlyHost(trust, log, shared, apart)], options=(_HANDSHAKE, _ALONE, *METADATA, *options))
    server.add_generic_rpc_handlers(_control_handlers(control, apart))

    served = [credentials.read()]

    def configuration() -> Any:
        files = credentials.read()
        return grpc.ssl_server_certificate_configuration([(files.key, files.certificate)], files.authorities)

    def renewed() -> Optional[Any]:
        files = credentials.read()
        if files == served[0]:
            return None
        served[0] = files
        return configuration()

    try:
        port = server.add_secure_port(address, grpc.dynamic_ssl_server_credentials(configuration(), renewed, True))
    except RuntimeError as e:
        raise ConfigError(f"address: nobody can listen on {address}: another process does, or it is none of this machine's") from e
    return server, port


def end(server: grpc.Server, shared: Workers, grace: float, silence: float) -> None:
    """Lets the calls in flight finish, for so many seconds at most. grpcio waits for the host to take note of the end, too, which one
    that is silent does not: it has so many seconds, in which nothing is in flight."""
    stopped = server.stop(grace)
    while not stopped.wait(silence):
        if not shared.busy():
            server.stop(None)


def _control_handlers(control: Control, pool: futures.Executor) -> tuple[Any, ...]:
    def get_health(request: lc.GetHealthRequest, context: grpc.ServicerContext) -> lc.GetHealthResponse:
        try:
            return control.health(request)
        except Refusal as e:
            context.abort(e.code, str(e))
            raise

    def shutdown(request: lc.ShutdownRequest, context: grpc.ServicerContext) -> lc.ShutdownResponse:
        if request.grace_period_seconds < 0:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "grace_period_seconds: is negative")
        control.shutdown(request)
        return lc.ShutdownResponse(acknowledged=True)

    def plugin_info(_: Any, __: grpc.ServicerContext) -> info.GetPluginInfoResponse:
        said = hs.HandshakeRequest()
        control.declare(said)
        return info.GetPluginInfoResponse(self_id=said.self_id, self_version=said.self_version,
                                          provides=said.provides, requires=said.requires)

    def assign(_: Any, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this plugin enrols itself")

    def unary(serve: Callable[[Any, Any], Any], request: Any, answer: Any) -> Any:
        setattr(serve, _POOL, pool)
        return grpc.unary_unary_rpc_method_handler(serve, request.FromString, answer.SerializeToString)

    return (
        grpc.method_handlers_generic_handler(_CONTROL, {
            "GetHealth": unary(get_health, lc.GetHealthRequest, lc.GetHealthResponse),
            "Shutdown": unary(shutdown, lc.ShutdownRequest, lc.ShutdownResponse),
        }),
        grpc.method_handlers_generic_handler(_IDENTITY, {
            "GetPluginInfo": unary(plugin_info, info.GetPluginInfoRequest, info.GetPluginInfoResponse),
            "SetRuntimeIdentity": unary(assign, info.SetRuntimeIdentityRequest, info.SetRuntimeIdentityResponse),
        }),
    )

"""The cases of the interop table as a caller on grpcio plays them; see interop/echo/cases.go."""
import asyncio

import grpc
import grpc.aio

QUIET, FLIGHT, LONG, WORKERS = 150, 20, 4, 4


def check(what, got, want):
    if got != want:
        raise AssertionError(f"{what}: got {str(got)[:80]}, want {str(want)[:80]}")


async def failure(call):
    try:
        await call
    except grpc.aio.AioRpcError as e:
        return e
    raise AssertionError("no error")


async def exchange(stream, data):
    await stream.write(data)
    got = await stream.read()
    if got is grpc.aio.EOF:
        await stream  # raises how the stream ended
        raise AssertionError("the stream ended: " + str(await stream.code()))
    check("message", got, data)


async def finish(stream):
    await stream.done_writing()
    check("last", await stream.read(), b"done")
    check("end", await stream.read(), grpc.aio.EOF)
    check("code", await stream.code(), grpc.StatusCode.OK)


async def opened(caller):
    stream = caller.bidi()
    await exchange(stream, b"first")
    return stream


async def until_running(caller, want):
    for _ in range(200):
        n = int(await caller.unary("Count"))
        if n == want:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{n} calls run at the provider, want {want}")


async def unary(caller, job, ready):
    for _ in range(100):
        check("message", await caller.unary("Unary", b"u" * 256), b"u" * 256)


async def client(caller, job, ready):
    call = caller.client()
    for _ in range(100):
        await call.write(b"c" * 256)
    await call.done_writing()
    check("sum", await call, b"25600")


async def server(caller, job, ready):
    got = [m async for m in caller.server(b"100")]
    check("messages", got, [str(i).encode() for i in range(100)])


async def bidi(caller, job, ready):
    stream = await opened(caller)
    for i in range(50):
        await exchange(stream, str(i).encode())
    await finish(stream)


async def half_close(caller, job, ready):
    stream = caller.bidi()
    for m in (b"a", b"b", b"c"):
        await stream.write(m)
    await stream.done_writing()
    check("messages", [m async for m in stream], [b"a", b"b", b"c", b"done"])


async def deadline(caller, job, ready):
    e = await failure(caller.unary("Sleep", b"20000", timeout=0.3))
    check("code", e.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
    await until_running(caller, 0)


async def cancel(caller, job, ready):
    calls = [caller.unary("Sleep", b"20000") for _ in range(5)]
    calls += [await opened(caller) for _ in range(5)]
    await until_running(caller, len(calls))
    for c in calls:
        c.cancel()
    await until_running(caller, 0)


async def details(caller, size):
    e = await failure(caller.unary("Fail", f"9 {size}".encode()))
    check("code", e.code(), grpc.StatusCode.FAILED_PRECONDITION)
    check("text", e.details(), "as asked")
    blob = e.trailing_metadata().get("grpc-status-details-bin", b"")
    check("bytes of detail", blob.count(b"d" * size) and len(blob) > size, True)


async def large(caller, job, ready):
    data = b"l" * job["large"]
    check("unary", await caller.unary("Unary", data) == data, True)
    stream = await opened(caller)
    await stream.write(data)
    check("stream", await stream.read() == data, True)
    await finish(stream)


async def many(caller, n, between):
    streams = await asyncio.gather(*(opened(caller) for _ in range(n)))
    await between

    async def end(stream):
        await exchange(stream, b"second")
        await finish(stream)

    results = await asyncio.gather(*(end(s) for s in streams), return_exceptions=True)
    failed = [r for r in results if r is not None]
    if failed:
        raise AssertionError(f"{len(failed)} of {n}: {failed[0]}")


async def quiet(job, ready):
    await ready()
    await asyncio.sleep(job["silence"] / 1000)


async def stop(caller, job, ready):
    async def span(stream):
        await asyncio.sleep(2)
        await exchange(stream, b"second")
        await finish(stream)

    loading, counts = True, [0, 0]

    async def load():
        while loading:
            try:
                await caller.unary("Unary", b"load")
                counts[0] += 1
            except grpc.aio.AioRpcError as e:
                if e.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND):
                    raise AssertionError(f"load: {e.code()}: {e.details()}") from e
                counts[1] += 1
                await asyncio.sleep(0.005)

    async def sleep():
        await caller.unary("Sleep", b"3000")

    flight = [asyncio.create_task(span(s)) for s in await asyncio.gather(*(opened(caller) for _ in range(LONG)))]
    flight += [asyncio.create_task(sleep()) for _ in range(FLIGHT)]
    workers = [asyncio.create_task(load()) for _ in range(WORKERS)]
    await until_running(caller, FLIGHT + LONG)
    await ready()
    loading = False
    for r in await asyncio.gather(*flight, *workers, return_exceptions=True):
        if r is not None:
            raise AssertionError(f"in flight: {r}")
    return f"{counts[0]} short calls, {counts[1]} refused"


async def kill(caller, job, ready):
    streams = await asyncio.gather(*(opened(caller) for _ in range(LONG)))
    calls = [caller.unary("Sleep", b"20000") for _ in range(FLIGHT)]
    await until_running(caller, FLIGHT + LONG)
    ends = [asyncio.create_task(c.code()) for c in [*calls, *streams]]
    await asyncio.sleep(0)
    caller.prefix = await ready()
    for code in await asyncio.gather(*ends):
        check("in flight", code, grpc.StatusCode.UNAVAILABLE)
    for tries in range(1, 200):
        try:
            await caller.unary("Unary", b"again")
            return f"answers again at try {tries}"
        except grpc.aio.AioRpcError as e:
            check("again", e.code(), grpc.StatusCode.UNAVAILABLE)
            await asyncio.sleep(0.05)
    raise AssertionError("does not answer again")


CASES = {
    "unary": unary, "client": client, "server": server, "bidi": bidi, "half-close": half_close,
    "deadline": deadline, "cancel": cancel, "large": large, "stop": stop, "kill": kill,
    "details": lambda c, j, r: details(c, 1000),
    "details-20k": lambda c, j, r: details(c, 20000),
    "streams": lambda c, j, r: many(c, j["streams"], asyncio.sleep(0)),
    "silence": lambda c, j, r: many(c, QUIET, quiet(j, r)),
}


async def play(name, caller, job, ready):
    return await CASES[name](caller, job, ready)

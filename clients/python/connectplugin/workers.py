"""The threads that serve calls, of which no caller has all."""
import threading
from collections import deque
from concurrent import futures
from typing import Any, Callable, Deque, Optional

_MOST_WAITING = 1024  # calls of a caller


class _Task:
    def __init__(self, f: Callable[..., Any], args: Any, named: Any) -> None:
        self.future: "futures.Future[Any]" = futures.Future()
        self._f, self._args, self._named = f, args, named

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._f(*self._args, **self._named)
        except BaseException as e:  # as a pool's own
            self.future.set_exception(e)
        else:
            self.future.set_result(result)


class _Caller:
    def __init__(self) -> None:
        self.running = 0
        self.waiting: Deque[_Task] = deque()


class Workers:
    """A pool of which one caller has three quarters at most. Its further calls wait, while there is something left for others."""

    def __init__(self, size: int) -> None:
        self.pool = futures.ThreadPoolExecutor(size, "connectplugin-call")
        self._most = max(1, size * 3 // 4)
        self._mu = threading.Lock()
        self._callers: dict[str, _Caller] = {}

    def full(self, caller: str) -> bool:
        """Reports whether so many calls of a caller wait that no more may."""
        with self._mu:
            known = self._callers.get(caller)
            return known is not None and len(known.waiting) >= _MOST_WAITING

    def busy(self) -> bool:
        """Reports whether calls are served, or wait for it."""
        with self._mu:
            return bool(self._callers)

    def of(self, caller: str) -> futures.ThreadPoolExecutor:
        """The pool as a caller has it."""
        return _Share(self, caller)

    def submit(self, caller: str, task: _Task) -> None:
        with self._mu:
            c = self._callers.setdefault(caller, _Caller())
            if c.running >= self._most:
                c.waiting.append(task)
                return
            c.running += 1
        self._begin(caller, task)

    def _begin(self, caller: str, task: _Task) -> None:
        try:
            self.pool.submit(self._run, caller, task)
        except RuntimeError:  # the process ends
            task.future.cancel()
            self._over(caller)
            raise

    def _run(self, caller: str, task: _Task) -> None:
        try:
            task.run()
        finally:
            following = self._over(caller)
            if following is not None:
                self._begin(caller, following)

    def _over(self, caller: str) -> Optional[_Task]:
        """Gives back the place of a call, or returns the one whose it is now."""
        with self._mu:
            c = self._callers[caller]
            if c.waiting:
                return c.waiting.popleft()
            c.running -= 1
            if c.running == 0:
                del self._callers[caller]
            return None


class _Share(futures.ThreadPoolExecutor):
    """A pool for grpcio, which takes nothing else for one, and has no threads of its own."""

    def __init__(self, workers: Workers, caller: str) -> None:  # pylint: disable=super-init-not-called
        self._shared, self._caller = workers, caller

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "futures.Future[Any]":
        task = _Task(fn, args, kwargs)
        self._shared.submit(self._caller, task)
        return task.future

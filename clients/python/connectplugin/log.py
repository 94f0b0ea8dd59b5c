"""What the plugin says, and how much of it: a host, and whoever answers in its place, could have it say anything for ever."""
import logging
import threading
import time
from dataclasses import dataclass
from typing import Optional

from .glyphs import printable

_BURST = 16  # lines of a kind at once, as a client in Go
_EVERY = 10.0  # when one more of the kind is written: the latest
_DEPTH = 3  # from whoever has something to say to the logger


@dataclass
class _Tempo:
    at: float
    used: float = 0.0  # of the burst
    held: Optional[str] = None  # the latest line that was not written
    more: int = 0  # that were not, before that
    timer: Optional[threading.Timer] = None


class Log:
    """Writes lines, each as people may see it. Of a kind that goes on it writes a few, and then one in a while, with how
    many there were. Lines of a kind have their level and their format in common, of which there are few."""

    def __init__(self, to: logging.Logger) -> None:
        self._to = to
        self._mu = threading.Lock()
        # Guarded by _mu.
        self._tempos: dict[tuple[int, str], _Tempo] = {}
        self._closed = False

    def debug(self, text: str, *args: object) -> None:
        self._say(logging.DEBUG, text, args)

    def info(self, text: str, *args: object) -> None:
        self._say(logging.INFO, text, args)

    def warning(self, text: str, *args: object) -> None:
        self._say(logging.WARNING, text, args)

    def close(self) -> None:
        """Writes what is held. Later lines that are too many are dropped."""
        with self._mu:
            self._closed = True
            kinds = list(self._tempos)
        for kind in kinds:
            self._release(kind)

    def _say(self, level: int, text: str, args: tuple[object, ...]) -> None:
        if not self._to.isEnabledFor(level):
            return
        line = printable(text % args if args else text)
        with self._mu:
            due = self._due_locked((level, text), line)
        if due:
            self._to.log(level, "%s", line, stacklevel=_DEPTH)

    def _due_locked(self, kind: tuple[int, str], line: str) -> bool:
        now = time.monotonic()
        tempo = self._tempos.setdefault(kind, _Tempo(now))
        tempo.used, tempo.at = max(tempo.used - (now - tempo.at) / _EVERY, 0.0), now
        if tempo.held is None and tempo.used + 1 <= _BURST:
            tempo.used += 1
            return True
        if self._closed:
            return False
        tempo.more += tempo.held is not None
        tempo.held = line
        if tempo.timer is None:
            tempo.timer = threading.Timer((tempo.used + 1 - _BURST) * _EVERY, self._release, (kind,))
            tempo.timer.daemon = True
            tempo.timer.start()
        return False

    def _release(self, kind: tuple[int, str]) -> None:
        with self._mu:
            tempo = self._tempos[kind]
            line, more = tempo.held, tempo.more
            if tempo.timer is not None:
                tempo.timer.cancel()
            tempo.held, tempo.more, tempo.timer = None, 0, None
            if line is None:
                return
            tempo.used, tempo.at = float(_BURST), time.monotonic()
        self._to.log(kind[0], "%s (and %d more like it)" if more else "%s", *((line, more) if more else (line,)))

"""Two threads that take turns, on one core while there is much to do.

The interpreter's lock lets either the thread that polls or the one that handles run, never both. On two cores
every record is made in one core's caches and needed in the other's, and back when it is let go of: measured,
a fifth of the rate of a fast handler. So with `Settings.share_core` both are bound to the core on which the
handler's thread is found, and let go of now and again, so that the kernel may move them off a core that
others want; and at once when the backlog is gone.

What a bound thread starts, threads and processes, inherits the bond: that is why it is not the default.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["SharedCore"]

_log = logging.getLogger("relance.app")

_BOUND = 1.0  # seconds for which threads are bound to one core
_LOOSE = 0.005  # seconds between two such times: some handovers of the interpreter, and so chances to move
_CALM = 0.05  # seconds without much to do, after which they are not bound any more

_PROCESSOR = 36  # of the fields of /proc/…/stat after the name, the one of the core it ran on last


class SharedCore:
    """Binds the thread that calls `look` and the one that is inside `joined` together. `clock`: monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._allowed: dict[int, set[int]] = {}
        """By thread, the cores it had when it came; empty where the system knows no such thing."""
        self._handler: int | None = None
        self._bound = False
        self._next = 0.0
        self._busy_at = float("-inf")
        self._useless = not sys.platform.startswith("linux")
        if self._useless:
            _log.warning("share_core does nothing here: only on Linux can threads be bound to a core")

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """While it is open, the thread that opened it is the one that handles."""
        if self._useless:
            yield
            return
        with self._lock:
            self._handler = threading.get_native_id()
            self._allowed[self._handler] = os.sched_getaffinity(0)
        try:
            yield
        finally:
            with self._lock:
                self._release()
                del self._allowed[self._handler]
                self._handler = None

    def look(self, *, much: bool) -> None:
        """Called again and again by the thread that polls; `much`: there is a backlog."""
        if self._useless:
            return
        now = self._clock()
        if much:
            self._busy_at = now
        with self._lock:
            if now - self._busy_at > _CALM or self._handler is None:
                self._release()
            elif now >= self._next:
                if self._bound:
                    self._release()
                    self._next = now + _LOOSE
                else:
                    self._bind(self._handler)
                    self._next = now + _BOUND

    def _bind(self, handler: int) -> None:
        poller = threading.get_native_id()
        try:
            if poller not in self._allowed:
                self._allowed[poller] = os.sched_getaffinity(0)
            core = _core_of(handler)
            for thread in (handler, poller):
                os.sched_setaffinity(thread, {core})
            self._bound = True
        except OSError as error:  # a sandbox forbids it, or the core is gone since
            self._give_up(error)

    def _release(self) -> None:
        if not self._bound:
            return
        self._bound = False
        for thread, cores in self._allowed.items():
            try:
                os.sched_setaffinity(thread, cores)
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._useless = True
        _log.warning("share_core: threads can't be bound to a core here, so it does nothing more: %s", error)


def _core_of(thread: int) -> int:
    stat = Path(f"/proc/self/task/{thread}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[_PROCESSOR])

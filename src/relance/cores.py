"""Two threads that take turns, on one core while there is much to do.

The interpreter's lock lets either the thread that polls or the one that handles run, never both. On two cores
every record is made in one core's caches and needed in the other's, and back when it is let go of: measured,
a fifth of the rate of a fast handler. So with `Settings.share_core` both are bound to the core on which the
handler's thread is found, and let go of now and again, so that the kernel may move them off a core that
others want; and at once when the backlog is gone.

What a bound thread starts, threads and processes, inherits the bond: that is why it is not the default, and
why it is only for a process that is the application's own, with one consumer.
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
    """Binds the thread that polls and the one that handles together. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._allowed: dict[int, set[int]] = {}
        """By thread, the cores that it had when it came."""
        self._bound = False
        self._next = 0.0
        self._busy_at = float("-inf")
        self._useless = not sys.platform.startswith("linux")
        if self._useless:
            _log.warning("share_core does nothing here: only on Linux can threads be bound to a core")

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """While it is open, its thread is the one that handles."""
        with self._lock:
            self._join()
        try:
            yield
        finally:
            self.leave()

    def look(self, *, much: bool) -> None:
        """Called again and again by the thread that polls; `much`: there is a backlog."""
        now = self._clock()
        if much:
            self._busy_at = now
        with self._lock:
            self._join()
            if self._useless or len(self._allowed) < 2:
                return
            if now - self._busy_at > _CALM:
                self._release()
            elif now >= self._next:
                if self._bound:
                    self._release()
                    self._next = now + _LOOSE
                else:
                    self._bind()
                    self._next = now + _BOUND

    def leave(self) -> None:
        """The thread that calls this is not one of the two any more."""
        with self._lock:
            self._release()
            self._allowed.pop(threading.get_native_id(), None)

    def _join(self) -> None:
        thread = threading.get_native_id()
        if self._useless or thread in self._allowed:
            return
        try:
            self._allowed[thread] = os.sched_getaffinity(0)
        except OSError as error:
            self._give_up(error)

    def _bind(self) -> None:
        poller = threading.get_native_id()
        self._bound = True
        try:
            core = _core_of(next(thread for thread in self._allowed if thread != poller))
            for thread in self._allowed:
                os.sched_setaffinity(thread, {core})
        except (OSError, ValueError, IndexError) as error:  # a sandbox forbids it, the core is gone since
            self._release()
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

    def _give_up(self, error: Exception) -> None:
        if not self._useless:
            self._useless = True
            _log.warning("share_core: threads can't be bound to a core here, so it does nothing: %s", error)


def _core_of(thread: int) -> int:
    stat = Path(f"/proc/self/task/{thread}/stat").read_bytes()
    return int(stat.rpartition(b")")[2].split()[_PROCESSOR])

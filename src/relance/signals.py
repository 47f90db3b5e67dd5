"""SIGTERM and SIGINT: the first asks for a clean stop, a second one ends the process at once.

Promise: both are acted on even while a handler hangs. Python runs signal handlers between bytecodes of the
main thread, which may be stuck in a handler of a user; the wakeup file descriptor is written by the C level
and read here by a thread of its own. A wrapper may signal the process and then its process group: the same
signal once more within half a second is no second one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from relance.forks import forgotten_by_children

__all__ = ["Repeats", "caught_signals"]

_log = logging.getLogger("relance")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_ONE = 0.5  # seconds within which the same signal counts once


class Repeats:
    """Tells a repeated signal from a new one."""

    def __init__(self) -> None:
        self._heard: dict[int, float] = {}

    def is_one(self, number: int, now: float) -> bool:
        """Whether signal `number` at `now` (seconds) repeats one that came less than half a second before."""
        if now - self._heard.get(number, -_ONE) < _ONE:
            return True
        self._heard[number] = now
        return False


@contextlib.contextmanager
def caught_signals(on_first: Callable[[int], None]) -> Iterator[Callable[[], None]]:
    """While inside: `on_first(signal number)` on another thread at the first, exit 128+n at a second.

    Only the main thread may enter (Python's rule for signals). It gives a function to be called, there too,
    where something else has taken the wakeup file descriptor, as uvloop does when it begins to run: we take
    it back, and hand on what is not ours.
    """
    reader, writer = socket.socketpair()
    reader.setblocking(True)
    writer.setblocking(False)
    try:
        # Before the handlers, and given back after them: a signal in between must not be swallowed.
        old_fd = _tell(writer.fileno())
    except ValueError:
        reader.close()
        writer.close()
        raise
    inherited = _Inherited(reader, writer)
    others = inherited.others

    def note(number: int, frame: FrameType | None) -> None:
        """Python must have a handler, or the C level writes nothing."""
        fd = _tell(writer.fileno())
        if fd != writer.fileno():  # of a loop that begins or ends: it was told, and not we
            _tell(fd)
            writer.send(bytes([number]))

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    inherited.handlers.update(before)
    forgotten_by_children(inherited.forget)
    thread = threading.Thread(
        target=_listen, args=(reader, on_first, others), name="relance-signals", daemon=True
    )
    thread.start()

    def listen() -> None:
        fd = _tell(writer.fileno())
        if fd not in (-1, writer.fileno()):
            others.append(os.dup(fd))

    try:
        yield listen
    finally:
        inherited.restore()
        signal.set_wakeup_fd(old_fd)
        writer.close()  # ends the thread
        thread.join(1.0)
        reader.close()
        for fd in others:
            os.close(fd)


class _Inherited:
    """What a forked child inherits: it must not write to the socket, and signals must reach it as usual."""

    def __init__(self, reader: socket.socket, writer: socket.socket) -> None:
        self.handlers: dict[signal.Signals, Any] = {}
        """The signal handlers as they were before."""
        self.others: list[int] = []
        """File descriptors that signals which are not ours are handed on to."""
        self._reader = reader
        self._writer = writer

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self.handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: set from C
        self.handlers.clear()

    def forget(self) -> None:
        """In a forked child."""
        signal.set_wakeup_fd(-1)
        self.restore()
        self._reader.close()
        self._writer.close()
        for fd in self.others:
            os.close(fd)


def _tell(fd: int) -> int:
    """Have signals written to that file descriptor. Returns to which they went before, or -1."""
    return signal.set_wakeup_fd(fd, warn_on_full_buffer=False)


def _listen(reader: socket.socket, on_first: Callable[[int], None], others: list[int]) -> None:
    seen, repeats = 0, Repeats()
    while data := reader.recv(16):
        for number in data:
            if number not in _SIGNALS:
                for fd in others:
                    with contextlib.suppress(OSError):  # its loop is gone
                        os.write(fd, bytes([number]))
                continue
            if repeats.is_one(number, time.monotonic()):
                continue
            seen += 1
            name = signal.Signals(number).name
            if seen == 1:
                _say(logging.INFO, f"{name}: stopping; once more to stop at once")
                try:
                    on_first(number)
                except Exception:  # noqa: BLE001  the second signal must still be heard
                    _log.exception("%s: could not begin to stop", name)
            else:
                _say(logging.ERROR, f"{name} again: exiting at once, the unfinished will be handled again")
                os._exit(128 + number)


def _say(level: int, text: str) -> None:
    """Log a line, but don't wait for long: whoever hangs may hang in logging, with its lock in hand."""
    thread = threading.Thread(target=_log_now, args=(level, text), name="relance-signal-log", daemon=True)
    thread.start()
    thread.join(0.2)


def _log_now(level: int, text: str) -> None:
    _log.log(level, text)
    for handler in logging.getLogger().handlers:
        handler.flush()

"""SIGTERM and SIGINT: the first asks for a clean stop, the second ends the process at once.

Promise: both are acted on even while a handler hangs. Python runs signal handlers between bytecodes of the
main thread, which may be stuck in a handler of a user; the wakeup file descriptor is written by the C level
and read here by a thread of its own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

__all__ = ["caught_signals"]

_log = logging.getLogger("relance")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def caught_signals(on_first: Callable[[int], None]) -> Iterator[None]:
    """While inside: `on_first(signal number)` on another thread at the first, exit 128+n at the second.

    Only the main thread may enter (Python's rule for signals).
    """
    reader, writer = socket.socketpair()
    reader.setblocking(True)
    writer.setblocking(False)
    before = {number: signal.signal(number, _nothing) for number in _SIGNALS}
    old_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_listen, args=(reader, on_first), name="relance-signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(old_fd)
        for number, handler in before.items():
            signal.signal(number, handler)
        writer.close()  # ends the thread
        thread.join(1.0)
        reader.close()


def _nothing(number: int, frame: FrameType | None) -> None:
    """Python must have a handler, or the C level writes nothing."""


def _listen(reader: socket.socket, on_first: Callable[[int], None]) -> None:
    seen = 0
    while data := reader.recv(16):
        for number in data:
            if number not in _SIGNALS:
                continue
            seen += 1
            name = signal.Signals(number).name
            if seen == 1:
                _log.info("%s: stopping; once more to stop at once", name)
                on_first(number)
            else:
                _log.error("%s again: exiting at once, unfinished records will be handled again", name)
                logging.shutdown()
                os._exit(128 + number)

"""Ends a handler that blocks the test's own thread for too long.

Promise: no handler makes a test hang for ever, where the system has timers as signals (Windows has none),
the test runs in the main thread, and nobody else uses SIGALRM (pytest-timeout does). Elsewhere only what is
awaited has a limit.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

__all__ = ["Blocked", "Limit"]


class Blocked(BaseException):
    """The handler is not waited for any longer."""


class Limit:
    """`seconds` of real time for each call.

    `told` says for a stack what hangs there, `may_raise` whether the code that is interrupted is the
    handler's own. Where it isn't, the event loop runs on without end, and its tasks look at `problem`.
    """

    def __init__(
        self,
        seconds: float,
        told: Callable[[FrameType | None], str],
        may_raise: Callable[[FrameType | None], bool],
    ) -> None:
        self._seconds, self._told, self._may_raise = seconds, told, may_raise
        self._armed = False
        self.waits = False
        """Whether the event loop waits for the outside, which has a limit of its own."""
        self.problem: str | None = None
        """What has hung."""

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Limit what runs inside, where code of the user may run."""
        if self._armed or not _free():
            yield
            return
        before = signal.signal(signal.SIGALRM, self._ring)
        self._armed = True
        self.again()
        try:
            yield
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def again(self) -> None:
        """Another call begins."""
        if self._armed:
            signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def _ring(self, _number: int, frame: FrameType | None) -> None:
        self.again()  # the handler may catch this and block again
        if self.waits:
            return
        self.problem = self._told(frame)
        if self._may_raise(frame):
            raise Blocked(self.problem)


def _free() -> bool:
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        return False
    return signal.getsignal(signal.SIGALRM) is signal.SIG_DFL and signal.getitimer(signal.ITIMER_REAL)[0] == 0

"""The tasks of a world's processes: each knows what it waits for, and goes on only while its process lives.

Promise: after a process has died no line of its tasks runs any more, but for what Python runs to unwind them
(`finally`, `__exit__`), and what that sends goes nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import Coroutine, Generator, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from relance.testing.limit import Blocked

if TYPE_CHECKING:
    from relance.testing.outside import CallOut
    from relance.testing.process import Process

__all__ = ["CALL", "PROCESS", "Crash", "Stepped", "no_loop_runs"]

PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)
"""The process whose code runs here: a handler's, a hook's, what these have started."""

CALL: ContextVar[CallOut | None] = ContextVar("CALL", default=None)
"""The call of an async handler that this code belongs to."""

_TRIES = 10  # how often a coroutine may refuse to end


class Crash(BaseException):
    """The process dies here."""


class Stepped:
    """One task of a process, between the loop and its coroutine."""

    __slots__ = ("__weakref__", "awaits", "coroutine", "done", "process")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], process: Process) -> None:
        self.coroutine = coroutine
        self.process = process
        self.awaits: asyncio.Future[Any] | None = None
        """What it waits for now; None while it runs, and after a bare yield (`asyncio.sleep(0)`)."""
        self.done = False

    async def run(self) -> Any:
        """What the task runs in the coroutine's place. Cancelled when the process has died."""
        return await self._steps()

    def end(self, _task: object = None) -> None:
        """The task is over, though it may never have begun."""
        self.done, self.awaits = True, None
        self.close()

    @types.coroutine
    def _steps(self) -> Generator[Any, Any, Any]:
        send, throw = self.coroutine.send, self.coroutine.throw
        error: BaseException | None = None
        while True:
            self.awaits = None
            try:
                if self.process.world.hangs:
                    raise Blocked
                if not self.process.dead:
                    self.awaits = send(None) if error is None else throw(error)
            except StopIteration as end:
                if not self.process.dead:
                    return end.value
            except Blocked:  # the world tells of it
                self.close()
                raise asyncio.CancelledError from None
            except BaseException:
                if not self.process.dead:
                    raise
            if self.process.dead:
                self.close()
                raise asyncio.CancelledError
            try:
                error = None
                yield self.awaits
            except BaseException as thrown:  # noqa: BLE001  the coroutine's own affair
                error = thrown

    def close(self) -> None:
        """Unwind it. Errors of its `finally` blocks are dropped: they are those of a dead process."""
        for _ in range(_TRIES):
            with contextlib.suppress(BaseException):
                self.coroutine.close()
                return


@contextlib.contextmanager
def no_loop_runs() -> Iterator[None]:
    """Hide the event loop that the test runs in, if it does: handlers have none, or the world's."""
    outer = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)

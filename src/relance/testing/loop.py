"""The event loop of a world: its time is a clock's, and what reaches out of the world is told of.

Promise: nothing waits in real time but for what `Outside` says, and nothing runs before it is due.
"""

from __future__ import annotations

import asyncio
import contextvars
import selectors
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple, Unpack

from relance.testing.clock import VirtualClock
from relance.testing.outside import Outside
from relance.testing.tasks import CALL, PROCESS, Crash, Stepped, no_loop_runs

__all__ = ["VirtualLoop"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is a clock's; `run_ready` runs what can run at this instant."""

    def __init__(self, clock: VirtualClock, outside: Outside) -> None:
        self._clock = clock
        self._outside = outside
        self._selector_of_ours = _Patience(outside)
        self._home = threading.get_ident()
        super().__init__(self._selector_of_ours)
        self._clock_resolution = 1e-9
        self.stepped: weakref.WeakKeyDictionary[asyncio.Task[Any], Stepped] = weakref.WeakKeyDictionary()
        """The tasks of processes."""
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]  # typeshed's Protocol is narrower
        self._selector_of_ours.own = len(self._selector_of_ours.get_map())

    def time(self) -> float:
        """The clock's, not the machine's."""
        return self._clock.now

    def run_ready(self) -> float | None:
        """Run all that can run now; in how many seconds the next timer is due, or None.

        Nothing happens between that and now, unless somebody calls in from outside.
        """
        self._home = threading.get_ident()
        self._selector_of_ours.idle = lambda: self.call_soon(self.stop)
        try:
            with no_loop_runs():
                self.run_forever()
        finally:
            self._selector_of_ours.idle = None
        return self._selector_of_ours.next_timer

    def kill(self, process: object) -> None:
        """End the tasks of a dead process, and let nothing of them run."""
        for task, stepped in list(self.stepped.items()):
            if stepped.process is process:
                task.cancel()
        self.run_ready()

    def end(self) -> None:
        """Cancel what still runs, let it end, and close."""
        for task in asyncio.all_tasks(self):
            task.cancel()
        self.create_task(self.shutdown_asyncgens())
        self.run_ready()
        # What a handler has left open; asyncio keeps it under this name.
        for transport in list(getattr(self, "_transports", {}).values()):
            transport.abort()
        self.run_ready()
        self.close()

    # -- what reaches out of the world --------------------------------------------------------------

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Have a thread do it, which takes real time; where that is not allowed, nothing is begun."""
        if not self._outside.real_io:
            self._outside.reached("a thread of an executor")
            return self.create_future()
        future = super().run_in_executor(executor, func, *args)
        self._outside.thread_works(future)
        return future

    async def subprocess_exec(self, *args: Any, **options: Any) -> Any:
        """Start a program, which takes real time; where that is not allowed, nothing is begun."""
        await self._no_program()
        return await super().subprocess_exec(*args, **options)

    async def subprocess_shell(self, *args: Any, **options: Any) -> Any:
        """Start a program, as `subprocess_exec`."""
        await self._no_program()
        return await super().subprocess_shell(*args, **options)

    async def _no_program(self) -> None:
        if not self._outside.real_io:
            self._outside.reached("a program")
            await self.create_future()

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Any thread: run `callback` on the loop. Where the world is gone, nothing happens."""
        if self.is_closed():
            return asyncio.Handle(callback, args, self, context)
        if threading.get_ident() != self._home:
            self._outside.called_in(threading.current_thread().name, args)
        return super().call_soon_threadsafe(callback, *args, context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Tell of an error that nobody has caught; the death of a process is none."""
        if not isinstance(context.get("exception"), Crash):
            super().call_exception_handler(context)

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, Any],
        *,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> asyncio.Task[Any]:
        process = PROCESS.get() if context is None else context.get(PROCESS, None)
        if process is None:
            return asyncio.Task(coroutine, loop=loop, context=context, **options)
        stepped = Stepped(coroutine, process)
        task = asyncio.Task(stepped.run(), loop=loop, context=context, **options)
        task.add_done_callback(stepped.end)
        self.stepped[task] = stepped
        call = CALL.get() if context is None else context.get(CALL, None)
        if call is not None:
            call.children.append(stepped)
        return task


class _Patience(selectors.DefaultSelector):
    """A selector that waits as long as `Outside` says, and then calls `idle` instead of waiting on."""

    idle: Callable[[], object] | None = None
    next_timer: float | None = None
    own = 0
    """How many descriptors are the loop's own."""

    def __init__(self, outside: Outside) -> None:
        super().__init__()
        self._outside = outside

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch a descriptor, which other programs write to."""
        self._outside.reached("a socket or pipe")
        return super().register(fileobj, events, data)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch a descriptor for something else."""
        self._outside.reached("a socket or pipe")
        return super().modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> Any:
        """The descriptors that are ready, perhaps after a wait for the outside."""
        found = super().select(0)
        if found or (timeout is not None and timeout <= 0) or self.idle is None:
            return found
        open_descriptors = len(self.get_map()) > self.own
        self._outside.alarm.waits = True
        try:
            while not found and (seconds := self._outside.patience(open_descriptors)) > 0:
                found = super().select(seconds)
        finally:
            self._outside.alarm.waits = False
        if not found:
            self.next_timer = timeout
            idle, self.idle = self.idle, None
            idle()
        return found

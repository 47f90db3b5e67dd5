"""Runs an async handler on an asyncio loop, up to `concurrency` records at once.

Promise: each run is handled by one persistent task, in order; a task that has nothing to do sleeps until
there is work, a retry is due or all stops. What is still running when its partition must go is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Protocol

from relance.engine.lanes import Run
from relance.forks import forgotten_by_children
from relance.runtime import Runtime
from relance.workers.cancellation import is_current
from relance.workers.turns import SLICE, Hold, Turns

__all__ = ["LoopCall", "LoopWorker"]

_MAX_RUN = 64
_ROUNDED = 0.0005  # seconds; loops like uvloop take the nearest millisecond, which may be too early


class LoopCall(Protocol):
    """How the records of a run are handled."""

    async def handle(self, run: Run, hold: Hold) -> bool:
        """Handle the run. False if it was given back already (a record waits, or all stops).

        `hold`: how long the task has kept the loop; a call that suspends by itself begins it anew.

        Raises CancelledError only if the task itself was cancelled.
        """


class LoopWorker:
    """`concurrency` tasks on the running loop. `fixed`: they take runs of that many records.

    Otherwise a task takes as many as it had the time for, the last time, or twice that.
    """

    def __init__(
        self,
        runtime: Runtime,
        call: LoopCall,
        concurrency: int,
        *,
        fixed: int | None = None,
    ) -> None:
        self._runtime = runtime
        self._call = call
        self._concurrency = concurrency
        self._fixed = fixed
        self._idle: list[asyncio.Future[None]] = []
        self._pumping = False
        self._tasks: dict[Run, asyncio.Task[None]] = {}
        self._timer: asyncio.Handle | None = None
        self._rings_at = 0.0  # on the monotonic clock, while there is a timer
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self) -> None:
        """Handle records until the runtime stops. Raises what ends the program, after giving all back."""
        self._loop = asyncio.get_running_loop()
        forgotten_by_children(self.forget)
        turns = Turns(self._loop)
        self._runtime.on_work = self._work_from_any_thread
        self._runtime.on_abandon = self._abandon
        try:
            async with asyncio.TaskGroup() as group:
                for i in range(self._concurrency):
                    group.create_task(self._work(Hold(turns)), name=f"relance-worker-{i}")
            if not self._runtime.stopping:  # a group takes a task that is cancelled for one that has ended
                raise RuntimeError("all workers were cancelled from outside, and nothing stops")
        finally:
            self._runtime.on_work = lambda: None
            if self._timer is not None:
                self._timer.cancel()

    def forget(self) -> None:
        """In a forked child: end its copy of the loop, whose descriptors are the parent's, too."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.stop()

    # -- waking ------------------------------------------------------------------------------------

    def _work_from_any_thread(self) -> None:
        # Also when no task is idle: one may be between finding nothing and going to sleep.
        loop = self._loop
        if not self._pumping and loop is not None and not loop.is_closed():
            self._pumping = True
            with contextlib.suppress(RuntimeError):  # closed since: nobody is left to be woken
                loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._pumping = False
        if self._runtime.stopping:
            idle, self._idle = self._idle, []
            for future in idle:
                if not future.done():
                    future.set_result(None)
            return
        self._wake_one()

    def _wake_one(self) -> None:
        # One at a time: whoever finds work wakes the next before it starts, so none wakes for nothing.
        while self._idle:
            future = self._idle.pop()
            if not future.done():
                future.set_result(None)
                return

    async def _sleep(self) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._idle.append(future)
        left = self._runtime.due_in()
        if left is not None:
            self._wake_in(left)
        await future

    def _wake_in(self, seconds: float) -> None:
        # What uvloop calls later need not be a timer, and its clock stands still in a turn: we keep our own.
        when = time.monotonic() + seconds
        if self._timer is not None:
            if self._rings_at <= when:
                return
            self._timer.cancel()
        self._rings_at = when
        loop = asyncio.get_running_loop()
        exact = isinstance(loop, asyncio.BaseEventLoop)
        self._timer = loop.call_later(seconds if exact else seconds + _ROUNDED, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._wake()

    # -- working -----------------------------------------------------------------------------------

    async def _work(self, hold: Hold) -> None:
        runtime = self._runtime
        task = asyncio.current_task()
        assert task is not None
        done: Run | None = None
        most = self._fixed or 1
        try:
            while True:
                run = runtime.next(done, most, wait=False)
                done = None
                if run is None:
                    if runtime.stopping:
                        return
                    await self._sleep()
                    continue
                if self._idle:
                    self._wake_one()
                if hold.suspended():
                    hold.begin(time.perf_counter())
                self._tasks[run] = task
                try:
                    if await self._call.handle(run, hold):
                        done = run
                        if self._fixed is None:
                            # What a run has no time for is carried back and forth for nothing.
                            most = min(2 * run.done, _MAX_RUN) if run.done == most else max(1, run.done)
                except asyncio.CancelledError:
                    run.seal()
                    runtime.give_back(run)
                    # Abandoned by us, the task goes on with other runs, unless somebody else cancels it too.
                    if run in self._tasks or task.cancelling() > 1:
                        raise
                except BaseException as error:
                    if not (runtime.of_the_handler(error) and is_current(task)):
                        runtime.give_back(run)
                        raise
                    if task.cancelling() == 0:
                        runtime.ended_by(run, error)
                    else:  # what the handler makes of its cancellation
                        runtime.give_back(run)
                        if run in self._tasks or task.cancelling() > 1:
                            raise asyncio.CancelledError from error
                finally:
                    if self._tasks.pop(run, None) is None:
                        task.uncancel()
                if not hold.suspended() and time.perf_counter() - hold.since > SLICE:
                    if done is not None:  # what others do meanwhile is not its time
                        runtime.give_back(done)
                        done = None
                    await asyncio.sleep(0)
        finally:
            if done is not None:
                runtime.give_back(done)

    def _abandon(self, run: Run) -> None:
        """Any thread: the run's partition is going, or all stops; its record stays uncommitted."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            with contextlib.suppress(RuntimeError):  # closed since: nothing runs any more
                loop.call_soon_threadsafe(self._cancel, run)

    def _cancel(self, run: Run) -> None:
        task = self._tasks.pop(run, None)
        if task is not None:
            task.cancel()

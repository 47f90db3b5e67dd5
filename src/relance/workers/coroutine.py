"""Calls an async handler for the records of a run, in order, within the task of the worker.

Promise: what comes out of a handler is a failure of its record, also a CancelledError of its own making; only
the cancellation of the worker's task goes on as such. A deadline cancels the handler, not the task.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import Any

from relance.decoding import Decoding, HandlerShape
from relance.engine.lanes import Run
from relance.errors import Fatal, HandlerTimeoutError, HandlerWord
from relance.record import SEALED
from relance.runtime import Runtime
from relance.workers.answer import Returned
from relance.workers.batch import Attempt, Batch, next_of
from relance.workers.cancellation import is_current, not_by_us
from relance.workers.turns import SLICE, Hold

__all__ = ["CoroutineBatchCall", "CoroutineCall", "really_async"]

_LONGEST = 1.0  # seconds of a run, come what may: figures and a record that must be alone wait for its end
_LONG = 0.02  # seconds of a run: then other lanes, and retries that fell due, have their turn if they wait


class CoroutineCall:
    """`handler(value)` or `handler(value, record)`; `timeout` in seconds, for each record."""

    def __init__(
        self,
        runtime: Runtime,
        handler: Callable[..., Coroutine[Any, Any, Any]],
        shape: HandlerShape,
        decoding: Decoding,
        timeout: float | None = None,
    ) -> None:
        self._runtime = runtime
        self._handler = _awaitable(handler, shape.name, timeout)
        self._returned = Returned(shape.name)
        self._shape = shape
        self._decoding = decoding

    async def handle(self, run: Run, hold: Hold) -> bool:
        """Handle the run, for some milliseconds if others wait. False if it was given back already."""
        decoding, handler, with_record = self._decoding, self._handler, self._shape.takes_record
        decode, decode_errors = decoding.decode, decoding.errors
        records, now = run.records, time.perf_counter
        began = now()
        look, until = began + SLICE, began + _LONG
        i = run.done
        records[i].unseal()  # the only one that may have been with a handler before
        while i < len(records) and not run.cancelled:
            record = records[i]
            try:
                value = decode(record.message.value())
            except decode_errors as error:
                if not self._runtime.failed(run, record, decoding.as_error(error, record.raw)):
                    return False
            else:
                try:
                    answer = await (handler(value, record) if with_record else handler(value))
                    if answer is not None:
                        self._returned.look(answer)
                except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  the policy judges it
                    if not self._runtime.failed(run, record, _as_failure(error, run)):
                        return False
                else:
                    if record.outbox is not None:
                        self._runtime.returned(run, record)
                    elif with_record:
                        record.outbox = SEALED
            i += 1
            run.done = i
            if (at := now()) > look:
                if at > until:
                    if i < len(records) and (at - began > _LONGEST or self._runtime.others_wait()):
                        return True
                    until = at + _LONG
                if hold.suspended():
                    hold.begin(at)
                elif at - hold.since > _LONG and i < len(records):
                    await asyncio.sleep(0)  # the handler may never suspend
                    hold.begin(now())
                look = now() + SLICE
        return True


class CoroutineBatchCall(Batch):
    """`handler(values)` or `handler(values, records)`; `timeout` in seconds, for each call."""

    def __init__(
        self,
        runtime: Runtime,
        handler: Callable[..., Coroutine[Any, Any, Any]],
        shape: HandlerShape,
        decoding: Decoding,
        timeout: float | None = None,
    ) -> None:
        super().__init__(runtime, _awaitable(handler, shape.name, timeout), shape, decoding)

    async def handle(self, run: Run, _hold: Hold) -> bool:
        """Handle the whole run. False if it was given back already."""
        attempt = Attempt()
        asks = self.asks(run, attempt)
        error: BaseException | None = None
        task = asyncio.current_task()
        try:
            while (found := next_of(asks, error)) is not None:
                error = None
                try:
                    if (answer := await self.call(found)) is not None:
                        self._returned.look(answer)
                except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001  the policy judges it
                    error = _as_failure(raised, run)
                except BaseException as raised:
                    if task is None or not is_current(task) or task.cancelling() > 0:
                        raise
                    if not self._runtime.of_the_handler(raised):
                        raise
                    error = raised  # which of them it was is found out one by one
        except BaseException:  # the end of the program, or our task is cancelled
            self.keep(run, attempt)
            raise
        return self.settle(run, attempt)


def _awaitable(
    handler: Callable[..., Any], name: str, timeout: float | None
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """The handler as it is awaited: async in truth, and within its deadline if it has one."""
    really = really_async(handler, name)
    return really if timeout is None else _within(timeout, really, name)


def really_async(handler: Callable[..., Any], name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    """`handler`, or what awaits its answer where it is a sync wrapper around an async one."""
    return handler if inspect.iscoroutinefunction(handler) else _wrapped(handler, name)


def _wrapped(handler: Callable[..., Any], name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    """What a sync wrapper calls itself by functools.wraps, it must also be."""

    async def call(*given: Any) -> Any:
        answer = handler(*given)
        if not inspect.isawaitable(answer):
            raise Fatal(
                f"handler {name} is wrapped by a function that is not async and returned"
                f" {type(answer).__name__}, nothing to await: let the wrapper be async, or return what it"
                " wraps"
            )
        return await answer

    return call


def _within(
    seconds: float, handler: Callable[..., Coroutine[Any, Any, Any]], name: str
) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def call(*given: Any) -> Any:
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                return await handler(*given)
        except Exception as error:
            # Also what a library makes of the cancellation; but a word of the handler's own stands.
            if scope.expired() and not isinstance(error, HandlerWord):
                raise HandlerTimeoutError(name, seconds) from error
            raise

    return call


def _as_failure(error: Exception | asyncio.CancelledError, run: Run) -> Exception:
    """What the policy judges. Raises the cancellation of our own task, which is no failure of the record."""
    task = asyncio.current_task()
    ours = task is None or task.cancelling() > 0
    if isinstance(error, Exception):
        if ours and run.cancelled:  # given up at a deadline, whatever the handler made of its cancellation
            raise asyncio.CancelledError from error
        return error
    if ours:
        raise error
    return not_by_us(error)

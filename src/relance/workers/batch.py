"""Calls a handler with many records at once, and finds out which of them failed.

Promises: a record counts as handled if a call that held it returned, or raised a BatchError that does not
name it. A call that fails without naming anybody is repeated record by record, so that one poison record
neither takes its neighbours along nor uses up their attempts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

from relance.decoding import Decoding, HandlerShape
from relance.engine.lanes import Run
from relance.errors import BatchError
from relance.record import Record
from relance.runtime import Runtime
from relance.workers.cancellation import not_by_us

__all__ = ["Batch", "BatchCall"]

_Found = list[tuple[Any, Record]]
_Ask = Generator[_Found, Exception | None, tuple[list[Record], list[tuple[Record, Exception]]]]


class Batch:
    """What sync and async batches have in common: who is called with what, and what becomes of each."""

    def __init__(
        self, runtime: Runtime, handler: Callable[..., Any], shape: HandlerShape, decoding: Decoding
    ) -> None:
        self._runtime = runtime
        self._handler = handler
        self._shape = shape
        self._decoding = decoding

    def call(self, found: _Found) -> Any:
        """Call the handler; a coroutine if it is async."""
        values, records = [value for value, _ in found], [record for _, record in found]
        return self._handler(values, records) if self._shape.takes_record else self._handler(values)

    def attempt(self, run: Run) -> _Ask:
        """Yields what to call the handler with and is sent what that raised; who is handled, who failed."""
        decode, decode_errors = self._decoding.decode, self._decoding.errors
        found: _Found = []
        good: list[Record] = []
        bad: list[tuple[Record, Exception]] = []
        for record in run.records[run.done :]:
            try:
                found.append((decode(record.raw), record))
            except decode_errors as problem:
                bad.append((record, self._decoding.as_error(problem, record.raw)))
        raised = (yield found) if found else None
        if raised is None:
            good = [record for _, record in found]
            self._runtime.called(run, good, ())
        elif isinstance(raised, BatchError) and raised.errors.keys() <= set(range(len(found))):
            good = [record for i, (_, record) in enumerate(found) if i not in raised.errors]
            named = [(found[i][1], one) for i, one in raised.errors.items()]
            self._runtime.called(run, good, named)
            bad += named
        elif len(found) == 1:
            bad.append((found[0][1], raised))
        else:
            for _, record in found:
                record.outbox = None
            self._runtime.began(run)
            for one in found:
                if run.cancelled:
                    break
                alone = yield [one]
                if alone is None:
                    good.append(one[1])
                    goes_on = self._runtime.called(run, [one[1]], ())
                else:
                    bad.append((one[1], _of_one(alone)))
                    goes_on = self._runtime.called(run, (), bad[-1:])
                if not goes_on:
                    break
        return good, sorted(bad, key=lambda failed: failed[0].log_offset)

    def settle(self, run: Run, good: list[Record], bad: list[tuple[Record, Exception]]) -> bool:
        """False if the run was given back already (a record waits, or all stops)."""
        run.reorder([*good, *(record for record, _ in bad)])
        for record in good:
            if record.outbox is not None:
                self._runtime.returned(run, record)
            run.done += 1
        for record, error in bad:
            if not self._runtime.failed(run, record, error):
                return False
            run.done += 1
        return True


class BatchCall(Batch):
    """`handler(values)` or `handler(values, records)`, sync."""

    def handle(self, run: Run, until: float) -> bool:
        """Handle the whole run. False if it was given back already."""
        asks = self.attempt(run)
        error: Exception | None = None
        while True:
            try:
                found = asks.send(error)
            except StopIteration as answer:
                return self.settle(run, *answer.value)
            try:
                self.call(found)
                error = None
            except asyncio.CancelledError as cancelled:
                error = not_by_us(cancelled)
            except Exception as raised:  # noqa: BLE001  the policy judges it
                error = raised


def _of_one(error: Exception) -> Exception:
    """What a call with one record says of it."""
    if isinstance(error, BatchError) and list(error.errors) == [0]:
        return error.errors[0]
    return error

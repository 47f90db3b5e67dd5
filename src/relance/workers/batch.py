"""Calls a handler with many records at once, and finds out which of them failed.

Promises: a record counts as handled if a call that held it returned, or raised a BatchError that does not
name it. A call that fails without naming anybody is repeated record by record, so that one poison record
neither takes its neighbours along nor uses up their attempts; where there is order, as far as the first that
fails again, since who stands behind must wait for what becomes of it. What ends the handling midway takes
back nothing that was handled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

from relance.decoding import Decoding, HandlerShape
from relance.engine.lanes import Run
from relance.errors import BatchError
from relance.policies.classify import classify
from relance.record import SEALED, Record
from relance.runtime import Runtime
from relance.text import shown
from relance.workers.answer import Returned
from relance.workers.cancellation import not_by_us

__all__ = ["Attempt", "Batch", "BatchCall", "next_of"]

_Found = list[tuple[Any, Record]]
_Asks = Generator[_Found, BaseException | None, None]


class Attempt:
    """One run on its way through the handler: who is handled, who failed with what."""

    def __init__(self) -> None:
        self.good: list[Record] = []
        self.bad: list[tuple[Record, Exception]] = []
        self.ended: Record | None = None
        """The one whose handler raised what ends the process."""


class Batch:
    """What sync and async batches have in common: the records of each call, and what becomes of them."""

    def __init__(
        self,
        runtime: Runtime,
        handler: Callable[..., Any],
        shape: HandlerShape,
        decoding: Decoding,
        returned: Returned | None = None,
    ) -> None:
        self._runtime = runtime
        self._returned = returned or Returned(shape.name)
        self._handler = handler
        self._shape = shape
        self._decoding = decoding

    def call(self, found: _Found) -> Any:
        """Call the handler; a coroutine if it is async."""
        values, records = [value for value, _ in found], [record for _, record in found]
        return self._handler(values, records) if self._shape.takes_record else self._handler(values)

    def asks(self, run: Run, attempt: Attempt) -> _Asks:
        """Yields what to call the handler with, and is sent what that raised."""
        found = self._decoded(run, attempt)
        if not found or run.cancelled:
            return
        raised = _named(found, (yield found))
        if raised is None:
            attempt.good.extend(record for _, record in found)
            self._runtime.called(run, attempt.good, ())
        elif isinstance(raised, BatchError):
            attempt.good.extend(record for i, (_, record) in enumerate(found) if i not in raised.errors)
            named = [(found[i][1], _judgeable(one)) for i, one in raised.errors.items()]
            attempt.bad.extend(named)
            self._runtime.called(run, attempt.good, named)
        elif len(found) == 1 and not isinstance(raised, Exception):
            attempt.ended = found[0][1]
            raise raised
        elif isinstance(raised, Exception) and (len(found) == 1 or self._ends_all(raised)):
            attempt.bad.append((found[0][1], raised))
        else:
            yield from self._one_by_one(found, run, attempt)

    def keep(self, run: Run, attempt: Attempt) -> None:
        """What is handled so far is handled, although the run is not at its end; `attempt.ended` is next."""
        run.reorder(attempt.good)
        for record in attempt.good:
            if record.outbox is not None:
                self._runtime.returned(run, record)
            record.outbox = SEALED
            run.done += 1
        if attempt.ended is not None:
            run.reorder([attempt.ended])

    def settle(self, run: Run, attempt: Attempt) -> bool:
        """False if the run was given back already (a record waits, or all stops)."""
        self.keep(run, attempt)
        bad = sorted(attempt.bad, key=lambda failed: failed[0].log_offset)
        return not bad or self._runtime.failed_together(run, bad)

    def _decoded(self, run: Run, attempt: Attempt) -> _Found:
        decode, decode_errors = self._decoding.decode, self._decoding.errors
        found: _Found = []
        for record in run.records[run.done :]:
            record.unseal()
            try:
                found.append((decode(record.message.value()), record))
            except decode_errors as problem:
                attempt.bad.append((record, self._decoding.as_error(problem, record.raw)))
        return found

    def _one_by_one(self, found: _Found, run: Run, attempt: Attempt) -> _Asks:
        for _, record in found:
            record.outbox = SEALED
        for one in found:
            if run.cancelled:
                return
            one[1].unseal()
            self._runtime.began(run)
            raised = _named([one], (yield [one]))
            if isinstance(raised, BatchError):
                raised = _judgeable(raised.errors[0])
            if raised is None:
                attempt.good.append(one[1])
                goes_on = self._runtime.called(run, [one[1]], ())
            elif not isinstance(raised, Exception):
                attempt.ended = one[1]
                raise raised
            else:
                attempt.bad.append((one[1], raised))
                goes_on = self._runtime.called(run, (), attempt.bad[-1:])
                goes_on = goes_on and not run.lane.keyed and not self._ends_all(raised)
            if not goes_on:
                return

    def _ends_all(self, error: Exception) -> bool:
        """Whether no record can succeed now: then no other is tried."""
        return classify(error, self._runtime.plan.retry).fatal


class BatchCall(Batch):
    """`handler(values)` or `handler(values, records)`, sync."""

    def handle(self, run: Run, until: float) -> bool:
        """Handle the whole run. False if it was given back already."""
        attempt = Attempt()
        asks = self.asks(run, attempt)
        error: BaseException | None = None
        try:
            while (found := next_of(asks, error)) is not None:
                error = None
                try:
                    if (answer := self.call(found)) is not None:
                        self._returned.look(answer)
                except asyncio.CancelledError as cancelled:
                    error = not_by_us(cancelled)
                except Exception as raised:  # noqa: BLE001  the policy judges it
                    error = raised
                except BaseException as raised:
                    if not self._runtime.of_the_handler(raised):
                        raise
                    error = raised  # which of them it was is found out one by one
        except BaseException:  # the end of the program
            self.keep(run, attempt)
            raise
        return self.settle(run, attempt)


def next_of(asks: _Asks, error: BaseException | None) -> _Found | None:
    """What to call the handler with next, after `error`; None at the end."""
    try:
        return asks.send(error)
    except StopIteration:
        return None


def _named(found: _Found, raised: BaseException | None) -> BaseException | None:
    """What a call raised: a BatchError only if it names some of `found`, None if it names nobody."""
    if not isinstance(raised, BatchError):
        return raised
    if not raised.errors:
        return None
    keys: list[object] = list(raised.errors)  # whatever a handler takes for them
    strange = [key for key in keys if not hasattr(key, "__index__") or key not in range(len(found))]
    if not strange:
        return raised
    wrong = RuntimeError(
        f"the handler's BatchError names {', '.join(shown(key, 40) for key in strange[:5])}, but its keys are"
        f" places in the list of {len(found)} that the handler was given, from 0 on"
    )
    wrong.__cause__ = _judgeable(next(iter(raised.errors.values())))
    return wrong


def _judgeable(error: object) -> Exception:
    """What a BatchError names: `asyncio.gather(..., return_exceptions=True)` also returns what is none."""
    if isinstance(error, Exception):
        return error
    if isinstance(error, asyncio.CancelledError):
        return not_by_us(error)
    return RuntimeError(f"the handler's BatchError names no exception but {shown(error)}")

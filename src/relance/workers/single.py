"""Calls a sync handler for the records of a run, one after the other, on the thread of the worker.

Promise: when a run is cancelled, no other record of it starts, so a revocation waits for one record at
most; and a run is kept to some milliseconds, so that a retry which falls due is not late. To look at the
clock costs as much as a small handler: in a long run, which is made of records that took microseconds (see
`inline`), it is done after every sixteenth. There, dead letters are written when the run is over: the code
that makes one is long, and runs twice as fast when it is still in the caches from the last one (measured).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from relance.decoding import Decoding, HandlerShape
from relance.engine.lanes import Run
from relance.record import SEALED, Record
from relance.runtime import Runtime
from relance.workers.answer import Returned
from relance.workers.cancellation import not_by_us

__all__ = ["SingleCall"]

_LONG_RUN = 64  # records; a run is so long only where these took less than 2 ms together
_STRIDE = 16  # records of a long run that are handled between two looks


class SingleCall:
    """`handler(value)` or `handler(value, record)`."""

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
        self._decoding = decoding
        self._handler = handler
        self._shape = shape

    def handle(self, run: Run, until: float) -> bool:
        """Handle the run until it ends or the clock says `until`. False if it was given back already."""
        now = time.perf_counter
        decoding, handler, with_record = self._decoding, self._handler, self._shape.takes_record
        decode, decode_errors = decoding.decode, decoding.errors
        records, returned = run.records, self._returned
        begin = first = run.done
        records[begin].unseal()  # the only one that may have been with a handler before
        stride, sealed = 1, SEALED
        if len(records) - begin > _LONG_RUN:
            stride, run.letters = _STRIDE, []
        record: Record | None = None
        try:
            for first in range(begin, len(records), stride):
                record = None
                for record in run.next_up(first, stride):
                    try:
                        value = decode(record.message.value())
                    except decode_errors as problem:
                        error: Exception = decoding.as_error(problem, record.raw)
                    else:
                        try:
                            answer = handler(value, record) if with_record else handler(value)
                            if answer is not None:
                                returned.look(answer)
                        except asyncio.CancelledError as problem:
                            error = not_by_us(problem)
                        except Exception as problem:  # noqa: BLE001  whatever it is, the policy judges it
                            error = problem
                        else:
                            if record.outbox is not None:
                                run.done = run.place(record, first)
                                self._runtime.returned(run, record)
                            elif with_record:
                                record.outbox = sealed
                            continue
                    run.done = run.place(record, first)
                    if not self._runtime.failed(run, record, error):
                        return False
                    del error  # it refers to this frame
                    if now() > until:
                        break
                else:
                    if not run.cancelled:
                        run.done = min(first + stride, len(records))
                        if now() > until:
                            return True
                        continue
                run.done = first if record is None else run.place(record, first) + 1
                return True
            return True
        except BaseException:  # the program ends: what is in hand is not done
            run.done = first if record is None else run.place(record, first)
            raise
        finally:
            if run.letters:
                self._runtime.write_letters(run)

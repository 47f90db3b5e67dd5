"""Calls a sync handler for the records of a run, one after the other, on the thread of the worker.

Promise: between two records it looks whether the run was cancelled, so a revocation waits for one record at
most, and a run is kept to some milliseconds, so that a retry which falls due is not late. A long run is made
of records that took microseconds (see `inline`): there it looks after every fourth.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from relance.decoding import Decoding, HandlerShape
from relance.engine.lanes import Run
from relance.runtime import Runtime
from relance.workers.cancellation import not_by_us

__all__ = ["SingleCall"]

_LONG_RUN = 64  # records; a run is so long only where these took less than 2 ms together


class SingleCall:
    """`handler(value)` or `handler(value, record)`."""

    def __init__(
        self, runtime: Runtime, handler: Callable[..., Any], shape: HandlerShape, decoding: Decoding
    ) -> None:
        self._runtime = runtime
        self._decoding = decoding
        self._handler = handler
        self._shape = shape

    def handle(self, run: Run, until: float) -> bool:
        """Handle the run until it ends or the clock says `until`. False if it was given back already."""
        now = time.perf_counter
        decoding, handler, with_record = self._decoding, self._handler, self._shape.takes_record
        decode, decode_errors = decoding.decode, decoding.errors
        i = run.done
        # To look costs as much as a small handler.
        seldom = 3 if len(run.records) - i > _LONG_RUN else 0
        records = [] if run.cancelled else run.records[i:]
        try:
            for record in records:
                try:
                    value = decode(record.raw)
                except decode_errors as error:
                    run.done = i
                    if not self._runtime.failed(run, record, decoding.as_error(error, record.raw)):
                        return False
                else:
                    try:
                        if with_record:
                            handler(value, record)
                        else:
                            handler(value)
                    except asyncio.CancelledError as error:
                        run.done = i
                        if not self._runtime.failed(run, record, not_by_us(error)):
                            return False
                    except Exception as error:  # noqa: BLE001  whatever a handler raises is judged by the policy
                        run.done = i
                        if not self._runtime.failed(run, record, error):
                            return False
                    else:
                        if record.outbox is not None:
                            run.done = i
                            self._runtime.returned(run, record)
                i += 1
                if not i & seldom:
                    run.done = i
                    if run.cancelled or now() > until:
                        return True
            return True
        finally:
            run.done = i

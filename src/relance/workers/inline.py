"""Runs a sync handler, one record at a time, on the thread that calls `run`.

Promise: between two records it looks whether the run was cancelled, so a revocation waits for one record at
most. A run is kept to some milliseconds of work, so that a retry which falls due is not late.
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

__all__ = ["InlineWorker"]

_SHORT, _LONG = 0.002, 0.008  # seconds of work in a run: below it grows, above it shrinks
_MAX_RUN = 512


class InlineWorker:
    """One thread's worth of handling."""

    def __init__(
        self, runtime: Runtime, handler: Callable[..., Any], shape: HandlerShape, decoding: Decoding
    ) -> None:
        self._runtime = runtime
        self._decoding = decoding
        self._handler = handler
        self._shape = shape
        self._max_run = 1

    def run(self) -> None:
        """Handle records until the runtime stops."""
        runtime = self._runtime
        done: Run | None = None
        while True:
            run = runtime.next(done, self._max_run, wait=True)
            if run is None:
                return
            started = time.perf_counter()
            try:
                given_back = not self._handle(run, started + _LONG)
            except BaseException:
                # The program ends (KeyboardInterrupt, SystemExit): nothing unfinished counts.
                runtime.give_back(run)
                raise
            done = None if given_back else run
            took = time.perf_counter() - started
            if took > _LONG:
                self._max_run = max(1, self._max_run // 2)
            elif took < _SHORT and run.done == self._max_run < _MAX_RUN:
                self._max_run *= 2

    def _handle(self, run: Run, until: float) -> bool:
        """False if the run was given back already (a record waits, or all stops)."""
        now = time.perf_counter
        decoding, handler, with_record = self._decoding, self._handler, self._shape.takes_record
        decode, decode_errors = decoding.decode, decoding.errors
        records = run.records
        i = run.done

        while i < len(records) and not run.cancelled:
            record = records[i]
            try:
                value = decode(record.raw)
            except decode_errors as error:
                if not self._runtime.failed(run, record, decoding.as_error(error, record.raw)):
                    return False
            else:
                try:
                    if with_record:
                        handler(value, record)
                    else:
                        handler(value)
                except asyncio.CancelledError as error:
                    if not self._runtime.failed(run, record, not_by_us(error)):
                        return False
                except Exception as error:  # noqa: BLE001  whatever a handler raises is judged by the policy
                    if not self._runtime.failed(run, record, error):
                        return False
                else:
                    if record.outbox is not None:
                        self._runtime.returned(run, record)
            i += 1
            run.done = i
            # Every fourth time: a look at the clock costs as much as a small handler.
            if not i & 3 and now() > until:
                return True
        return True

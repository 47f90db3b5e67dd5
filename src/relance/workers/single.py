"""Calls a sync handler for the records of a run, one after the other, on the thread of the worker.

Promise: between two records it looks whether the run was cancelled, so a revocation waits for one record at
most, and a run is kept to some milliseconds, so that a retry which falls due is not late.
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
        for record in run.records[i:]:
            if run.cancelled:
                return True
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

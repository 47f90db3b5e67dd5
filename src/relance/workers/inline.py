"""Takes runs from the runtime and has them handled, on the thread that calls `run`.

Promise: a run is kept to some milliseconds of work, whatever a handler takes: it grows while records are
quick and shrinks when they are not.
"""

from __future__ import annotations

import time
from typing import Protocol

from relance.engine.lanes import Run
from relance.runtime import Runtime

__all__ = ["Call", "InlineWorker"]

_SHORT, _LONG = 0.002, 0.008  # seconds of work in a run: below it grows, above it shrinks
_MAX_RUN = 1024  # records; what more of them hold is out of the cache before they are let go of


class Call(Protocol):
    """How the records of a run are handled."""

    def handle(self, run: Run, until: float) -> bool:
        """Handle the run until it ends or `perf_counter` says `until`. False if it was given back already."""


class InlineWorker:
    """One thread's worth of handling. `fixed`: take runs of that many records, however long they take."""

    def __init__(self, runtime: Runtime, call: Call, *, fixed: int | None = None) -> None:
        self._runtime = runtime
        self._call = call
        self._fixed = fixed is not None
        self._max_run = fixed or 1

    def run(self) -> None:
        """Handle records until the runtime stops."""
        runtime, handle = self._runtime, self._call.handle
        done: Run | None = None
        while True:
            run = runtime.next(done, self._max_run, wait=True)
            if run is None:
                return
            started = time.perf_counter()
            try:
                given_back = not handle(run, started + _LONG)
            except BaseException as error:
                if not runtime.of_the_handler(error):
                    # The program ends (a true Ctrl-C), or this worker: nothing unfinished counts.
                    runtime.give_back(run)
                    raise
                runtime.ended_by(run, error)
                given_back = True
            done = None if given_back else run
            if self._fixed:
                continue
            took = time.perf_counter() - started
            if took > _LONG:
                self._max_run = max(1, self._max_run // 2)
            elif took < _SHORT and run.done == self._max_run < _MAX_RUN:
                self._max_run *= 2

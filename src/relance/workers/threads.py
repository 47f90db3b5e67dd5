"""Runs sync handlers on several threads; each takes runs for itself, so lanes keep their order.

Promise: the first thread that ends with an error ends `run`, which raises that error; who called it stops the
runtime, and with it the other threads.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from relance.errors import RelanceError
from relance.runtime import Runtime
from relance.workers.inline import Call, InlineWorker

__all__ = ["ThreadsWorker"]


class ThreadsWorker:
    """`concurrency` threads, each with a call of its own from `make_call`."""

    def __init__(
        self, runtime: Runtime, make_call: Callable[[], Call], concurrency: int, *, fixed: int | None = None
    ) -> None:
        self._runtime = runtime
        self._make_call = make_call
        self._concurrency = concurrency
        self._fixed = fixed
        self._ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run(self) -> None:
        """Handle records until the runtime stops; raises what a thread ended with."""
        for i in range(self._concurrency):
            # Daemons: a handler that hangs must not keep the process from ending.
            worker = threading.Thread(
                target=self._work, args=(self._make_call(),), name=f"relance-worker-{i}", daemon=True
            )
            try:
                worker.start()
            except RuntimeError as problem:
                raise RelanceError(
                    f"thread {i + 1} of concurrency={self._concurrency} cannot be started: {problem}; lower"
                    " concurrency, or raise the limit of threads (ulimit -u)"
                ) from problem
        for _ in range(self._concurrency):
            error = self._ended.get()
            if error is not None:
                raise error

    def _work(self, call: Call) -> None:
        end: BaseException | None = None
        try:
            try:
                InlineWorker(self._runtime, call, fixed=self._fixed).run()
            finally:
                self._leave(call)
        except BaseException as error:  # noqa: BLE001  carried to the thread that waits in `run`
            end = error
        self._ended.put(end)

    def _leave(self, call: Call) -> None:
        """The thread of `call` ends."""

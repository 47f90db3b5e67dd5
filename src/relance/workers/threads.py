"""Runs sync handlers on several threads; each takes runs for itself, so lanes keep their order.

Promise: the first thread that ends with an error ends all, and `run` raises that error.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from relance.runtime import Runtime
from relance.workers.inline import Call, InlineWorker

__all__ = ["ThreadsWorker"]


class ThreadsWorker:
    """`concurrency` threads, each with a call of its own from `make_call`."""

    def __init__(
        self, runtime: Runtime, make_call: Callable[[], Call], concurrency: int, *, fixed: int | None = None
    ) -> None:
        self._runtime = runtime
        self._workers = [InlineWorker(runtime, make_call(), fixed=fixed) for _ in range(concurrency)]
        self._ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run(self) -> None:
        """Handle records until the runtime stops; raises what a thread ended with."""
        for i, worker in enumerate(self._workers):
            # Daemons: a handler that hangs must not keep the process from ending.
            threading.Thread(
                target=self._work, args=(worker,), name=f"relance-worker-{i}", daemon=True
            ).start()
        for _ in self._workers:
            error = self._ended.get()
            if error is not None:
                raise error

    def _work(self, worker: InlineWorker) -> None:
        try:
            worker.run()
        except BaseException as error:  # noqa: BLE001  carried to the thread that waits in `run`
            self._ended.put(error)
        else:
            self._ended.put(None)

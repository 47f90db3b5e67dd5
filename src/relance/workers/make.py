"""Which worker runs a consumer's handler."""

from __future__ import annotations

from relance.decoding import decoder_for
from relance.runtime import Runtime
from relance.spec import ConsumerSpec
from relance.workers.answer import Returned
from relance.workers.batch import BatchCall
from relance.workers.coroutine import CoroutineBatchCall, CoroutineCall
from relance.workers.inline import Call, InlineWorker
from relance.workers.loop import LoopCall, LoopWorker
from relance.workers.processes import ProcessesWorker
from relance.workers.single import SingleCall
from relance.workers.threads import ThreadsWorker

__all__ = ["BlockingWorker", "make_worker"]

BlockingWorker = InlineWorker | ThreadsWorker
"""What handles on the thread that calls its `run`, or on threads of its own."""


def make_worker(spec: ConsumerSpec, runtime: Runtime) -> BlockingWorker | LoopWorker:
    """The worker for `spec`. Raises SettingsError for a handler that a child process could not import."""
    handler, shape, timeout = spec.handler, spec.shape, spec.timeout
    decoding = decoder_for(shape.annotation)
    # With a deadline a run is one record (or one batch), so that its start is the handler's.
    fixed = spec.batch or (None if timeout is None else 1)
    if spec.workers == "loop":
        call: LoopCall
        if spec.batch is None:
            call = CoroutineCall(runtime, handler, shape, decoding, timeout)
        else:
            call = CoroutineBatchCall(runtime, handler, shape, decoding, timeout)
        return LoopWorker(runtime, call, spec.concurrency, fixed=fixed)
    if spec.workers == "processes":
        return ProcessesWorker(runtime, handler, shape, spec.concurrency, timeout)

    returned = Returned(shape.name)  # one for all threads: it is told once

    def make_call() -> Call:
        kind = SingleCall if spec.batch is None else BatchCall
        return kind(runtime, handler, shape, decoding, returned)

    if spec.workers == "threads":
        return ThreadsWorker(runtime, make_call, spec.concurrency, fixed=fixed)
    return InlineWorker(runtime, make_call(), fixed=fixed)

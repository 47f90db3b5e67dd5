"""Runs sync handlers in child processes: for work that needs the processor, and for handlers that may kill.

Promises: a record whose child dies has used up an attempt, nothing more, and the next record gets another
child; a handler past its deadline is ended with its child; what the children were doing when all stops is not
committed. A child that cannot even start is no record's fault: it ends the application. The children end when
this process does, however it ends.
"""

from __future__ import annotations

import atexit
import logging
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

from relance.decoding import HandlerShape
from relance.engine.lanes import Run
from relance.errors import HandlerTimeoutError, RelanceError, SettingsError, WorkerDiedError
from relance.forks import forgotten_by_children
from relance.outgoing import read_headers
from relance.record import Record
from relance.runtime import Runtime
from relance.workers.answer import Returned
from relance.workers.child import Child, ChildGoneError, ChildLateError
from relance.workers.inline import Call
from relance.workers.threads import ThreadsWorker
from relance.workers.travel import Answer, Sent, unpacked

__all__ = ["ProcessCall", "ProcessesWorker"]

_log = logging.getLogger("relance")

_AT_ONCE = 1_000_000  # bytes of values that a child is sent at a time, if it is more than one record
_GRACE = 0.5  # seconds for a child that has nothing to do to end by itself; the runner waits a second
_IDLE_DEATHS = 3  # in a row: then it is not chance


class _EndingError(Exception):
    """The worker ends: nothing is started any more, and what a child was at goes back."""


class ProcessesWorker(ThreadsWorker):
    """`concurrency` threads with a child process each."""

    def __init__(
        self,
        runtime: Runtime,
        handler: Callable[..., Any],
        shape: HandlerShape,
        concurrency: int,
        timeout: float | None,
    ) -> None:
        try:
            pickle.dumps(handler)
        except Exception as error:
            problem = f"a worker process cannot import it ({error}); define it at the top of a module"
            raise SettingsError(f"handler {shape.name}", problem) from error
        self._calls: list[ProcessCall] = []
        returned = Returned(shape.name)

        def make_call() -> ProcessCall:
            self._calls.append(ProcessCall(runtime, handler, shape, timeout, returned))
            return self._calls[-1]

        super().__init__(runtime, make_call, concurrency, fixed=None if timeout is None else 1)

    def forget(self) -> None:
        """In a forked child: the children are its parent's."""
        atexit.unregister(self._kill)
        for call in self._calls:
            call.forget()

    def run(self) -> None:
        """As the threads' `run`; the children end with it."""
        forgotten_by_children(self.forget)
        self._runtime.on_abandon = self._abandon
        # For a run on a thread that the end of the program does not wait for: multiprocessing would wait for
        # its children, also for one that hangs.
        atexit.register(self._kill)
        try:
            super().run()
        finally:
            self._kill()
            atexit.unregister(self._kill)

    def _leave(self, call: Call) -> None:
        assert isinstance(call, ProcessCall)
        call.close(_GRACE)

    def _abandon(self, run: Run) -> None:
        for call in self._calls:
            call.abandon(run)

    def _kill(self) -> None:
        for call in self._calls:
            call.kill()


class ProcessCall:
    """The handler in one child, which is started when the first record comes."""

    def __init__(
        self,
        runtime: Runtime,
        handler: Callable[..., Any],
        shape: HandlerShape,
        timeout: float | None,
        returned: Returned,
    ) -> None:
        self._runtime = runtime
        self._returned = returned
        self._handler = handler
        self._name = shape.name
        self._with_record = shape.takes_record
        self._timeout = timeout
        self._lock = threading.Lock()  # between the thread that handles and those that abandon or kill
        self._child: Child | None = None
        self._run: Run | None = None
        self._abandoned = False
        self._ending = False
        self._idle_deaths = 0

    def handle(self, run: Run, until: float) -> bool:
        """Handle the run, as far as the child gets. False if it was given back already."""
        with self._lock:
            self._run, self._abandoned = run, False
        try:
            while run.done < len(run.records) and not run.cancelled:
                if not self._handle_some(run, until):
                    return False
                if time.perf_counter() > until:
                    break
            return True
        finally:
            with self._lock:
                self._run = None

    def abandon(self, run: Run) -> None:
        """End the child if it is at work on `run`; any thread may ask."""
        with self._lock:
            if self._run is run:
                self._abandoned = True
                if self._child is not None:
                    self._child.kill()

    def kill(self) -> None:
        """End the child, and let no other start; any thread may ask."""
        with self._lock:
            self._ending = True
            if self._child is not None:
                self._child.kill()

    def forget(self) -> None:
        """In a forked child: leave the worker process to the parent."""
        child, self._child = self._child, None
        if child is not None:
            child.forget()

    def close(self, grace: float = 0.0) -> int | None:
        """End the child, which may take `grace` seconds for it; its exit status."""
        with self._lock:
            child, self._child = self._child, None
        return None if child is None else child.end(grace)

    def _handle_some(self, run: Run, until: float) -> bool:
        """Until what was sent is done, the first failure, or the end of the time."""
        child = self._child or self._started()
        if child is None:
            return self._given_back(run)
        sent = self._some(run)
        self._runtime.began(run)  # the start of a child is not the handler's time
        record = run.records[run.done]
        taken = False
        try:
            child.send((until - time.perf_counter(), sent))
            child.receive(self._timeout)
            taken, self._idle_deaths = True, 0
            goes_on = True
            while goes_on:
                record = run.records[run.done]
                answer: Answer = child.receive(self._timeout)
                if answer.error is not None:
                    break
                if answer.returned is not None:
                    self._returned.tell(answer.returned)
                if answer.outbox is not None:
                    record.outbox = answer.outbox
                    self._runtime.returned(run, record)
                run.done += 1
                goes_on = answer.goes_on
            else:
                return True
            error = unpacked(answer.error)
        except ChildLateError:
            self.close()
            error = HandlerTimeoutError(self._name, self._timeout or 0.0)
        except ChildGoneError as gone:
            status = self.close(1.0)
            if self._abandoned or self._ending:
                return self._given_back(run)
            if not taken:
                return self._died_idle(status)
            error = WorkerDiedError(self._name, status)
            error.__cause__ = gone.__cause__
            _log.error("%s: %s at %s of %s", self._name, error.how, record.name, record.topic)
        if not self._runtime.failed(run, record, error):
            return False
        run.done += 1
        return True

    def _given_back(self, run: Run) -> bool:
        """Ended by us, as its partition goes or all stops: no failure of the record."""
        if self._ending:
            raise _EndingError
        self._runtime.give_back(run)
        return False

    def _died_idle(self, status: int | None) -> bool:
        """No record was at work in it, so none has failed; another child gets what this one was sent."""
        self._idle_deaths += 1
        died = WorkerDiedError(self._name, status)
        if self._idle_deaths == _IDLE_DEATHS:
            raise RelanceError(f"{self._name}: {died.how} between two records, {_IDLE_DEATHS} times in a row")
        _log.warning("%s: %s between two records; another one is started", self._name, died.how)
        return True

    def _started(self) -> Child | None:
        """A new child, ready. None if it is not wanted any more; RelanceError if it cannot start."""
        try:
            child = Child(self._handler)
        except OSError as error:
            raise RelanceError(f"{self._name}: its process cannot be started: {error}") from error
        with self._lock:
            self._child = child
            if self._abandoned or self._ending:
                child.kill()
        try:
            child.receive()
        except ChildGoneError as gone:
            died = WorkerDiedError(self._name, self.close(1.0))
            if self._abandoned or self._ending:
                return None
            raise RelanceError(
                f"{self._name}: {died.how} before the first record; what it printed says why"
            ) from gone
        return child

    def _some(self, run: Run) -> list[Sent]:
        """What is left of the run, as far as it should be on its way at once."""
        some: list[Sent] = []
        size = 0
        for i in range(run.done, len(run.records)):
            record = run.records[i]
            size += len(record.raw or b"")
            if some and size > _AT_ONCE:
                break
            some.append(self._sent(record))
        return some

    def _sent(self, record: Record) -> Sent:
        headers = read_headers(record) if self._with_record else []
        ms = record.timestamp_ms
        at = (1, -1 if ms is None else ms)
        return Sent(
            record.topic, record.partition, record.offset, record.key, record.raw, record.attempt, headers, at
        )

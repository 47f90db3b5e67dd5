"""Runs sync handlers in child processes: for work that needs the processor, and for handlers that may kill.

Promises: a record whose child dies has used up an attempt, nothing more, and the next record gets another
child; a handler past its deadline is ended with its child; what the children were doing when all stops is not
committed. The children end when this process does, however it ends.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import pickle
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple

from relance.decoding import HandlerShape, decoder_for, handler_shape
from relance.engine.lanes import Run
from relance.errors import HandlerTimeoutError, RelanceError, SettingsError, WorkerDiedError
from relance.outgoing import read_headers
from relance.record import HeaderList, Outgoing, Record
from relance.runtime import Runtime
from relance.workers.threads import ThreadsWorker

__all__ = ["ProcessCall", "ProcessesWorker"]

_log = logging.getLogger("relance")


class _Sent(NamedTuple):
    """A record as it travels to a child; also its message there."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    raw: bytes | None
    attempt: int
    own_headers: HeaderList
    at: tuple[int, int]

    def headers(self) -> HeaderList:
        return self.own_headers

    def timestamp(self) -> tuple[int, int]:
        return self.at


class _Answer(NamedTuple):
    """How one record went."""

    error: bytes | None
    """The pickled exception, or None."""
    outbox: list[Outgoing] | None


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

        def make_call() -> ProcessCall:
            self._calls.append(ProcessCall(runtime, handler, shape, timeout))
            return self._calls[-1]

        super().__init__(runtime, make_call, concurrency, fixed=None if timeout is None else 1)

    def run(self) -> None:
        """As the threads' `run`; the children end with it."""
        self._runtime.on_abandon = self._abandon
        try:
            super().run()
        finally:
            for call in self._calls:
                call.close()

    def _abandon(self, run: Run) -> None:
        for call in self._calls:
            call.abandon(run)


class ProcessCall:
    """The handler in one child, which is started when the first record comes."""

    def __init__(
        self, runtime: Runtime, handler: Callable[..., Any], shape: HandlerShape, timeout: float | None
    ) -> None:
        self._runtime = runtime
        self._handler = handler
        self._name = shape.name
        self._with_record = shape.takes_record
        self._timeout = timeout
        self._child: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._run: Run | None = None

    def handle(self, run: Run, until: float) -> bool:
        """Handle the run, as far as the child gets. False if it was given back already."""
        self._run = run
        try:
            while run.done < len(run.records) and not run.cancelled:
                if not self._handle_some(run):
                    return False
                if time.perf_counter() > until:
                    break
            return True
        finally:
            self._run = None

    def abandon(self, run: Run) -> None:
        """End the child if it is at work on `run`; any thread may ask."""
        child = self._child
        if self._run is run and child is not None:
            child.kill()

    def close(self) -> None:
        """End the child."""
        if self._pipe is not None:
            self._pipe.close()
        if self._child is not None:
            self._child.kill()
            self._child.join()
        self._child = self._pipe = None

    def _handle_some(self, run: Run) -> bool:
        """Until the run's end or the first failure; the child stops there, too."""
        records = run.records[run.done :]
        try:
            new = self._pipe is None
            pipe = self._connected()
            if new:
                self._runtime.began(run)
            pipe.send([self._sent(record) for record in records])
            for record in records:
                if not pipe.poll(self._timeout):
                    self.close()
                    return self._failed(run, record, HandlerTimeoutError(self._name, self._timeout or 0.0))
                answer: _Answer = pipe.recv()
                if answer.error is not None:
                    return self._failed(run, record, _loaded(answer.error))
                if answer.outbox is not None:
                    record.outbox = answer.outbox
                    self._runtime.returned(run, record)
                run.done += 1
        except (EOFError, ConnectionError) as error:
            code = self._ended()
            if run.cancelled:  # ended by us, as its partition goes or all stops: no failure of the record
                self._runtime.give_back(run)
                return False
            _log.error("%s: its process ended with %s", self._name, code)
            died = WorkerDiedError(self._name, code)
            died.__cause__ = error
            return self._failed(run, run.records[run.done], died)
        return True

    def _failed(self, run: Run, record: Record, error: Exception) -> bool:
        if not self._runtime.failed(run, record, error):
            return False
        run.done += 1
        return True

    def _connected(self) -> Connection:
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._child = context.Process(target=_serve, args=(theirs, self._handler), daemon=True)
            self._child.start()
            theirs.close()  # so that the child's end is the only one: its death closes the pipe
            try:
                self._pipe.recv()  # it says when it is ready
            except (EOFError, ConnectionError) as error:
                raise RelanceError(
                    f"{self._name}: its process ended with {self._ended()} before the first record;"
                    " what it printed says why"
                ) from error
        return self._pipe

    def _ended(self) -> int | None:
        child = self._child
        if child is not None:
            child.join(1.0)
        code = None if child is None else child.exitcode
        self.close()
        return code

    def _sent(self, record: Record) -> _Sent:
        headers = (read_headers(record) or []) if self._with_record else []
        ms = record.timestamp_ms
        at = (1, -1 if ms is None else ms)
        return _Sent(
            record.topic, record.partition, record.offset, record.key, record.raw, record.attempt, headers, at
        )


def _serve(pipe: Connection, handler: Callable[..., Any]) -> None:
    """What a child does: handle records until the pipe ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent decides when we end
        signal.signal(number, signal.SIG_IGN)
    shape = handler_shape(handler)
    decoding = decoder_for(shape.annotation)
    with contextlib.suppress(EOFError, ConnectionError):
        pipe.send(None)
        while True:
            for sent in pipe.recv():
                answer = _handle_one(sent, handler, shape, decoding)
                pipe.send(answer)
                if answer.error is not None:
                    break


def _handle_one(sent: _Sent, handler: Callable[..., Any], shape: HandlerShape, decoding: Any) -> _Answer:
    record = Record(
        sent.topic, sent.partition, sent.offset, sent.key, sent.raw, sent, sent.offset, sent.attempt
    )
    try:
        try:
            value = decoding.decode(sent.raw)
        except decoding.errors as error:
            raise decoding.as_error(error, sent.raw) from error
        if shape.takes_record:
            handler(value, record)
        else:
            handler(value)
    except Exception as error:  # noqa: BLE001  whatever a handler raises is judged by the policy, at home
        return _Answer(_dumped(error), None)
    return _Answer(None, record.outbox)


def _dumped(error: Exception) -> bytes:
    """The exception with its traceback as a note; another in its place if it doesn't survive the journey."""
    with contextlib.suppress(Exception):
        error.add_note("in the worker process:\n" + "".join(traceback.format_exception(error)))
    try:
        raw = pickle.dumps(error)
        pickle.loads(raw)
    except Exception:  # noqa: BLE001  a user's exception may hold anything
        stand_in = RuntimeError(f"{type(error).__name__}: {_text(error)} (it cannot be pickled)")
        stand_in.__notes__ = list(getattr(error, "__notes__", []))
        return pickle.dumps(stand_in)
    return raw


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception as problem:  # noqa: BLE001
        return f"<its __str__ raised {type(problem).__name__}>"


def _loaded(raw: bytes) -> Exception:
    error = pickle.loads(raw)
    assert isinstance(error, Exception)
    return error

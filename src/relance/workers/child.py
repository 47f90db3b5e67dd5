"""One child process, from both sides: `Child` holds it, `_serve` is what it does.

Promises: whoever holds it is told of its death, however it came and whoever inherited its pipe; it ends when
its parent does, also from within a handler that hangs; a signal for the whole process group is the parent's
to answer, even while the child is only starting.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

from relance.decoding import Decoding, HandlerShape, decoder_for, handler_shape
from relance.forks import forgotten_by_children, leave
from relance.record import FORKED, SEALED, Record, record_of
from relance.workers.answer import refuse_unrun
from relance.workers.cancellation import not_by_us
from relance.workers.travel import Answer, Sent, packed

__all__ = ["Child", "ChildGoneError", "ChildLateError"]

_LOOK = 1.0  # seconds between two looks at whether the other side lives, where no pipe tells
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class ChildGoneError(Exception):
    """The child has ended."""


class ChildLateError(Exception):
    """The child has not said anything in time."""


class Child:
    """A process that calls `handler`. Raises OSError where none can be started."""

    def __init__(self, handler: Callable[..., Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._lock = threading.Lock()  # a process id must not be killed after somebody has reaped it
        self._open = True
        self._pipe, theirs = context.Pipe()
        try:
            self._process: SpawnProcess = context.Process(
                target=_serve, args=(theirs, handler), name="relance-child"
            )
            with _blocked_signals():
                self._process.start()
        except BaseException:
            self._pipe.close()
            raise
        finally:
            theirs.close()  # so that the child's end is the only one: its death closes the pipe

    def send(self, what: object) -> None:
        """Raises ChildGoneError."""
        try:
            self._pipe.send(what)
        except OSError as error:
            raise ChildGoneError from error

    def receive(self, timeout: float | None = None) -> Any:
        """What it says next. Raises ChildGoneError, ChildLateError after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        try:
            while True:
                left = _LOOK if end is None else max(0.0, min(_LOOK, end - time.monotonic()))
                if self._pipe.poll(left):
                    return self._pipe.recv()
                if end is not None and time.monotonic() >= end:
                    raise ChildLateError
                # A process that it forked may hold its pipe open beyond its death.
                if not self._alive() and not self._pipe.poll(0):
                    raise ChildGoneError
        except (EOFError, OSError) as error:
            raise ChildGoneError from error

    def kill(self) -> None:
        """End it now; any thread may."""
        with self._lock:
            if self._open:
                self._process.kill()

    def end(self, grace: float) -> int | None:
        """Let it end by itself for `grace` seconds, then kill it; its exit status."""
        self._pipe.close()
        self._process.join(grace)
        self.kill()
        self._process.join()
        with self._lock:
            self._open = False
            status = self._process.exitcode
            self._process.close()
        return status

    def forget(self) -> None:
        """In another process, forked from the one that holds it."""
        self._pipe.close()

    def _alive(self) -> bool:
        with self._lock:
            return self._process.is_alive()


@contextlib.contextmanager
def _blocked_signals() -> Iterator[None]:
    # A child begins with the mask of the thread that starts it, and unblocks when it has its handlers: until
    # then a Ctrl-C would end it, and look like a child that cannot start.
    resource_tracker.ensure_running()  # here, because it unblocks them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# -- in the child ----------------------------------------------------------------------------------


def _serve(pipe: Connection, handler: Callable[..., Any]) -> None:
    """Handle records until the pipe ends."""
    for number in _SIGNALS:  # not SIG_IGN: that would be inherited by what the handler starts
        signal.signal(number, _nothing)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_end_with_parent, name="relance-parent", daemon=True).start()
    shape = handler_shape(handler)
    decoding = decoder_for(shape.annotation)
    heir = _Heir(pipe)
    forgotten_by_children(heir.forget)
    try:
        pipe.send(None)  # ready
        while True:
            seconds, records = pipe.recv()
            pipe.send(None)  # taken: from here on its death is the death of a record
            _work_off(pipe, heir, seconds, records, handler, shape, decoding)
    except (EOFError, OSError):  # what handlers raise is caught where they are called
        return
    finally:
        pipe.close()  # a thread of the handler's own may keep the process


class _Heir:
    """What a process that the handler has forked inherits: our pipe, and that we ignore signals."""

    def __init__(self, pipe: Connection) -> None:
        self.record: Record | None = None
        """The record that the handler has."""
        self.forked = False
        """Whether this is such a process."""
        self._pipe = pipe

    def forget(self) -> None:
        """In such a process: give the signals back, close the pipe, and let nothing be sent."""
        self.forked = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._pipe.close()
        if self.record is not None:
            self.record.outbox = FORKED


def _work_off(
    pipe: Connection,
    heir: _Heir,
    seconds: float,
    records: list[Sent],
    handler: Callable[..., Any],
    shape: HandlerShape,
    decoding: Decoding,
) -> None:
    """Until all are handled, the first one fails, or `seconds` have passed."""
    until = time.perf_counter() + seconds
    for i, sent in enumerate(records, 1):
        record = record_of(sent.topic, sent.partition, sent.offset, sent.key, sent.raw, sent, sent.attempt)
        heir.record = record
        error, returned = _handle_one(record, handler, shape, decoding)
        if heir.forked:
            leave(error)
        goes_on = error is None and i < len(records) and time.perf_counter() < until
        if error is None:
            outbox, record.outbox = record.outbox, SEALED
            pipe.send(Answer(None, outbox or None, goes_on, returned))
        else:
            record.outbox = SEALED
            pipe.send(Answer(packed(error), None, goes_on))
        if not goes_on:
            return


def _handle_one(
    record: Record, handler: Callable[..., Any], shape: HandlerShape, decoding: Decoding
) -> tuple[Exception | None, str | None]:
    """What it failed with, and the class of what it returned in place of None."""
    try:
        value = decoding.decode(record.raw)
    except decoding.errors as error:
        return decoding.as_error(error, record.raw), None
    try:
        answer = handler(value, record) if shape.takes_record else handler(value)
        if answer is None:
            return None, None
        refuse_unrun(answer)
        return None, type(answer).__name__
    except asyncio.CancelledError as error:
        return not_by_us(error), None
    except Exception as error:  # noqa: BLE001  whatever a handler raises is judged by the policy, at home
        return error, None


def _nothing(number: int, frame: FrameType | None) -> None:
    """The parent decides when we end."""


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    # Who inherited the parent's end of the pipe may live on: then its id tells.
    while not wait([parent.sentinel], _LOOK) and os.getppid() == parent.pid:
        pass
    os._exit(1)

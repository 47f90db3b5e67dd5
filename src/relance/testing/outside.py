"""What a handler waits for: time, another handler, or the real world outside of a World.

Promise: a call that waits for a thread, a socket or a program is never taken for one that has nothing to do.
Either that is told as an error, or real time passes until it is over, and virtual time stands still
meanwhile; after a limit that is told, too.

What has to do with the outside is seen in two ways. The event loop tells of threads, descriptors and programs
that a call reaches for. And the frames of a suspended call show in whose code it waits: the I/O of the
standard library, another package, or the user's own, which waits for a lock, a queue or an event that
somebody here will set.
"""

from __future__ import annotations

import asyncio
import enum
import gc
import inspect
import os
import sysconfig
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, Final

from relance.errors import RelanceError
from relance.record import Record
from relance.testing.limit import Limit
from relance.testing.tasks import CALL, PROCESS, Stepped

__all__ = ["CallOut", "Outside", "place"]

_GRACE: Final = 0.5  # seconds, once for each future: a thread that we do not know of may set it
_TOLD: Final = 5  # calls that an error names
_ENDLESS: Final = "nothing in this world is left that would end it"

_RELANCE: Final = str(Path(__file__).parents[1]) + os.sep
_WATCHING: Final = frozenset(
    str(Path(__file__).with_name(name)) for name in ("loop.py", "outside.py", "limit.py")
)
_LIBRARIES: Final = tuple(
    f"{os.path.realpath(path)}{os.sep}"
    for path in {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
_PRIMITIVES: Final = ("asyncio/locks.py", "asyncio/queues.py", "asyncio/mixins.py")
_STRUCTURE: Final = ("asyncio/tasks.py", "asyncio/taskgroups.py", "asyncio/timeouts.py")
_ANYIO: Final = ("anyio/_core/_synchronization.py", "anyio/streams/memory.py")
_ANYIO_BACKEND: Final = "anyio/_backends/_asyncio.py"
_ANYIO_PRIMITIVES: Final = ("Event.", "Lock.", "Semaphore.", "CapacityLimiter.", "TaskGroup.")


class Kind(enum.Enum):
    """What something waits for."""

    TIME = "time"
    HERE = "something in this world"
    TASKS = "tasks of its own"
    OUTSIDE = "the real world"


@dataclass(eq=False, slots=True)
class CallOut:
    """A call of an async handler that has not ended."""

    handler: str
    package: str
    """The first part of the handler's module: the user's own code, wherever it is installed."""
    records: Sequence[Record]
    task: Stepped
    children: list[Stepped] = field(default_factory=list)
    """Tasks that it has started."""

    def told(self) -> str:
        """Which records, and which handler."""
        first = self.records[0]
        more = f" and {len(self.records) - 1} more" if len(self.records) > 1 else ""
        return f"{first.topic}-{first.partition}, offset {first.offset}{more}: handler {self.handler}"


class Outside:
    """The border of a world. `real_io`: whether handlers may cross it; `limit`: for how long, in seconds."""

    def __init__(self, *, real_io: bool, limit: float) -> None:
        self.real_io, self.limit = real_io, limit
        self.calls: list[CallOut] = []
        """Calls of async handlers that have not ended."""
        self.patient = False
        """Whether nothing else is left to be done, so that all that may come from outside is waited for."""
        self._jobs: dict[asyncio.Future[Any], CallOut | None] = {}
        self._since: weakref.WeakKeyDictionary[asyncio.Future[Any], float] = weakref.WeakKeyDictionary()
        self._given: weakref.WeakSet[asyncio.Future[Any]] = weakref.WeakSet()
        self._crossed: list[tuple[CallOut | None, str, str]] = []
        self._problem: RelanceError | AssertionError | None = None
        self._closed = False
        self.alarm = Limit(limit, self._blocked, _in_a_handler)
        self._beats: object = None
        self._beat_at = 0.0  # seconds of processor time

    def close(self) -> None:
        """The world is left: nothing is waited for any more, and nothing is told."""
        self._closed = True

    # -- what the loop tells -----------------------------------------------------------------------

    def thread_works(self, future: asyncio.Future[Any]) -> None:
        """A thread of an executor does something, until `future` is done."""
        self._jobs[future] = CALL.get()
        future.add_done_callback(lambda done: self._jobs.pop(done, None))

    def reached(self, what: str) -> None:
        """Code of a process has reached for a thread, a descriptor or a program."""
        if PROCESS.get() is not None:
            self._cross(CALL.get(), what)

    def called_in(self, thread: str, args: Sequence[Any]) -> None:
        """Another thread has given the loop something to do."""
        call = CALL.get() or next((c for c in self.calls if c.task.awaits in args), None)
        call = call or (self.calls[0] if self.calls else None)
        if call is not None:
            self._cross(call, f"the thread {thread}")

    def _cross(self, call: CallOut | None, what: str) -> None:
        if not self.real_io and not any(one is call for one, _, _ in self._crossed):
            self._crossed.append((call, what, _caller() or _waiting(call)))

    # -- waiting -----------------------------------------------------------------------------------

    def patience(self, open_descriptors: bool) -> float:
        """How many seconds of real time to wait, now that nothing can run; 0 to go on in virtual time."""
        if self._closed or self._problem is not None or not (self.calls or self._jobs):
            return 0.0
        outside, unknown = self._outside(open_descriptors)
        if outside and not self.real_io:
            for call, _ in outside:
                self._cross(call, "a thread or socket")
        if self._crossed:
            return 0.0
        now = time.monotonic()
        if outside:
            left = min(self._since.setdefault(future, now) + self.limit - now for _, future in outside)
            if left <= 0:
                self._problem = AssertionError(self._overdue(outside))
            return max(0.0, left)
        fresh = [future for future in unknown if future not in self._given]
        self._given.update(fresh)
        return _GRACE if fresh else 0.0

    def check(self) -> None:
        """Raise what is wrong: RelanceError for I/O that is not allowed, AssertionError past the limit."""
        if self.alarm.problem is not None and self._problem is None:
            self._problem = AssertionError(f"{self.alarm.problem} for {self.limit:g} s (real_time_limit)")
        if self._crossed and self._problem is None:
            told = [
                f"{_subject(call)} waits for the real world ({what})"
                f"{_waiting(call) if call in self.calls else caller}"
                for call, what, caller in self._crossed[:_TOLD]
            ]
            self._problem = RelanceError(
                f"{'; '.join(told)}. A World does no real I/O: give the handler a fake, or allow it with"
                " World(app, real_io=True), where virtual time stands still meanwhile"
            )
        if self._problem is not None:
            raise self._problem

    def check_progress(self, beats: object) -> None:
        """Raise AssertionError if `beats` has not changed for `limit` seconds of processor time.

        So a handler that looks again and again for what never comes does not make a test hang.
        """
        now = time.process_time()
        if beats != self._beats:
            self._beats, self._beat_at = beats, now
        elif now - self._beat_at > self.limit:
            raise AssertionError(
                f"{'; '.join(self._told_calls())}: virtual time passes, and for {self.limit:g} s of"
                " processor time (real_time_limit) no call has begun or ended"
            )

    def check_all_ended(self) -> None:
        """Raise AssertionError if a call has not ended, though nothing is due any more."""
        if self.calls:
            told = self._told_calls()
            more = f" and {len(self.calls) - _TOLD} more" if len(self.calls) > _TOLD else ""
            raise AssertionError(
                f"{'; '.join(told)}{more}: {_ENDLESS}. Set what it waits for, or look at it with run() or"
                " jump()"
            )

    def _told_calls(self) -> list[str]:
        return [f"{call.told()} still waits{_waiting(call)}" for call in self.calls[:_TOLD]]

    def _blocked(self, frame: FrameType | None) -> str:
        return (
            f"a handler has blocked{_caller(frame) or _out(self.calls)}. Handlers run one after the other"
            " here, so what it waits for cannot come from another. It hung"
        )

    def _outside(
        self, open_descriptors: bool
    ) -> tuple[list[tuple[CallOut | None, asyncio.Future[Any]]], list[asyncio.Future[Any]]]:
        """What certainly waits for the outside, and what might."""
        threads = threading.active_count() > 1
        certain: list[tuple[CallOut | None, asyncio.Future[Any]]] = [
            (call, future) for future, call in self._jobs.items()
        ]
        unknown: list[asyncio.Future[Any]] = []
        if not open_descriptors and not threads:
            return certain, unknown
        for call in self.calls:
            kinds = list(_kinds(call))
            certain += [(call, future) for kind, future in kinds if kind is Kind.OUTSIDE]
            here = [future for kind, future in kinds if kind is Kind.HERE]
            if self.patient and self.real_io:
                certain += [(call, future) for future in here]
            if threads:
                unknown += here
        return certain, unknown

    def _overdue(self, outside: Sequence[tuple[CallOut | None, asyncio.Future[Any]]]) -> str:
        told = dict.fromkeys(f"{_subject(call)} waits{_waiting(call)}" for call, _ in outside)
        return (
            f"{'; '.join(list(told)[:_TOLD])}: nothing has come from the real world for {self.limit:g} s."
            " What answers must not run in the test's own thread or event loop, which stand still meanwhile."
            " World(app, real_io=True, real_time_limit=...) waits longer"
        )


def place(frames: Sequence[FrameType], package: str) -> str:
    """Where in the user's code something waits, and in what: `file:line in f (in file:line, g)`."""
    if not frames:
        return ""
    inner = frames[-1]
    own = next((frame for frame in reversed(frames) if _is_own(frame, package)), inner)
    at = f" at {own.f_code.co_filename}:{own.f_lineno} in {own.f_code.co_name}"
    if inner is own:
        return at
    return f"{at} (in {inner.f_code.co_filename}:{inner.f_lineno}, {inner.f_code.co_qualname})"


# -- what a call waits for ---------------------------------------------------------------------------


def _kinds(call: CallOut) -> Iterator[tuple[Kind, asyncio.Future[Any]]]:
    """What a call, and what it has started, waits for. Where the call itself waits for time, only that."""
    if call.task.awaits is None:
        return
    own = _kind(call.task, call.package)
    yield own, call.task.awaits
    if own is not Kind.TIME:
        for child in call.children:
            if not child.done and child.awaits is not None:
                yield _kind(child, call.package), child.awaits


def _kind(task: Stepped, package: str) -> Kind:
    frames = _frames(task.coroutine)
    if not frames:
        return Kind.HERE
    inner = frames[-1].f_code
    if _in(inner.co_filename, *_STRUCTURE):
        return Kind.TIME if inner.co_name == "sleep" else Kind.TASKS
    if isinstance(task.awaits, asyncio.Task) or hasattr(task.awaits, "_children"):  # gather's future
        return Kind.TASKS
    for frame in reversed(frames):
        if _is_own(frame, package):
            return Kind.HERE
        if not _is_primitive(frame):
            return Kind.OUTSIDE
    return Kind.HERE


def _frames(coroutine: Any) -> list[FrameType]:
    """The frames of a suspended coroutine, the innermost last, without relance's own."""
    found = []
    while coroutine is not None:
        for name in ("cr", "gi", "ag"):
            frame = getattr(coroutine, f"{name}_frame", None)
            if frame is not None:
                if not frame.f_code.co_filename.startswith(_RELANCE):
                    found.append(frame)
                inner = "yieldfrom" if name == "gi" else "await"
                coroutine = getattr(coroutine, f"{name}_{inner}")
                break
        else:  # a step of an asynchronous generator does not say of which one it is
            coroutine = next((one for one in gc.get_referents(coroutine) if inspect.isasyncgen(one)), None)
    return found


def _is_own(frame: FrameType, package: str) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] == package or not _in_library(frame.f_code.co_filename)


def _is_primitive(frame: FrameType) -> bool:
    """Whether it only hands on what others here set: a lock, a queue, an event."""
    name = frame.f_code.co_filename
    if _in(name, *_PRIMITIVES, *_STRUCTURE, *_ANYIO):
        return True
    return _in(name, _ANYIO_BACKEND) and frame.f_code.co_qualname.startswith(_ANYIO_PRIMITIVES)


def _in(name: str, *endings: str) -> bool:
    return name.replace(os.sep, "/").endswith(endings)


@cache
def _in_library(name: str) -> bool:
    return (
        name.startswith("<frozen")
        or os.path.realpath(name).startswith(_LIBRARIES)
        or "/dist-packages/" in name.replace(os.sep, "/")
    )


# -- words -------------------------------------------------------------------------------------------


def _subject(call: CallOut | None) -> str:
    return "something that a handler has started" if call is None else call.told()


def _waiting(call: CallOut | None) -> str:
    if call is None or call.task.awaits is None:
        return ""
    outer = _frames(call.task.coroutine)
    inner = next((child for child in call.children if _waits_outside(child, call)), None)
    if inner is None or _waits_outside(call.task, call):
        return place(outer, call.package)
    frames = _frames(inner.coroutine)
    return place(
        frames if any(_is_own(frame, call.package) for frame in frames) else outer + frames, call.package
    )


def _waits_outside(task: Stepped, call: CallOut) -> bool:
    return not task.done and _kind(task, call.package) is Kind.OUTSIDE


def _in_a_handler(frame: FrameType | None) -> bool:
    if frame is None or frame.f_code.co_filename.startswith(_RELANCE):
        return False
    while frame is not None and not frame.f_code.co_filename.startswith(_RELANCE):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename not in _WATCHING


def _out(calls: Sequence[CallOut]) -> str:
    return f" (not ended: {', '.join(call.told() for call in calls[:_TOLD])})" if calls else ""


def _caller(frame: FrameType | None = None) -> str:
    """The innermost line on a stack that is the user's."""
    frame = frame or inspect.currentframe()
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_RELANCE) and name not in _WATCHING:  # beyond it lies the test
            return ""
        if not name.startswith(_RELANCE) and not _in_library(name):
            return f" at {name}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back
    return ""

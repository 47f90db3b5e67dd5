"""Whether what came out of a handler and is no `Exception` was the handler's own doing.

Promise: a record answers for what its handler raised, and never for a Ctrl-C or a SIGTERM that reached the
handler as an exception, because Python's signal handlers run wherever the main thread is.
"""

from __future__ import annotations

import dis
import signal
import threading
from collections.abc import Iterator
from functools import partial
from types import CodeType, TracebackType
from typing import Any

__all__ = ["of_the_handler"]

_RAISE = dis.opmap["RAISE_VARARGS"]


def of_the_handler(error: BaseException) -> bool:
    """Whether a handler raised this by itself, and it would end the process: SystemExit and the like."""
    return not isinstance(error, Exception) and not _by_a_signal(error)


def _by_a_signal(error: BaseException) -> bool:
    if threading.current_thread() is not threading.main_thread():
        return False  # Python runs signal handlers on the main thread only
    codes, interrupts = _signal_handlers()
    for one in _with_causes(error):
        frames = list(_frames(one.__traceback__))
        if any(frame.tb_frame.f_code in codes for frame in frames):
            return True
        if interrupts and isinstance(one, KeyboardInterrupt) and frames and not _raises(frames[-1]):
            return True
    return False


def _signal_handlers() -> tuple[set[CodeType], bool]:
    """The code of the installed signal handlers, and whether Python's own for SIGINT, which is C, is one."""
    codes, interrupts = set(), False
    for number in signal.valid_signals():
        found: Any = signal.getsignal(number)
        interrupts = interrupts or found is signal.default_int_handler
        while isinstance(found, partial):
            found = found.func
        code = getattr(found, "__code__", None)
        if code is None and callable(found):  # an object with a __call__ of its own
            code = getattr(type(found).__call__, "__code__", None)
        if isinstance(code, CodeType):
            codes.add(code)
    return codes, interrupts


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """The error, its causes and contexts, and the members of each that is a group; each once."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        left += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions


def _frames(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _raises(trace: TracebackType) -> bool:
    """Whether the code stood at a `raise`; code that a signal interrupts stands anywhere else."""
    return trace.tb_lasti >= 0 and trace.tb_frame.f_code.co_code[trace.tb_lasti] == _RAISE

"""What a process that is forked from this one forgets of relance: signals, descriptors, clients, threads.

A handler may fork (`multiprocessing` does so by default before Python 3.14). Promise: the child takes no
part, and the application never notices it. A signal for the child is the child's; where the child would go
back into our code, because its handler has returned or raised, it ends there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from typing import NoReturn

__all__ = ["forgotten_by_children", "leave"]

_forgets: list[weakref.WeakMethod[Callable[[], None]]] = []
_before = threading.local()


def forgotten_by_children(forget: Callable[[], None]) -> None:
    """Have each process that is forked from now on call this method first, as long as its object lives.

    No other thread runs there, so it must take no lock: nobody would release it.
    """
    new = weakref.WeakMethod(forget)
    _forgets[:] = [*(one for one in _forgets if one() is not None and one != new), new]


def leave(error: BaseException | None = None) -> NoReturn:
    """End a forked child: with the status of a SystemExit, with 1 after another error, else with 0.

    Nothing of its parent's is cleaned up.
    """
    status = 0
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        status = (error.code or 0) & 0xFF
    elif error is not None:
        status = 1
        with contextlib.suppress(Exception):
            traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)


def _before_fork() -> None:
    # A signal that reaches the child before it has forgotten our handlers would be taken for the parent's:
    # the file descriptor that they write to is shared.
    _before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()) if _forgets else None


def _in_parent() -> None:
    mask, _before.mask = getattr(_before, "mask", None), None
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _in_child() -> None:
    if _forgets:
        with contextlib.suppress(ValueError):  # not the main interpreter
            # Also where the loop that has set it is not ours: the pipe behind it is the parent's.
            signal.set_wakeup_fd(-1)
    for one in _forgets:
        forget = one()
        if forget is not None:
            with contextlib.suppress(Exception):  # the others must be forgotten all the same
                forget()
    _forgets.clear()
    _in_parent()


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)

"""What a handler may return: nothing. A coroutine or a generator that it returns has not run so far.

Promises: a record whose handler returned such a thing does not count as handled; any other value, which goes
nowhere, is told once for each handler.
"""

from __future__ import annotations

import inspect
import logging
import threading

from relance.errors import Fatal

__all__ = ["Returned", "refuse_unrun"]

_log = logging.getLogger("relance")


class Returned:
    """Looks at what one handler returns that is not None."""

    def __init__(self, handler: str) -> None:
        self._handler = handler
        self._untold = threading.Lock()

    def look(self, answer: object) -> None:
        """Raises Fatal for what has not run yet; tells the first of all other values."""
        refuse_unrun(answer)
        self.tell(type(answer).__name__)

    def tell(self, kind: str) -> None:
        """It returned a value of that class."""
        if not self._untold.acquire(blocking=False):  # taken once, for good
            return
        _log.warning(
            "handler %s returned a value (%s), and nobody gets it: its record counts as handled, whatever it"
            " returns; send the value (record.send), store it, or return nothing. This is said once",
            self._handler,
            kind,
        )


def refuse_unrun(answer: object) -> None:
    """Raises Fatal for a coroutine, a generator and their like: by these no record is handled."""
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise Fatal(
            f"the handler returned what has to be awaited ({type(answer).__name__}), so it has done nothing:"
            " await it in an async handler; a wrapper of one is async, too, or uses functools.wraps"
        )
    if inspect.isgenerator(answer) or inspect.isasyncgen(answer):
        name = getattr(answer, "__qualname__", type(answer).__name__)
        raise Fatal(
            f"the handler returned a generator ({name}), so it has done nothing: go through it in the handler"
        )

"""What a sync handler may not answer: something that still has to be awaited."""

from __future__ import annotations

import inspect

from relance.errors import Fatal

__all__ = ["refuse_awaitable"]


def refuse_awaitable(answer: object) -> None:
    """Raises Fatal for a coroutine or a generator: it never ran, so its record must not count as handled."""
    if inspect.isgenerator(answer) or inspect.isasyncgen(answer):
        raise Fatal(
            f"the handler returned what has to be iterated ({type(answer).__name__}), so it has done nothing:"
            " iterate it in the handler"
        )
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise Fatal(
            f"the handler is not async, but returned what has to be awaited ({type(answer).__name__}), so it"
            " has done nothing: let the wrapper be async, or use functools.wraps in it"
        )

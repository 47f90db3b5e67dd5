"""A cancellation that comes out of a handler though nobody cancelled it is a failure like any other."""

from __future__ import annotations

import asyncio

__all__ = ["is_current", "not_by_us"]


def not_by_us(error: asyncio.CancelledError) -> Exception:
    """What the policy judges in its place; not an Exception, it would pass for the end of the worker."""
    failure = RuntimeError("the handler was cancelled, and not by relance: something that it awaited was")
    failure.__cause__ = error
    return failure


def is_current(task: asyncio.Task[None]) -> bool:
    """Whether this is the task that runs: a coroutine may be closed from outside, when its loop has ended."""
    try:
        return asyncio.current_task() is task
    except RuntimeError:
        return False

"""Errors that were really raised, so that they have a traceback."""

from __future__ import annotations


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """The error after it was raised from `cause` and caught."""
    try:
        raise error from cause
    except BaseException as caught:
        return caught

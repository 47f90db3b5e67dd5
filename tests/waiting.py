"""Waiting for a condition; the only place where the tests sleep, a few milliseconds at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_TICK = 0.005


def wait_until(
    condition: Callable[[], T], timeout: float = 10.0, message: str | Callable[[], str] = "the condition"
) -> T:
    """Call `condition` until it returns something true, and return that; fail after `timeout` seconds.

    `message` names what was waited for; a callable is asked at the end, and may say how far things got.
    """
    deadline = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        if time.monotonic() >= deadline:
            text = message() if callable(message) else message
            raise AssertionError(f"waited {timeout:g} s in vain for: {text}")
        time.sleep(_TICK)

"""The calls a circuit breaker judges by: the last n, or those of the last n seconds.

Promise: recording a call costs the same however large the window is (for a time window, on the average over
its calls), and memory is bounded by the window, not by the traffic. Sums are kept by adding what enters and
subtracting what leaves, as in Resilience4j's sliding windows.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, Generic, Protocol, TypeVar

__all__ = ["MAX_NAMED", "CountWindow", "TimeWindow", "Window"]

Token = TypeVar("Token")

MAX_NAMED: Final = 10_000
"""How many failures a time window can name, the newest ones: its calls are counted, but a busy second would
have to be kept call by call. The count window names all of its failures."""


class Window(Protocol[Token]):
    """What both windows do. `now` is in seconds of one clock; one that steps back stands still."""

    calls: int
    failed: int
    slow: int

    def succeeded(self, now: float, *, slow: bool) -> None:
        """Record a call that succeeded."""

    def failed_with(self, now: float, token: Token, *, slow: bool) -> None:
        """Record a call that failed; `token` is how its maker calls it."""

    def advance(self, now: float) -> None:
        """Let go of the calls that are too old at `now`."""

    def failures(self) -> tuple[Token, ...]:
        """The tokens of the failed calls in the window, the oldest first."""


class CountWindow(Generic[Token]):
    """The last `size` calls."""

    __slots__ = ("_ring", "_size", "calls", "failed", "slow")

    def __init__(self, size: int) -> None:
        self._size = size
        # A success is the bare truth of its slowness, which needs no object of its own.
        self._ring: deque[bool | tuple[bool, Token]] = deque()
        self.calls = self.failed = self.slow = 0

    def succeeded(self, now: float, *, slow: bool) -> None:
        """Record a call that succeeded."""
        self.slow += slow
        self._push(slow)

    def failed_with(self, now: float, token: Token, *, slow: bool) -> None:
        """Record a call that failed."""
        self.failed += 1
        self.slow += slow
        self._push((slow, token))

    def _push(self, call: bool | tuple[bool, Token]) -> None:
        ring = self._ring
        ring.append(call)
        if self.calls < self._size:
            self.calls += 1
            return
        gone = ring.popleft()
        if isinstance(gone, tuple):
            self.failed -= 1
            self.slow -= gone[0]
        else:
            self.slow -= gone

    def advance(self, now: float) -> None:
        """Nothing: a call leaves when another one comes, however late."""

    def failures(self) -> tuple[Token, ...]:
        """The tokens of the failed calls in the window, the oldest first."""
        return tuple(call[1] for call in self._ring if isinstance(call, tuple))


class TimeWindow(Generic[Token]):
    """The calls of this second of the clock and of the `seconds - 1` before it.

    Kept in one bucket a second, and only for seconds that had a call. So a call leaves up to a second before
    it is `seconds` old, all calls of one second at once.
    """

    __slots__ = ("_buckets", "_named", "_seconds", "calls", "failed", "slow")

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._buckets: deque[_Bucket] = deque()
        self._named: deque[tuple[int, Token]] = deque(maxlen=MAX_NAMED)
        self.calls = self.failed = self.slow = 0

    def succeeded(self, now: float, *, slow: bool) -> None:
        """Record a call that succeeded."""
        self._count(now, failed=False, slow=slow)

    def failed_with(self, now: float, token: Token, *, slow: bool) -> None:
        """Record a call that failed."""
        self._named.append((self._count(now, failed=True, slow=slow), token))

    def _count(self, now: float, *, failed: bool, slow: bool) -> int:
        self.advance(now)
        second = math.floor(now)
        last = self._buckets[-1] if self._buckets else None
        if last is None or last.second < second:
            last = _Bucket(second)
            self._buckets.append(last)
        last.calls += 1
        last.failed += failed
        last.slow += slow
        self.calls += 1
        self.failed += failed
        self.slow += slow
        return last.second

    def advance(self, now: float) -> None:
        """Let go of the calls that are too old at `now`."""
        oldest, buckets, named = math.floor(now) - self._seconds, self._buckets, self._named
        while buckets and buckets[0].second <= oldest:
            gone = buckets.popleft()
            self.calls -= gone.calls
            self.failed -= gone.failed
            self.slow -= gone.slow
        while named and named[0][0] <= oldest:
            named.popleft()

    def failures(self) -> tuple[Token, ...]:
        """The tokens of the failed calls in the window, the oldest first; at most the last MAX_NAMED."""
        return tuple(token for _, token in self._named)


class _Bucket:
    """The calls of one second."""

    __slots__ = ("calls", "failed", "second", "slow")

    def __init__(self, second: int) -> None:
        self.second = second
        self.calls = self.failed = self.slow = 0

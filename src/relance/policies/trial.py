"""The trial of a half-open breaker: the votes of its probes, and the failures whose fate it decides.

Promise: what a failed probe costs is open until the trial knows more. If another record succeeds in the same
trial, the service is there and the failure costs an attempt; of a record that had failed before, it is then
no vote either. Without a success it costs nothing.

Pure, and not safe for threads by itself.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from relance.policies.breaker import CircuitBreaker

__all__ = ["Trial"]

Token = TypeVar("Token")


class _Failed(NamedTuple, Generic[Token]):
    token: Token
    known: bool
    slow: bool


class Trial(Generic[Token]):
    """The votes, which are its `calls`; `failed` and `slow` of them."""

    __slots__ = ("_held", "_settings", "asked", "calls", "failed", "slow", "successes", "tried")

    def __init__(self, settings: CircuitBreaker, successes: int) -> None:
        self.successes = successes
        """How many there had been, of all records, when it began."""
        self.asked = 0
        """Probes that are out or have voted."""
        self.tried = 0
        """Probes whose record had failed before, whatever became of them."""
        self.calls = self.failed = self.slow = 0
        self._settings = settings
        self._held: dict[Hashable, _Failed[Token]] = {}

    def probing(self, who: Hashable, *, untried: bool) -> None:
        """One more probe is out. What its record has failed in this trial before costs nothing any more."""
        self.asked += 1
        self.tried += not untried
        self._held.pop(who, None)

    def left(self) -> None:
        """A probe ended without a vote: its place is free."""
        self.asked -= 1

    def succeeded(self, *, slow: bool) -> tuple[Token, ...]:
        """A vote. The failures that cost an attempt now; a slow success shows no service that is well."""
        self.calls += 1
        self.slow += slow
        if slow:
            return ()
        held, self._held = self._held, {}
        for one in held.values():
            if one.known:
                self.asked -= 1
                self.calls -= 1
                self.failed -= 1
                self.slow -= one.slow
        return tuple(one.token for one in held.values())

    def voted_against(self, *, slow: bool) -> None:
        """A vote, of a failure that costs an attempt."""
        self.calls += 1
        self.failed += 1
        self.slow += slow

    def held(self, who: Hashable, token: Token, *, known: bool, slow: bool) -> None:
        """A vote, of a failure whose cost is open; `known`: its record had failed before."""
        self.voted_against(slow=slow)
        self._held[who] = _Failed(token, known, slow)

    def cannot_fail(self) -> bool:
        """Whether it would end well even if all of its further probes failed and were slow."""
        settings = self._settings
        left = settings.probes - self.calls
        if (self.failed + left) / settings.probes >= settings.failure_rate:
            return False
        return settings.slow_call_duration is None or (
            (self.slow + left) / settings.probes < settings.slow_call_rate
        )

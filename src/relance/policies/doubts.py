"""Records that have failed: whether a failure of theirs says something of the service that they call.

Promise: one record's failures are news once. A record that fails again after others have succeeded is at
fault itself; where nothing has succeeded since it failed, each of its failures counts, and so a service that
is down is seen as soon as ever. Memory is bounded.

Pure, and not safe for threads by itself.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

__all__ = ["Doubt", "Doubts"]

Token = TypeVar("Token")

_LIMIT: Final = 10_000  # records; beyond it those that failed longest ago are forgotten


class Doubt(Generic[Token]):
    """What is known of a record that has failed."""

    __slots__ = ("left_out", "opening", "refunded", "successes")

    def __init__(self, successes: int, opening: int, *, refunded: bool, left_out: Token | None) -> None:
        self.successes = successes
        """How many successes there had been, of all records, when it failed last."""
        self.opening = opening
        """How often the breaker had opened by then."""
        self.refunded = refunded
        """A failure of it has cost no attempt."""
        self.left_out = left_out
        """Its last failure, if that was not counted; by the name its maker gave it."""


class Doubts(Generic[Token]):
    """By what their maker calls them, records that have failed; in the order of their last failures."""

    __slots__ = ("_known", "successes")

    def __init__(self) -> None:
        self.successes = 0
        """Of all records, as long as this has been kept; slow ones do not count."""
        self._known: dict[Hashable, Doubt[Token]] = {}

    def get(self, who: Hashable) -> Doubt[Token] | None:
        """What is known of the record; None if it has not failed."""
        return self._known.get(who)

    def own_fault(self, who: Hashable, since: int = 0) -> bool:
        """Whether another record has succeeded since this one failed, and since there were `since` successes.

        It holds its lane, so a record that has succeeded since is of another lane.
        """
        known = self._known.get(who)
        return self.successes > (since if known is None else max(since, known.successes))

    def note(self, who: Hashable, opening: int, *, refunded: bool, left_out: Token | None = None) -> None:
        """It has failed once more."""
        before = self._known.pop(who, None)
        refunded = refunded or (before is not None and before.refunded)
        self._known[who] = Doubt(self.successes, opening, refunded=refunded, left_out=left_out)
        if len(self._known) > _LIMIT:
            del self._known[next(iter(self._known))]

    def refund(self, who: Hashable) -> None:
        """A failure of it costs no attempt after all."""
        if (known := self._known.get(who)) is not None:
            known.refunded = True

    def take_left_out(self) -> list[Token]:
        """The failures that were not counted and after which nothing has succeeded, the oldest first."""
        found: list[Token] = []
        for known in reversed(self._known.values()):
            if known.successes < self.successes:
                break
            if known.left_out is not None:
                found.append(known.left_out)
                known.left_out, known.refunded = None, True
        return found[::-1]

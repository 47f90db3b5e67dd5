"""How many characters of metadata brokers take beside a committed offset, found out by what they refuse.

Promise: after a refusal the next text is no longer than one that was taken, at worst empty: an offset alone
is always taken. Then longer ones are tried, half-way by their ratio, until what is gained is a tenth. So
four or five refusals show it, and most often one, because a text without a map is short. (The limit is the
brokers' `offset.metadata.max.bytes`, 4096 by default; to read that setting takes an ACL that few users have.)
"""

from __future__ import annotations

from math import isqrt

from relance.engine.offset_map import LIMIT

__all__ = ["LEAST", "MetadataRoom"]

LEAST = 256
"""Characters below which there is no map worth waiting for: intake does not pause because none fits."""

_FIRST = 32  # characters; where trying begins when nothing was taken yet
_GAIN = 1.1


class MetadataRoom:
    """What is known of one cluster's limit."""

    def __init__(self, most: int = LIMIT) -> None:
        self._most = most
        self._taken = 0
        self._refused: int | None = None
        self._narrow: int | None = None
        """The shortest text that was refused, until one as long is taken."""
        self._safe = False
        self._told = False

    @property
    def limit(self) -> int:
        """How long the next text may be."""
        if self._refused is None:
            return self._most
        if self._safe:
            return self._taken
        between = isqrt(max(self._taken, _FIRST) * self._refused)
        return between if between > self._taken * _GAIN else self._taken

    def took(self, length: int) -> None:
        """The broker has taken a text of so many characters."""
        self._safe = False
        self._taken = max(self._taken, length)
        if self._narrow is not None and length >= self._narrow:
            self._narrow = None

    def refused(self, length: int) -> None:
        """It has refused one."""
        self._safe = True
        self._refused = length if self._refused is None else min(self._refused, length)
        self._narrow = self._refused if self._narrow is None else min(self._narrow, self._refused)
        if self._taken >= length:  # it took as much before it was started anew
            self._taken = 0

    def forget(self) -> None:
        """Try a whole text again: brokers may have been started anew, with another limit."""
        self._refused, self._safe = None, False

    def cost(self) -> str | None:
        """What is missing, for a person; None if nothing is."""
        if self._narrow is None:
            return None
        if self._taken == 0:
            return (
                "the broker takes no metadata beside committed offsets (offset.metadata.max.bytes), so they"
                " are committed alone: after a move or a crash, what was finished above a committed offset"
                " is handled again, attempts and waits in memory begin anew, a death of the process is not"
                " counted for max_crashes, and start='latest' must guess which partitions are new. Set it to"
                " 4096, Kafka's default"
            )
        return (
            f"the broker refuses {self._narrow} characters of metadata beside a committed offset and takes"
            f" {self._taken} (offset.metadata.max.bytes): of what is finished above a committed offset, what"
            " it has no room for is handled again after a move or a crash, and attempts and waits in memory"
            " begin anew there. Set it to 4096, Kafka's default"
        )

    def news(self) -> str | None:
        """What there is to be told, once: `cost`, or that all is well again."""
        narrow = self._narrow is not None
        if self._safe or narrow == self._told:  # what is taken instead shows with the next commit
            return None
        self._told = narrow
        return self.cost() or "the broker takes all metadata beside committed offsets again"

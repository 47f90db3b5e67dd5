"""Runs made by hand: what members said, and what the broker holds in the end."""

from __future__ import annotations

from typing import Any

from chaos.checker import Verdict, check
from chaos.events import Event
from chaos.truth import Truth
from chaos.workload import DEAD, OUT, SOURCE, Order


class History:
    """What a run left behind. Each call takes a tenth of a second."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.truth = Truth(committed={(SOURCE, 0): 0}, ends={})
        self.now = 0.0
        self._numbers = 0

    def tell(self, event: str, who: str = "member-1", **more: Any) -> None:
        self.now += 0.1
        self.events.append({"event": event, "t": self.now, "who": who, **more})

    def order(self, name: str, key: str = "k-1", **more: Any) -> Order:
        """Produced and acknowledged, at the end of partition 0."""
        offset = len(self.truth.orders)
        found = Order(name, key, 0.01, **more)
        self.truth.orders[SOURCE, 0, offset] = found
        self.truth.ends[SOURCE, 0] = offset + 1
        self.tell("produced", "f1", id=name, partition=0, offset=offset, key=key)
        return found

    def place(self, name: str) -> tuple[str, int, int]:
        return next(place for place, order in self.truth.orders.items() if order.id == name)

    def assigned(self, who: str = "member-1") -> None:
        self.tell("assigned", who, partitions=[[SOURCE, 0]])

    def begin(self, name: str, attempt: int = 1, who: str = "member-1", key: str = "k-1") -> None:
        self.tell("start", who, id=name, key=key, attempt=attempt, place=list(self.place(name)))

    def end(self, name: str, how: str = "ok", attempt: int = 1, who: str = "member-1", **more: Any) -> None:
        self.tell("end", who, id=name, attempt=attempt, place=list(self.place(name)), how=how, **more)

    def written(
        self,
        name: str,
        attempt: int = 1,
        who: str = "member-1",
        error: str = "",
        sent: float = 0.0,
        transaction: int = 0,
    ) -> None:
        """The output, or a dead letter with that error class; sent just now if not told."""
        place = (DEAD if error else OUT, 0, len(self.truth.results))
        self.truth.results[place] = name, error or "ok"
        sent = sent or self.now
        self.tell(
            "written", who, id=name, attempt=attempt, place=list(place), sent=sent, transaction=transaction
        )

    def handled(self, name: str, who: str = "member-1", key: str = "k-1") -> None:
        self.begin(name, who=who, key=key)
        self.end(name, who=who)
        self.written(name, who=who)

    def commit(self, offset: int, who: str = "member-1", answered: bool = True) -> None:
        self._numbers += 1
        self.tell("commit", who, number=self._numbers, offsets=[[SOURCE, 0, offset]])
        if answered:
            self.tell("committed", who, number=self._numbers)
            self.truth.committed[SOURCE, 0] = max(offset, self.truth.committed[SOURCE, 0])

    def revoked(self, who: str = "member-1", seconds: float = 0.0) -> None:
        self.tell("revoking", who, partitions=[[SOURCE, 0]])
        self.now += seconds
        self.tell("revoked", who, partitions=[[SOURCE, 0]])

    def check(self, handoff: str = "acknowledged") -> Verdict:
        return check(self.events, self.truth, handoff=handoff)


def found_by(verdict: Verdict) -> set[str]:
    """The rules that found something."""
    return {problem.partition(":")[0] for problem in verdict.problems}

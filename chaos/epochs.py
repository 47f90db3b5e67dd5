"""Who owned which partition from when to when, and what it did then: from the events of a run.

Promise: what a member does belongs to an ownership only while it had it, or as little later as a thread needs
that was just about to begin; and an end counts as clean unless something was seen to be cut short.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from chaos.events import Event
from chaos.workload import CONCURRENCY, DRAIN, IN_MEMORY, MAX_ATTEMPTS

__all__ = ["Epoch", "epochs_of"]

_TAKEN_BY = 0.25
"""Seconds from a loss to the first words of a handler whose record was taken before it, on a busy machine.
There may be as many as a member can run at a time, not more."""


class Key(NamedTuple):
    """A partition at a member."""

    who: str
    topic: str
    partition: int


@dataclass(eq=False, slots=True)
class Allowance:
    """How many handlers may still begin."""

    left: float = inf


@dataclass(eq=False, slots=True)
class Epoch:
    """One member's ownership of one partition."""

    who: str
    tp: tuple[str, int]
    began: float
    ended: float = inf
    clean: bool = False
    """It ended with a revocation in which nothing was cut short."""
    steps: list[Event] = field(default_factory=list)
    """Starts and ends of handlers."""
    told: list[float] = field(default_factory=list)
    """When its acknowledged commits were made."""
    until: float = inf
    """The last moment of a step that belongs to it."""
    may_begin: Allowance = field(default_factory=Allowance)
    runs: set[tuple[int, int]] = field(default_factory=set)
    """Offsets and attempts that began and did not end."""

    def end(self, at: float, *, clean: bool = False, until: float | None = None) -> None:
        """It is over; what another thread was about to say may come `until` then."""
        self.ended, self.clean, self.until = at, clean, at if until is None else until

    def step(self, event: Event) -> bool:
        """A start or an end; whether it is one of this ownership."""
        what = event["place"][2], event["attempt"]
        if event["t"] > self.until:
            return False
        if event["event"] == "start":
            if self.may_begin.left <= 0:
                return False
            self.may_begin.left -= 1
            self.runs.add(what)
        elif what in self.runs:
            self.runs.remove(what)
        else:
            return False
        self.steps.append(event)
        return True


@dataclass(eq=False, slots=True)
class _Unfinished:
    """An attempt that began, and wrote nothing that counts yet."""

    key: Key
    began: float
    transaction: int = 0
    """In which it wrote; it counts when that has ended well."""


def epochs_of(events: Sequence[Event], *, exactly_once: bool) -> list[Epoch]:
    """All of a run, as they began. `exactly_once`: what is written, is written in transactions."""
    members = _Members(exactly_once)
    for event in events:
        members.tell(event)
    return members.found


class _Members:
    """What is known at one moment of the run."""

    def __init__(self, exactly_once: bool) -> None:
        self.found: list[Epoch] = []
        self._exactly_once = exactly_once
        self._latest: dict[Key, Epoch] = {}
        self._revoking: dict[Key, float] = {}
        self._asked: dict[str, float] = {}
        """When a process was asked to stop: its drain's time begins there."""
        self._unfinished: dict[tuple[str, str, int], _Unfinished] = {}
        """By member, order and attempt."""
        self._refused: dict[tuple[str, str], float] = {}
        """By member and topic read: when a write for one of its records last got no good answer."""
        self._made: dict[tuple[str, int], Event] = {}
        self._uncommitted: set[Key] = set()
        """Whose last commit was refused or not answered."""

    def tell(self, event: Event) -> None:
        """What happened next."""
        who: str = event["who"]
        t: float = event["t"]
        keys = [Key(who, *tp) for tp in event.get("partitions", ())]
        match event["event"]:
            case "began":
                self._over(self._of(who), t)
                self._latest = {key: epoch for key, epoch in self._latest.items() if key.who != who}
                self._asked.pop(who, None)
            case "signal" if event["signal"] == "SIGTERM":
                self._asked[event["member"]] = t
            case "assigned":
                for key in keys:
                    self._latest[key] = Epoch(who, (key.topic, key.partition), t)
                    self.found.append(self._latest[key])
                self._uncommitted.difference_update(keys)
            case "revoking":
                self._revoking.update(dict.fromkeys(keys, t))
            case "revoked":
                self._revoked(keys, t)
            case "losing":
                self._limit(keys)
            case "lost":
                self._over(keys, t, until=t + _TAKEN_BY)
            case "died":
                self._over(self._of(who), t, until=t + _TAKEN_BY)
            case "start" | "end":
                self._step(event)
            case "written" | "unwritten":
                self._answered(event)
            case "commit":
                self._made[who, event["number"]] = event
                self._uncommitted.update(_places(event))
            case "committed":
                self._committed(event)

    def _of(self, who: str) -> list[Key]:
        return [key for key in self._latest if key.who == who]

    def _open(self, keys: Iterable[Key]) -> list[Epoch]:
        return [e for key in keys if (e := self._latest.get(key)) is not None and e.ended == inf]

    def _limit(self, keys: Iterable[Key]) -> None:
        """No more may begin, of all of them together, than a member can run at a time."""
        together = Allowance(CONCURRENCY)
        for epoch in self._open(keys):
            if epoch.may_begin.left == inf:
                epoch.may_begin = together

    def _over(self, keys: Sequence[Key], at: float, until: float | None = None) -> None:
        """Not by a revocation."""
        self._limit(keys)
        for epoch in self._open(keys):
            epoch.end(at, until=until)
        self._forget(keys)

    def _forget(self, keys: Iterable[Key]) -> None:
        gone = set(keys)
        self._unfinished = {what: u for what, u in self._unfinished.items() if u.key not in gone}

    # -- revocations -------------------------------------------------------------------------------

    def _revoked(self, keys: Sequence[Key], at: float) -> None:
        cut = {key: self._cut_short(key, at) for key in keys}
        for key in keys:
            for epoch in self._open([key]):
                epoch.end(at, clean=not cut[key] and key not in self._uncommitted)
            self._revoking.pop(key, None)
        self._forget(keys)

    def _cut_short(self, key: Key, at: float) -> bool:
        """Whether its drain took all its time, or gave up what is refused; and something was not finished."""
        since = min(self._revoking.get(key, at), self._asked.get(key.who, inf))
        refused = self._refused.get(key[:2], -inf)
        took_all = at - since >= DRAIN - 0.5
        if took_all and refused >= since:
            return True
        if not took_all and refused < since - DRAIN:
            return False
        for left in self._unfinished.values():
            # With transactions, one of the whole feed waits for all that goes with it.
            waits = left.key[:2] == key[:2] if self._exactly_once else left.key == key
            if waits and left.began <= since + _TAKEN_BY:
                return True
        return False

    # -- what is under way -------------------------------------------------------------------------

    def _step(self, event: Event) -> None:
        what = event["who"], event["id"], event["attempt"]
        key = Key(event["who"], *event["place"][:2])
        epoch = self._latest.get(key)
        ours = epoch is not None and epoch.step(event)
        if event["event"] == "start":
            if ours and epoch is not None and epoch.ended == inf:
                self._unfinished[what] = _Unfinished(key, event["t"])
        elif event["how"] == "fail" and event["attempt"] < MAX_ATTEMPTS and event["delay"] <= IN_MEMORY:
            self._unfinished.pop(what, None)  # it waits in memory, and no drain waits for that

    def _answered(self, event: Event) -> None:
        what = event["who"], event["id"], event["attempt"]
        left = self._unfinished.get(what)
        if left is None:
            return
        if event["event"] == "unwritten":
            self._refused[left.key[:2]] = event["t"]
        elif number := event.get("transaction"):
            left.transaction = number
        else:
            del self._unfinished[what]

    def _committed(self, event: Event) -> None:
        commit = self._made.pop((event["who"], event["number"]), None)
        if commit is None:
            return
        places = _places(commit)
        self._uncommitted.difference_update(places)
        for epoch in self._open(places):
            epoch.told.append(commit["t"])
        if number := event.get("transaction"):
            who = event["who"]
            self._unfinished = {
                what: left
                for what, left in self._unfinished.items()
                if not (left.key.who == who and left.transaction == number)
            }


def _places(commit: Event) -> list[Key]:
    return [Key(commit["who"], topic, partition) for topic, partition, _ in commit["offsets"]]

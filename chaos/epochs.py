"""Who owned which partition from when to when, and what it did then: from the events of a run.

Promise: what a member does belongs to an ownership only while it had it, or as little later as a thread needs
that was just about to begin; and an end counts as clean unless something was seen to be cut short.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from chaos.events import Event
from chaos.workload import CONCURRENCY, DRAIN, IN_MEMORY, MAX_ATTEMPTS

__all__ = ["Epoch", "epochs_of"]

_TAKEN_BY = 0.5
"""Seconds from a loss to the first words of a handler whose record was taken before it, on a busy machine.
There may be as many as can run at a time, not more."""

Key = tuple[str, str, int]
"""Member, topic, partition."""


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
    starts_left: float = inf
    """As many may still begin."""

    def end(self, at: float, *, clean: bool = False, until: float | None = None) -> None:
        """It is over; what another thread was about to say may come `until` then."""
        self.ended, self.clean, self.until = at, clean, at if until is None else until

    def step(self, event: Event) -> None:
        """A start or an end, if it is one of this ownership."""
        if event["t"] > self.until:
            return
        if event["event"] == "start":
            if self.starts_left <= 0:
                return
            self.starts_left -= 1
        self.steps.append(event)


def epochs_of(events: Sequence[Event]) -> list[Epoch]:
    """All of a run, by their beginnings."""
    members = _Members()
    for event in events:
        members.tell(event)
    return members.found


class _Members:
    """What is known at one moment of the run."""

    def __init__(self) -> None:
        self.found: list[Epoch] = []
        self._latest: dict[Key, Epoch] = {}
        self._revoking: dict[Key, float] = {}
        self._asked: dict[str, float] = {}
        """When a process was asked to stop: its drain's time begins there."""
        self._unfinished: dict[tuple[str, str, int], Key] = {}
        """Member, order and attempt that began and wrote nothing yet, and of which partition."""
        self._unwritten: dict[str, float] = {}
        """When a member's write last got no good answer."""
        self._made: dict[tuple[str, int], Event] = {}
        self._uncommitted: set[Key] = set()
        """Whose last commit was refused or not answered."""

    def tell(self, event: Event) -> None:
        """What happened next."""
        who, t = event["who"], event["t"]
        keys = [(who, topic, partition) for topic, partition in event.get("partitions", ())]
        match event["event"]:
            case "began":
                self._over(self._of(who), t)
                for key in self._of(who):
                    del self._latest[key]
                self._asked.pop(who, None)
            case "signal" if event["signal"] == "SIGTERM":
                self._asked[event["member"]] = t
            case "assigned":
                for key in keys:
                    self._begin(key, t)
            case "revoking":
                self._revoking.update(dict.fromkeys(keys, t))
            case "revoked":
                for key in keys:
                    self._revoked(key, t)
            case "losing":
                for key in keys:
                    if key in self._latest:
                        self._latest[key].starts_left = CONCURRENCY
            case "lost":
                self._over(keys, t, until=t + _TAKEN_BY)
            case "died":
                self._over(self._of(who), t, until=t + _TAKEN_BY)
            case "start" | "end" | "written" | "unwritten":
                self._step(event)
            case "commit":
                self._made[who, event["number"]] = event
                self._uncommitted.update((who, *offset[:2]) for offset in event["offsets"])
            case "committed":
                commit = self._made.pop((who, event["number"]), {"offsets": ()})
                for key in [(who, *offset[:2]) for offset in commit["offsets"]]:
                    self._uncommitted.discard(key)
                    if key in self._latest and self._latest[key].ended == inf:
                        self._latest[key].told.append(commit["t"])

    def _of(self, who: str) -> list[Key]:
        return [key for key in self._latest if key[0] == who]

    def _begin(self, key: Key, at: float) -> None:
        self._latest[key] = Epoch(key[0], key[1:], at)
        self.found.append(self._latest[key])
        self._uncommitted.discard(key)
        self._forget([key])

    def _over(self, keys: Iterable[Key], at: float, until: float | None = None) -> None:
        """Not by a revocation."""
        keys = list(keys)
        for epoch in [self._latest[key] for key in keys if key in self._latest]:
            if epoch.ended == inf:
                epoch.end(at, until=until)
                epoch.starts_left = min(epoch.starts_left, CONCURRENCY)
        self._forget(keys)

    def _forget(self, keys: list[Key]) -> None:
        gone = set(keys)
        self._unfinished = {what: key for what, key in self._unfinished.items() if key not in gone}

    def _revoked(self, key: Key, at: float) -> None:
        since = min(self._revoking.pop(key, at), self._asked.get(key[0], inf))
        whole = at - since < DRAIN - 0.5 or not self._cut_short(key[0], since)
        epoch = self._latest.get(key)
        if epoch is not None and epoch.ended == inf:
            epoch.end(at, clean=whole and key not in self._uncommitted)

    def _cut_short(self, who: str, since: float) -> bool:
        """Whether there was anything that a drain may wait for; one whole transaction waits for all of it."""
        return self._unwritten.get(who, -inf) >= since or any(k[0] == who for k in self._unfinished.values())

    def _step(self, event: Event) -> None:
        who, what = event["who"], (event["who"], event["id"], event["attempt"])
        if event["event"] in ("written", "unwritten"):
            self._unfinished.pop(what, None)
            if event["event"] == "unwritten":
                self._unwritten[who] = event["t"]
            return
        key = (who, *event["place"][:2])
        if key in self._latest:
            self._latest[key].step(event)
        if event["event"] == "start":
            self._unfinished[what] = key
        elif event["how"] == "fail" and event["attempt"] < MAX_ATTEMPTS and event["delay"] <= IN_MEMORY:
            self._unfinished.pop(what, None)  # it waits in memory, and no drain waits for that

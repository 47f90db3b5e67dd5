"""Where reading of a partition begins; the rule of decision 11: an explicit offset always, no silent reset.

Pure: what was committed and what the cluster says of the logs come in; starts, and what to tell of them, come
out.

A partition without a commit was there before its group began, or has appeared since; of the latter nothing
may be skipped. The metadata beside the commits of the topic's other partitions (`engine.offset_map`) tells
which it is: how many partitions there were when the group began. That outlives the process.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from relance.engine.offset_map import Head, belongs, home_text, read_head
from relance.engine.parallel_consumer import read_parallel_consumer_map
from relance.kafka.cluster import Committed, Identity, Watermarks
from relance.record import TopicPartition
from relance.text import one_line

__all__ = ["Feed", "Logs", "Seen", "Start", "Telling", "Where", "needs_ends", "needs_others", "starts_of"]

_log = logging.getLogger("relance.kafka")

_NAMED = 3  # partitions in a line that stands for many
_CHARACTERS = 100  # of a cluster's name: anyone may have written it

Where = Literal["earliest", "latest", "fail"]


@dataclass(frozen=True, slots=True)
class Feed:
    """What one client reads: `name` tells the hub which ("source" or "retry")."""

    name: str
    topics: tuple[str, ...]
    group: str
    start: Where = "earliest"
    on_out_of_range: Where = "fail"


@dataclass(frozen=True, slots=True)
class Start:
    """Where reading of a partition begins, and the metadata of the commit it comes from."""

    tp: TopicPartition
    offset: int
    metadata: str
    topic_id: str
    problem: str | None = None
    """Why nothing of it may be read (its committed offset is gone), or None."""
    home: str = ""
    """What its commits say of cluster and beginning; see `offset_map.home_text`."""
    unbegun: bool = False
    """Whether nothing may be read before its first commit is acknowledged: with `latest`, if this process
    handled something and died before, the next one would skip what came after that."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Which topics they are now, on which cluster; and which they were when this process began."""

    cluster: str
    """"" where nobody says."""
    now: Mapping[str, Identity]
    first: Mapping[str, Identity]


class Logs(Protocol):
    """What a poller asks about the logs. Both methods raise RelanceError where no answer comes."""

    def seen(self, topics: Collection[str]) -> Seen:
        """Which topics they are."""

    def ends(self, tps: Collection[TopicPartition]) -> Mapping[TopicPartition, Watermarks]:
        """Both ends of their logs, as a `read_committed` reader sees them; not of those without a leader."""


class _Began(NamedTuple):
    """How many partitions a topic had when its group began; those beyond have appeared since."""

    partitions: int
    sure: bool = True
    """False where it is only guessed by the partitions that have a commit."""


_NOTHING = Committed(-1, "")


def _began_with(
    topic: str,
    committed: Mapping[TopicPartition, Committed],
    seen: Seen,
    feed: Feed,
    assigned: Collection[TopicPartition],
) -> _Began:
    """What the group's commits in `topic` say of its beginning; `assigned`: what is given out is there."""
    now, first = seen.now[topic], seen.first.get(topic)
    there = max([now.partitions, *(1 + tp.partition for tp in assigned if tp.topic == topic)])
    of_topic = {tp.partition: c for tp, c in committed.items() if tp.topic == topic and c.offset >= 0}
    heads = [read_head(c.metadata) for c in of_topic.values()]
    ours = [head for head in heads if head is not None]
    known = [h.began for h in ours if h.began is not None and _of_this(h, seen.cluster, now.id)]
    if known:
        began = _Began(min(known))
    elif any(not _of_this(head, seen.cluster, now.id) for head in ours) or _other(first, now):
        # The group is older than this log, so nothing in it was there before the group.
        began = _Began(0)
    elif of_topic and feed.start != "fail":  # which asks a person rather than guess
        began = _Began(1 + max(of_topic), sure=False)
    else:
        began = _Began(there)
    if first is not None and first.id == now.id and first.partitions < began.partitions:
        began = _Began(first.partitions, began.sure)
    return began


def _of_this(head: Head, cluster: str, topic_id: str) -> bool:
    return not _moved(head, cluster) and (not head.topic_id or not topic_id or head.topic_id == topic_id)


def _moved(head: Head, cluster: str) -> bool:
    """Whether it was written on another cluster; where one of the two is not known, it was not."""
    return bool(head.cluster and cluster and head.cluster != cluster)


def _other(first: Identity | None, now: Identity) -> bool:
    return first is not None and bool(first.id and now.id) and first.id != now.id


class Telling:
    """What is said of the starts of one assignment: one line for what many have in common."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, str], list[TopicPartition]] = {}

    def add(self, level: int, text: str, tp: TopicPartition) -> None:
        """`text` is true of `tp`; the first `{}` in it is where the partitions go."""
        self._found.setdefault((level, text), []).append(tp)

    def lines(self) -> list[tuple[int, str]]:
        """Level and text."""
        return [(level, text.replace("{}", _named(tps), 1)) for (level, text), tps in self._found.items()]

    def log(self) -> None:
        """Say it."""
        for level, line in self.lines():
            _log.log(level, "%s", line)


def _named(tps: Sequence[TopicPartition]) -> str:
    named = ", ".join(map(str, sorted(tps)[:_NAMED]))
    return named if len(tps) <= _NAMED else f"{named} and {len(tps) - _NAMED} more"


def starts_of(
    tps: Collection[TopicPartition],
    committed: Mapping[TopicPartition, Committed],
    ends: Mapping[TopicPartition, Watermarks],
    seen: Seen,
    feed: Feed,
    telling: Telling,
) -> list[Start]:
    """Where to begin. `committed` may hold other partitions of the same topics, too, which tell more.

    `ends` may lack partitions, but for those of `needs_ends`.
    """
    began = {topic: _began_with(topic, committed, seen, feed, tps) for topic in {tp.topic for tp in tps}}
    return [
        _start(tp, committed.get(tp, _NOTHING), ends.get(tp), began[tp.topic], seen, feed, telling)
        for tp in tps
    ]


def needs_others(
    tps: Collection[TopicPartition], committed: Mapping[TopicPartition, Committed], seen: Seen
) -> set[TopicPartition]:
    """Other partitions of the same topics, whose commits must show, too, how the group began."""
    found: set[TopicPartition] = set()
    for topic in {tp.topic for tp in tps}:
        now = seen.now[topic]
        mine = [tp for tp in tps if tp.topic == topic]
        heads = [read_head(committed[tp].metadata) for tp in mine if tp in committed]
        if not any(
            h is not None and h.began is not None and _of_this(h, seen.cluster, now.id) for h in heads
        ):
            found |= {TopicPartition(topic, partition) for partition in range(now.partitions)}
    return found - set(tps)


def needs_ends(
    tps: Collection[TopicPartition], committed: Mapping[TopicPartition, Committed], seen: Seen
) -> set[TopicPartition]:
    """Those of which nobody can say where to begin without the ends of their logs.

    A commit of ours the client may try: if it is out of range, that is heard of, and decided, then. So a
    partition without a leader holds up no other.
    """
    found = set()
    for tp in tps:
        at, metadata = committed.get(tp, _NOTHING)
        head = read_head(metadata)
        if at < 0 or head is None or not _of_this(head, seen.cluster, seen.now[tp.topic].id):
            found.add(tp)
    return found


def _start(
    tp: TopicPartition,
    committed: Committed,
    marks: Watermarks | None,
    began: _Began,
    seen: Seen,
    feed: Feed,
    telling: Telling,
) -> Start:
    topic_id = seen.now[tp.topic].id
    home = home_text(seen.cluster, began.partitions)
    at, metadata = committed
    if marks is None:
        return Start(tp, at, metadata, topic_id, None, home)
    begin, end = marks
    head = read_head(metadata)
    if at < 0:
        offset, problem = _without_commit(tp, marks, began, seen, feed, telling)
        unbegun = feed.start == "latest" and tp.partition < began.partitions
        return Start(tp, offset, "", topic_id, problem, home, unbegun=unbegun)
    if head is not None and _moved(head, seen.cluster):
        cluster = one_line(head.cluster[:_CHARACTERS])
        telling.add(
            logging.WARNING,
            f"the offset of {{}} was committed on another cluster ({cluster}): it is believed, and what"
            " was finished above it there is handled again",
            tp,
        )
        metadata = ""
    elif not belongs(metadata, topic_id):
        telling.add(
            logging.WARNING,
            "the topic of {} was made again since its offset was committed: read anew from its beginning",
            tp,
        )
        return Start(tp, begin, "", topic_id, None, home)
    if begin <= at <= end:
        if metadata and head is None and not _fits(tp, metadata, at, end, telling):
            metadata = ""
        return Start(tp, at, metadata, topic_id, None, home)
    where = feed.on_out_of_range
    problem = None
    if where == "fail":
        problem = (
            f"{tp}: committed offset {at} is outside the log {begin}..{end} (group {feed.group}); choose"
            " where to go on with on_out_of_range='earliest' or 'latest'"
        )
    else:
        telling.add(
            logging.WARNING,
            f"{{}}: committed offset {at} is outside the log {begin}..{end}; reading goes on at its"
            f" {'end' if where == 'latest' else 'beginning'} (on_out_of_range={where!r})",
            tp,
        )
    return Start(tp, end if where == "latest" else begin, "", topic_id, problem, home)


def _without_commit(
    tp: TopicPartition, marks: Watermarks, began: _Began, seen: Seen, feed: Feed, telling: Telling
) -> tuple[int, str | None]:
    """The offset, and the problem."""
    begin, end = marks
    if feed.start == "earliest":
        return begin, None
    if tp.partition >= began.partitions:
        if began.partitions == 0:
            why = "{} has no committed offset, and the group is older than its log: read from its beginning"
        elif began.sure:
            why = "{} has appeared since the group began to read the topic: read from its beginning"
        else:
            why = (
                "{} has no committed offset, and stands above those that have: it is taken to have appeared"
                " since the group began, and read from its beginning"
            )
        telling.add(logging.INFO if began.sure else logging.WARNING, why, tp)
        return begin, None
    if feed.start == "fail":
        return begin, (
            f"{tp}: group {feed.group} has no committed offset, and the log holds {begin}..{end}; choose"
            " where to begin with start='earliest' or 'latest'"
        )
    telling.add(logging.INFO, "{} has no committed offset: read from its end (start='latest')", tp)
    return end, None


def _fits(tp: TopicPartition, metadata: str, committed: int, end: int, telling: Telling) -> bool:
    """Whether what another client left beside its commit is a map that may be believed; says so."""
    theirs = read_parallel_consumer_map(metadata, committed)
    if theirs is None:
        telling.add(
            logging.WARNING,
            "the metadata beside the committed offset of {} is no map that relance reads; if Parallel"
            " Consumer wrote it, what it had finished above that offset is handled again",
            tp,
        )
    elif theirs.end > end:  # it names no incarnation of the topic, as ours does
        telling.add(
            logging.WARNING,
            f"{{}}: Parallel Consumer's map reaches to offset {theirs.end} and the log to {end}, so it is of"
            f" another log; all from committed offset {committed} on is handled",
            tp,
        )
    else:
        if theirs.end > committed:
            telling.add(
                logging.INFO,
                f"{{}}: Parallel Consumer left {len(theirs.unfinished)} offsets unfinished in"
                f" {committed}..{theirs.end - 1}; the others there are skipped",
                tp,
            )
        return True
    return False

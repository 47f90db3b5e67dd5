"""Where reading of a partition begins; the rule of decision 11: an explicit offset always, no silent reset.

Pure: what was committed and what the log holds come in, a `Start` comes out.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

from relance.engine.offset_map import belongs, is_ours
from relance.engine.parallel_consumer import read_parallel_consumer_map
from relance.record import TopicPartition

__all__ = ["Feed", "Start", "Where", "start_at"]

_log = logging.getLogger("relance.kafka")

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


def start_at(
    tp: TopicPartition, committed: int, metadata: str, topic_id: str, begin: int, end: int, feed: Feed
) -> Start:
    """Where to begin, given the committed offset (negative: none), its metadata and the log's two ends."""
    if committed >= 0 and not belongs(metadata, topic_id):
        _log.warning("%s was made again since offset %d was committed: starting anew", tp, committed)
        committed, metadata = -1, ""
    if begin <= committed <= end:
        if metadata and not is_ours(metadata) and not _fits(tp, metadata, committed, end):
            metadata = ""
        return Start(tp, committed, metadata, topic_id)
    out_of_range = committed >= 0
    where = feed.on_out_of_range if out_of_range else feed.start
    if where == "fail":
        found = f"committed offset {committed} is outside" if out_of_range else "no committed offset;"
        problem = (
            f"{tp}: {found} the log {begin}..{end} of group {feed.group}; choose where to go on with"
            f" {'on_out_of_range' if out_of_range else 'start'}='earliest' or 'latest'"
        )
        return Start(tp, begin, "", topic_id, problem)
    if out_of_range:
        _log.warning(
            "%s: committed offset %d is outside the log %d..%d; %s", tp, committed, begin, end, where
        )
    return Start(tp, begin if where == "earliest" else end, "", topic_id)


def _fits(tp: TopicPartition, metadata: str, committed: int, end: int) -> bool:
    """Whether what another client left beside its commit is a map that may be believed; says so."""
    theirs = read_parallel_consumer_map(metadata, committed)
    if theirs is None:
        _log.warning(
            "%s: the metadata beside committed offset %d is no map that relance reads; if Parallel Consumer"
            " wrote it, what it had finished above that offset is handled again",
            tp,
            committed,
        )
    elif theirs.end > end:  # it names no incarnation of the topic, as ours does
        _log.warning(
            "%s: Parallel Consumer's map reaches to offset %d and the log to %d, so it is of another log;"
            " all from committed offset %d on is handled",
            tp,
            theirs.end,
            end,
            committed,
        )
    else:
        if theirs.end > committed:
            _log.info(
                "%s: Parallel Consumer left %d offsets unfinished in %d..%d; the others there are skipped",
                tp,
                len(theirs.unfinished),
                committed,
                theirs.end - 1,
            )
        return True
    return False

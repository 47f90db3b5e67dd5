"""Where reading of a partition begins; the rule of decision 11: an explicit offset always, no silent reset.

Pure: what was committed and what the log holds come in, a `Start` comes out.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

from relance.engine.offset_map import belongs
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

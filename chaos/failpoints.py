"""Named points at which a member may die: the crash points of one record, each before or after a call.

They are no part of the engine: arming one replaces a method of the class in this process by one that kills
the process at its n-th passage. So what is not armed costs nothing.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import signal
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from chaos.events import Log


class Point(NamedTuple):
    """Where: a method, by the path of its class."""

    owner: str
    method: str
    when: Literal["before", "after"]
    handoff: Literal["", "acknowledged", "transactional"] = ""
    """Where it is passed at all: with which kind of hand-off; empty: both."""


POINTS: dict[str, Point] = {
    "polled": Point("relance.runtime:Runtime", "received", "before"),
    "mid-handler": Point("relance.record:Record", "send", "before"),
    "handled": Point("relance.failures:Failures", "returned", "before"),
    "handoff-submitted": Point("relance.consumer:Consumer", "write", "after"),
    "handoff-acknowledged": Point("relance.runtime:Runtime", "settled", "before", "acknowledged"),
    "settled-uncommitted": Point("relance.runtime:Runtime", "settled", "after", "acknowledged"),
    "commit-made": Point("relance.runtime:Runtime", "commits", "after", "acknowledged"),
    "commit-sent": Point("chaos.watched:WatchedConsumer", "commit", "after", "acknowledged"),
    "commit-answered": Point("relance.runtime:Runtime", "committed", "before", "acknowledged"),
    "revoking": Point("relance.runtime:Runtime", "revoking", "before"),
    "drained": Point("relance.runtime:Runtime", "revoking", "after"),
    "transaction-open": Point(
        "relance.kafka.transactional:TransactionalProducer", "begin", "after", "transactional"
    ),
    "transaction-written": Point(
        "relance.kafka.transactional:TransactionalProducer", "write", "after", "transactional"
    ),
    "offsets-sent": Point(
        "relance.kafka.transactional:TransactionalProducer", "send_offsets", "after", "transactional"
    ),
    "transaction-ended": Point(
        "relance.kafka.transactional:TransactionalProducer", "commit", "after", "transactional"
    ),
}


def arm(name: str, hits: int, log: Log) -> None:
    """Die at the `hits`-th passage of the point of that name."""
    point = POINTS[name]
    module, _, kind = point.owner.partition(":")
    owner = getattr(importlib.import_module(module), kind)
    original: Callable[..., Any] = getattr(owner, point.method)
    passages = itertools.count(1)

    def die() -> None:
        if next(passages) == hits:
            log.write("died", failpoint=name)
            os.kill(os.getpid(), signal.SIGKILL)

    @functools.wraps(original)
    def passed(*args: Any, **kwargs: Any) -> Any:
        if point.when == "before":
            die()
        result = original(*args, **kwargs)
        if point.when == "after":
            die()
        return result

    setattr(owner, point.method, passed)

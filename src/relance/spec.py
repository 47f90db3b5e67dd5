"""What one `@app.consumer` was asked for, and what of it cannot be meant.

Promise: a combination that would lose, mix up or never end a record is refused when the handler is
registered, with the option named; nothing of it is left to be found out at three in the morning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from relance.contracts import Plan
from relance.decoding import HandlerShape
from relance.engine.engine import Ordering
from relance.engine.flow import Limits
from relance.engine.outcome import Paths
from relance.errors import MAX_WAIT, SettingsError
from relance.kafka.cluster import checked_topic_name
from relance.kafka.starts import Feed, Where
from relance.outgoing import NOTHING_HIDDEN
from relance.policies.breaker import CircuitBreaker
from relance.policies.masking import Mask
from relance.policies.retry import RetryPolicy
from relance.settings import Settings

__all__ = [
    "ConsumerSpec",
    "HandOff",
    "Workers",
    "check_assignor",
    "check_handling",
    "check_handoff",
    "check_options",
    "check_spec",
    "checked_max_crashes",
    "default_workers",
    "feeds_of",
    "plan_of",
]

HandOff = Literal["acknowledged", "transactional"]
Workers = Literal["loop", "inline", "threads", "processes"]

_DEFAULT_WAIT = Paths(None, None).max_in_memory_wait

# Records buffered at least, and for each that may be handled at once. More would not be faster: poller and
# handler take turns at the interpreter, and what waits longer is out of the caches (measured: a tenth).
_READY, _READY_FOR_EACH = 2_500, 32
_IN_PATTERNS = frozenset("^$*+?|()[]{}\\")
"""Characters that no topic's name holds, and that make it a regular expression."""


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """What the decorator was given."""

    handler: Callable[..., Any]
    shape: HandlerShape
    topics: tuple[str, ...]
    retry: RetryPolicy
    paths: Paths
    ordering: Ordering
    concurrency: int
    workers: Workers
    batch: int | None
    timeout: float | None
    assignor: str
    start: Where
    on_out_of_range: Where
    breaker: CircuitBreaker | None = None
    handoff: HandOff = "acknowledged"
    max_crashes: int = 2
    mask: Mask = NOTHING_HIDDEN

    @property
    def all_topics(self) -> list[str]:
        """Every topic it reads or writes."""
        return [*self.topics, *self.written]

    @property
    def written(self) -> list[str]:
        """Every topic it writes."""
        others = (self.paths.retry_topic, self.paths.dead_letter_topic)
        return [topic for topic in others if topic is not None]


def check_options(
    topics: tuple[str, ...],
    retry: RetryPolicy | None,
    paths: Paths,
    ordering: str,
    concurrency: int,
    strict_order: bool,
    breaker: CircuitBreaker | None = None,
) -> None:
    """What can be seen without the handler. Raises SettingsError."""
    if len(topics) == 1 and callable(topics[0]):
        raise SettingsError("topics", "@app.consumer takes the topics: write @app.consumer('orders')")
    if not topics:
        raise SettingsError("topics", "name at least one topic to consume")
    others = {"retry_topic": paths.retry_topic, "dead_letter_topic": paths.dead_letter_topic}
    named = [("topics", topic) for topic in topics] + [
        (k, topic) for k, topic in others.items() if topic is not None
    ]
    for key, topic in named:
        if _is_pattern(topic):
            raise SettingsError(
                key, f"{topic!r} is a pattern; topics are read by their names only: name each of them"
            )
        if not isinstance(topic, str):
            raise SettingsError(key, f"{topic!r} is not the name of a topic")
        checked_topic_name(topic, key)
    if len(set(topics)) < len(topics):
        raise SettingsError("topics", f"{', '.join(topics)}: one is named twice")
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise SettingsError("retry", f"{retry!r} is no RetryPolicy: RetryPolicy.exponential(max_attempts=5)")
    if breaker is not None and not isinstance(breaker, CircuitBreaker):
        raise SettingsError("breaker", f"{breaker!r:.60} is no CircuitBreaker: CircuitBreaker(window=20)")
    if ordering not in ("partition", "key", "none"):
        raise SettingsError("ordering", f"{ordering!r} is none of partition, key, none")
    if type(concurrency) is not int or not 1 <= concurrency <= 100_000:
        raise SettingsError("concurrency", f"{concurrency!r} is not a number from 1 to 100000")
    wait = paths.max_in_memory_wait
    if type(wait) not in (int, float) or not 0 <= wait <= 3600:
        raise SettingsError("max_in_memory_wait", f"{wait!r} is not 0 to 3600 seconds")
    for key, switch in (("strict_order", strict_order), ("dead_letter_pointer", paths.pointer)):
        if type(switch) is not bool:
            raise SettingsError(key, f"{switch!r} is neither True nor False")
    for key, other in others.items():
        if other in topics:
            raise SettingsError(
                key, f"{other!r} is a source topic too: its records would come round for ever"
            )
    if paths.retry_topic is not None and paths.retry_topic == paths.dead_letter_topic:
        raise SettingsError("dead_letter_topic", f"{paths.retry_topic!r} is the retry topic too")
    _check_without_effect(retry, paths, ordering, strict_order)


def _check_without_effect(retry: RetryPolicy | None, paths: Paths, ordering: str, strict_order: bool) -> None:
    """Refuse options that would have no effect, or that contradict each other. Raises SettingsError."""
    if strict_order and paths.retry_topic is not None:
        raise SettingsError(
            "strict_order", f"forbids deferral, so leave out retry_topic={paths.retry_topic!r}"
        )
    if strict_order and ordering == "none":
        raise SettingsError("strict_order", "True and ordering='none' exclude each other: there is no order")
    if paths.retry_topic is not None and retry is None:
        raise SettingsError(
            "retry_topic",
            f"without retry= no record is tried again, so none would go to {paths.retry_topic!r}: add"
            " retry=RetryPolicy.exponential(), or leave it out; to work off what lies there, and add nothing,"
            " retry=RetryPolicy.immediate(max_attempts=1)",
        )
    if paths.retry_topic is None and paths.max_in_memory_wait != _DEFAULT_WAIT:
        raise SettingsError(
            "max_in_memory_wait",
            f"{paths.max_in_memory_wait:g} says which waits go to the retry topic, and there is none: add"
            " retry_topic=, or leave it out, then all waits are in memory",
        )
    if paths.pointer and paths.dead_letter_topic is None:
        raise SettingsError(
            "dead_letter_pointer", "is about dead letters, and there is no dead_letter_topic: add it"
        )


def check_assignor(assignor: str | None, settings: Settings) -> None:
    """An assignor of the consumer's own, if it names one. Raises SettingsError."""
    if assignor is not None and settings.client.get("group.protocol") == "consumer":
        raise SettingsError(
            "assignor",
            f"{assignor!r} is for the classic protocol; with group.protocol=consumer the broker shares out:"
            " leave it out, or name an assignor of the broker's in client group.remote.assignor",
        )


def _is_pattern(topic: object) -> bool:
    if isinstance(topic, re.Pattern):
        return True
    return isinstance(topic, str) and not _IN_PATTERNS.isdisjoint(topic)


def check_handling(workers: Workers | None, batch: int | None, timeout: float | None) -> None:
    """How the handler is called. Raises SettingsError."""
    if workers not in (None, "loop", "inline", "threads", "processes"):
        raise SettingsError("workers", f"{workers!r} is none of inline, threads, processes, loop")
    if batch is not None and (type(batch) is not int or not 1 <= batch <= 10_000):
        raise SettingsError("batch", f"{batch!r} is not a number of records from 1 to 10000")
    if timeout is not None and (type(timeout) not in (int, float) or not 0 < timeout <= MAX_WAIT):
        raise SettingsError("timeout", f"{timeout!r} is not a number of seconds, above 0 and at most a day")


def checked_max_crashes(found: int | None) -> int:
    """Deaths of the process that make a dead letter; 0 for never. Raises SettingsError."""
    if found is not None and (type(found) is not int or not 0 <= found <= 1000):
        raise SettingsError("max_crashes", f"{found!r} is not a number from 0 to 1000, or None (as 0: never)")
    return found or 0


def default_workers(shape: HandlerShape, concurrency: int) -> Workers:
    """Where a handler runs if nobody says."""
    if shape.is_async:
        return "loop"
    return "inline" if concurrency == 1 else "threads"


def feeds_of(spec: ConsumerSpec, group: str) -> list[Feed]:
    """What it reads: its source, and its retry topic in a group of its own."""
    feeds = [Feed("source", spec.topics, group, spec.start, spec.on_out_of_range)]
    if spec.paths.retry_topic is not None:
        # A retry record is our own promise: none is skipped because the source is read from its end on. If
        # retention has taken some, that is a loss like any other.
        lost: Where = "fail" if spec.on_out_of_range == "fail" else "earliest"
        feeds.append(Feed("retry", (spec.paths.retry_topic,), f"{group}.retry", "earliest", lost))
    return feeds


def plan_of(spec: ConsumerSpec, settings: Settings, owner: str = "") -> Plan:
    """What a runtime needs to know of it; `owner` as in `Plan`."""
    return Plan(
        group=settings.group or "",
        retry=spec.retry,
        paths=spec.paths,
        ordering=spec.ordering,
        limits=Limits(
            ready=settings.max_buffered_records or max(_READY, _READY_FOR_EACH * spec.concurrency),
            ready_bytes=settings.max_buffered_bytes,
            parked_bytes=2 * settings.max_buffered_bytes,
        ),
        drain_timeout=settings.drain_timeout,
        timeout=spec.timeout,
        batch=spec.batch or 1,
        max_crashes=spec.max_crashes,
        handler=spec.shape.name,
        mask=spec.mask,
        owner=owner,
    )


def check_handoff(handoff: str, settings: Settings) -> None:
    """How what belongs to a record is written. Raises SettingsError."""
    if handoff not in ("acknowledged", "transactional"):
        raise SettingsError("handoff", f"{handoff!r} is none of acknowledged, transactional")
    level = settings.client.get("isolation.level", "read_committed")
    if handoff == "transactional" and level != "read_committed":
        # It would read what is aborted later, and start where a transaction under way may still commit.
        raise SettingsError(
            "client.isolation.level", f"{level!r} and handoff='transactional' exclude each other"
        )


def check_spec(spec: ConsumerSpec, *, beside: Iterable[ConsumerSpec]) -> None:
    """What only the handler shows, and the consumers that its App has already. Raises SettingsError."""
    name = spec.shape.name
    if spec.shape.is_async != (spec.workers == "loop"):
        kind = "async" if spec.shape.is_async else "sync"
        raise SettingsError("workers", f"{name} is {kind}, so it cannot run with workers={spec.workers!r}")
    if spec.workers == "inline" and spec.concurrency != 1:
        raise SettingsError("concurrency", f"inline, {name} runs one record at a time; or workers='threads'")
    if spec.workers == "processes" and spec.batch is not None:
        raise SettingsError("batch", f"{name} runs in processes, which take one record at a time")
    slow = None if spec.breaker is None else spec.breaker.slow_call_duration
    ends_calls = spec.timeout is not None and spec.workers in ("loop", "processes")
    if slow is not None and ends_calls and slow > (spec.timeout or 0.0):
        raise SettingsError(
            "breaker",
            f"slow_call_duration {slow:g} is above timeout {spec.timeout:g}, so each call of {name} is ended"
            " before it is slow: lower it, or raise timeout",
        )
    mine = _reads(spec)
    for other in beside:
        _check_shared(spec, other)
        _check_crossed(spec, other)
        for topic in sorted(mine.keys() & _reads(other).keys()):
            # One group hands each partition to one client: each handler would get some of the other's.
            raise SettingsError(
                mine[topic],
                f"{topic!r} is read by {other.shape.name} of the same App: {spec.shape.name} would get"
                " some of its records; give it a topic or an App (a group) of its own",
            )


def _check_shared(spec: ConsumerSpec, other: ConsumerSpec) -> None:
    mine, theirs = spec.breaker, other.breaker
    if mine is None or theirs is None or mine.name is None or mine.name != theirs.name or mine == theirs:
        return
    raise SettingsError(
        "breaker",
        f"{mine.name!r} is one breaker for all that name it, and {spec.shape.name} wants it otherwise than"
        f" {other.shape.name} of the same App: {mine!r} is not {theirs!r}; give both the same object, or one"
        " another name",
    )


def _check_crossed(spec: ConsumerSpec, other: ConsumerSpec) -> None:
    for letters, retries in ((spec, other), (other, spec)):
        topic = letters.paths.dead_letter_topic
        if topic is not None and topic == retries.paths.retry_topic:
            # A letter is no retry record, so it would be dead-lettered once more, perhaps in a circle.
            raise SettingsError(
                "dead_letter_topic" if letters is spec else "retry_topic",
                f"{topic!r} takes the dead letters of {letters.shape.name} and the retries of"
                f" {retries.shape.name} of the same App: give each a topic of its own",
            )


def _reads(spec: ConsumerSpec) -> dict[str, str]:
    """Every topic it reads, with the option that names it."""
    found = dict.fromkeys(spec.topics, "topics")
    if spec.paths.retry_topic is not None:
        found[spec.paths.retry_topic] = "retry_topic"
    return found

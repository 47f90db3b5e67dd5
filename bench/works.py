"""The works: what is asked of each peer, how much of it, and which figures relance must reach.

Promise: the targets are those of the table in docs/benchmarks.md, and each is looked up in the same results
as are printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.records import PARTITIONS

ROUNDS, QUICK_ROUNDS = 5, 3

Kind = Literal["throughput", "fed", "alone", "startup"]


@dataclass(frozen=True, slots=True)
class Target:
    """What relance must reach: a figure of its own, or its ratio to a peer's records a second."""

    text: str
    bound: float
    at_least: bool = False
    figure: str = ""
    """A field of relance's own entry; or empty:"""
    against: str = ""
    """the peer that its speed is divided by."""
    case: str = ""
    """Which of relance's entries, where the work has several."""


@dataclass(frozen=True, slots=True)
class Work:
    """One work. `peers` are all that can do it, in the order of the table; the first is relance."""

    name: str
    title: str
    kind: Kind
    peers: tuple[str, ...]
    targets: tuple[Target, ...] = ()
    keys: int = 1000
    bad_fraction: float = 0.0
    partitions: int = PARTITIONS
    n: int = 0
    """Records, where the number is part of the work; for throughput the least."""
    quick_n: int = 0
    rate: int = 0
    """Records a second, where they are fed while the peer runs."""
    rounds: int = ROUNDS
    """How many, where nobody says otherwise: one, where a single run is minutes of samples."""
    options: Mapping[str, Any] = field(default_factory=dict)
    quick_options: Mapping[str, Any] = field(default_factory=dict)
    shows: tuple[str, ...] = ()
    """The columns of its table, beside the peer."""


def ratio(bound: float, against: str, name: str) -> Target:
    return Target(f"≥ {bound:g} × {name}", bound, at_least=True, against=against)


def most(figure: str, bound: float, text: str, case: str = "") -> Target:
    return Target(text, bound, figure=figure, case=case)


HAND = "the tuned hand loop"
SPEED = ("records_per_s", "seconds", "n", "max_rss_mb", "key_disorder")
PYTHON = (
    "bare",
    "bare-default",
    "aiokafka",
    "kafka-python",
    "arroyo",
    "faststream-confluent",
    "quixstreams",
    "faust",
)

WORKS: dict[str, Work] = {
    work.name: work
    for work in (
        Work(
            "fast",
            "typed decode, fast sync handler (order, record), partition order",
            "throughput",
            ("relance", "relance-default", *PYTHON, "spring", "parallel-consumer"),
            (
                ratio(0.85, "bare", HAND),
                ratio(1.3, "aiokafka", "aiokafka"),
                ratio(2, "spring", "Spring Kafka, batch"),
            ),
            shows=SPEED,
        ),
        Work(
            "fast-key",
            "fast handler, key order, concurrency 64",
            "throughput",
            ("relance", "bare", "parallel-consumer"),
            (
                ratio(2, "parallel-consumer", "Parallel Consumer"),
                Target("≥ 32 in flight with a handler of 1 ms", 32, at_least=True, figure="max_in_flight"),
            ),
            shows=(*SPEED, "max_in_flight"),
        ),
        Work(
            "async",
            "async handler that doesn't suspend, partition order",
            "throughput",
            ("relance", "relance-default", "bare", "aiokafka", "faststream-confluent", "faust"),
            (ratio(0.5, "bare", HAND),),
            shows=SPEED,
        ),
        Work(
            "poison",
            "1 % poison to the dead-letter topic, acknowledged",
            "throughput",
            ("relance", *PYTHON, "spring", "parallel-consumer"),
            (ratio(0.9, "bare", HAND),),
            bad_fraction=0.01,
            n=2_000_000,
            quick_n=100_000,
            shows=(*SPEED, "dead_lettered"),
        ),
        Work(
            "io",
            "10 ms of waiting, 1,000 keys, key order, concurrency 1,000",
            "throughput",
            ("relance", "arroyo", "faststream-confluent", "parallel-consumer"),
            (
                ratio(3, "parallel-consumer", "Parallel Consumer"),
                ratio(4, "arroyo", "Arroyo with 100 threads"),
            ),
            options={"wait_ms": 10, "concurrency": 1000},
            shows=(*SPEED, "max_in_flight"),
        ),
        Work(
            "latency",
            "500 records/s, 10,000 keys, 1 % fail twice, backoff 100 ms",
            "fed",
            ("relance", "spring", "spring-blocking", "parallel-consumer"),
            (
                most("p99_ms", 15, "good records: p99 ≤ 15 ms"),
                most("flaky_p99_ms", 212, "flaky records (ideal 200 ms): p99 ≤ 212 ms"),
                most("key_disorder", 0, "the order of each key kept"),
            ),
            keys=10_000,
            bad_fraction=0.01,
            n=201_000,
            quick_n=6_000,
            rate=500,
            rounds=1,
            options={"backoff_ms": 100, "warm_up": 1000},
            shows=(
                "p50_ms",
                "p99_ms",
                "flaky_p50_ms",
                "flaky_p99_ms",
                "flaky_samples",
                "key_disorder",
                "max_rss_mb",
            ),
        ),
        Work(
            "isolation",
            "2,000 records/s, 1 % of keys fail for 30 s, fixed delay",
            "alone",
            ("relance",),
            (
                most("p99_ratio", 1.5, "other keys' p99 ≤ 1.5 × the clean run's", case="failing"),
                most("key_disorder", 0, "the order of each key kept", case="failing"),
            ),
            keys=10_000,
            bad_fraction=0.01,
            n=100_000,
            quick_n=24_000,
            rate=2000,
            options={"delay": 1.0, "from_s": 5.0, "until_s": 35.0},
            quick_options={"delay": 1.0, "from_s": 2.0, "until_s": 8.0},
            shows=("case", "p50_ms", "p99_ms", "p99_ratio", "failed_attempts", "key_disorder", "max_rss_mb"),
        ),
        Work(
            "delays",
            "10,000 mixed delays of 0.2 to 20 s in the retry topic (3 partitions)",
            "alone",
            ("relance",),
            (
                most("early", 0, "never early"),
                most("p50_ms", 5, "p50 late ≤ 5 ms"),
                most("p99_ms", 50, "p99 late ≤ 50 ms"),
            ),
            n=10_000,
            quick_n=1_000,
            options={"shortest": 0.2, "longest": 20.0},
            quick_options={"shortest": 0.2, "longest": 5.0},
            shows=("n", "early", "p50_ms", "p99_ms", "max_ms", "max_rss_mb"),
        ),
        Work(
            "memory",
            "a backlog of 1M records, 100,000 of them parked in their lanes for ten minutes, 48 partitions",
            "alone",
            ("relance",),
            (
                most("max_rss_mb", 200, "≤ 200 MB resident"),
                most("slope_mb_per_min", 0.5, "flat over ten minutes (≤ 0.5 MB a minute)"),
            ),
            keys=100_000,
            bad_fraction=0.1,
            # As many as it takes: a tenth of 1M offsets, unfinished here and there (half a bit for each of
            # all), is more than the maps of six commits can tell, and then reading pauses.
            partitions=48,
            n=1_000_000,
            quick_n=100_000,
            rounds=1,
            # It settles when each has failed as often as its history has room for.
            options={"delay": 10.0, "settle_s": 120.0, "hold_s": 600.0},
            quick_options={"delay": 1.0, "settle_s": 12.0, "hold_s": 20.0},
            shows=("n", "parked", "max_rss_mb", "slope_mb_per_min", "held_seconds"),
        ),
        Work(
            "startup",
            "what it costs to begin",
            "startup",
            ("relance",),
            (
                most("p50_ms", 150, "`import relance` ≤ 150 ms", case="import relance"),
                most("p50_ms", 300, "`relance --help` ≤ 300 ms", case="relance --help"),
            ),
            n=20,
            quick_n=5,
            shows=("case", "n", "p50_ms", "p99_ms"),
        ),
    )
}

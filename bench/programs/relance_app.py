"""relance, by its public names; what is set beyond its defaults is in the line at the end.

Peers `relance` and `relance-default`: the first has its two threads share a core (`Settings.share_core`), the
second is as shipped.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from common import (
    InvalidOrderError,
    Job,
    NotYetError,
    Order,
    Tally,
    max_rss_mb,
    percentile,
    report,
    rss_mb,
    say,
    spread,
    the_job,
    versions,
)

from relance import App, Record, Retry, RetryPolicy, Settings

# No peer here writes a line for each failure.
logging.getLogger("relance").setLevel(logging.ERROR)


def app_of(job: Job, **settings: Any) -> App:
    return App(
        job.group,
        bootstrap_servers=job.bootstrap,
        settings=Settings(share_core=job.peer == "relance", **settings),
    )


def run(app: App, job: Job, tally: Tally, consumer: dict[str, Any], **more: Any) -> None:
    """Run to the end of the tally; `more` may hold functions, which are asked after it."""
    app.run()
    told = {name: ask() if callable(ask) else ask for name, ask in more.items()}
    figures: dict[str, Any] = {}
    for name, value in told.items():
        figures |= value if isinstance(value, dict) else {name: value}
    policy = consumer.get("retry")
    settings = {
        "consumer": {**consumer, **({"retry": str(policy)} if policy else {})},
        "app": {**dataclasses.asdict(app.settings), "client": dict(app.settings.client)},
        "logging": "ERROR",
    }
    report(tally, settings, versions("relance", "confluent-kafka", "msgspec", "uvloop"), **figures)


def ready_when_assigned(app: App) -> None:
    app.on_assigned(lambda _partitions: say({"ready": True}))


# -- throughput --------------------------------------------------------------------------------------


def fast(job: Job) -> None:
    app, tally = app_of(job), Tally(job)
    consumer = {"ordering": "partition"}
    done = tally.done

    @app.consumer(job.topic, **consumer)
    def handle(order: Order, record: Record) -> None:
        if order.amount <= 0:
            raise InvalidOrderError("Invalid amount")
        done(order.number)

    tally.watch(then=app.stop)
    run(app, job, tally, consumer)


def fast_key(job: Job) -> None:
    app, tally = app_of(job), Tally(job)
    consumer = {"ordering": "key", "concurrency": 64}
    done = tally.done

    @app.consumer(job.topic, **consumer)
    async def handle(order: Order, record: Record) -> None:
        if order.amount <= 0:
            raise InvalidOrderError("Invalid amount")
        done(order.number)

    tally.watch(then=app.stop)
    run(app, job, tally, consumer)


def waiting(job: Job) -> None:
    """`io`, and the proof run of `fast-key`: how many handlers wait at once is counted."""
    app, tally = app_of(job), Tally(job)
    consumer = {"ordering": "key", "concurrency": job.options["concurrency"]}
    wait = job.options["wait_ms"] / 1000
    done = tally.done
    now = most = 0

    @app.consumer(job.topic, **consumer)
    async def handle(order: Order, record: Record) -> None:
        nonlocal now, most
        if order.amount <= 0:
            raise InvalidOrderError("Invalid amount")
        now += 1
        if now > most:
            most = now
        await asyncio.sleep(wait)
        now -= 1
        done(order.number)

    tally.watch(then=app.stop)
    run(app, job, tally, consumer, max_in_flight=lambda: most)


def in_async(job: Job) -> None:
    app, tally = app_of(job), Tally(job)
    consumer = {"ordering": "partition"}
    done = tally.done

    @app.consumer(job.topic, **consumer)
    async def handle(order: Order, record: Record) -> None:
        if order.amount <= 0:
            raise InvalidOrderError("Invalid amount")
        done(order.number)

    tally.watch(then=app.stop)
    run(app, job, tally, consumer)


def poison(job: Job) -> None:
    app, tally = app_of(job), Tally(job)
    consumer = {"ordering": "partition", "dead_letter_topic": job.dead_letter_topic}
    done = tally.done

    @app.consumer(job.topic, **consumer)
    def handle(order: Order, record: Record) -> None:
        if order.amount <= 0:
            raise InvalidOrderError("Invalid amount")
        done(order.number)

    letters = app.dead_letters(job.dead_letter_topic)
    tally.watch(then=app.stop, dead=letters.count)
    run(app, job, tally, consumer)


# -- time --------------------------------------------------------------------------------------------


def late(values: list[float], prefix: str = "") -> dict[str, Any]:
    figures = (("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0))
    return {
        prefix + name: None if (at := percentile(values, share)) is None else round(at, 3)
        for name, share in figures
    }


def latency(job: Job) -> None:
    """One record in a hundred fails twice; its ideal is two backoffs."""
    app, tally = app_of(job), Tally(job)
    backoff = job.options["backoff_ms"] / 1000
    consumer = {
        "ordering": "key",
        "concurrency": 64,
        "retry": RetryPolicy.fixed(delay=backoff, max_attempts=3, retry_on=NotYetError),
        "dead_letter_topic": job.dead_letter_topic,
    }
    good: list[float] = []
    flaky: list[float] = []
    warm = job.options["warm_up"]
    is_bad, done = job.is_bad, tally.done

    @app.consumer(job.topic, **consumer)
    async def handle(order: Order, record: Record) -> None:
        bad = is_bad(order.number)
        if bad and record.attempt <= 2:
            raise NotYetError("not now")
        if order.number >= warm:
            (flaky if bad else good).append((time.time_ns() // 1000 - order.ts) / 1000)
        done(order.number)

    ready_when_assigned(app)
    tally.watch(then=app.stop)
    run(
        app,
        job,
        tally,
        consumer,
        good=lambda: late(good),
        flaky=lambda: late(flaky, "flaky_"),
        flaky_samples=lambda: len(flaky),
    )


def isolation(job: Job) -> None:
    """Some keys fail for a while; `options["failing"]` false is the clean run."""
    app, tally = app_of(job), Tally(job)
    consumer = {
        "ordering": "key",
        "concurrency": 64,
        "retry": RetryPolicy.fixed(delay=job.options["delay"], max_attempts=1000, retry_on=NotYetError),
        "dead_letter_topic": job.dead_letter_topic,
    }
    since, until = job.options["from_s"], job.options["until_s"]
    others: list[float] = []
    failing = job.options["failing"]
    is_bad, done, keys = job.is_bad, tally.done, job.keys
    failed = began = 0

    @app.consumer(job.topic, **consumer)
    async def handle(order: Order, record: Record) -> None:
        nonlocal failed, began
        now = time.time_ns() // 1000
        if not began:
            began = order.ts
        bad = is_bad(order.number % keys)
        if bad and failing and since <= (now - began) / 1e6 < until:
            failed += 1
            raise NotYetError("not now")
        if not bad and (order.ts - began) / 1e6 >= since:
            others.append((now - order.ts) / 1000)
        done(order.number)

    ready_when_assigned(app)
    tally.watch(then=app.stop)
    run(
        app,
        job,
        tally,
        consumer,
        others=lambda: late(others),
        failed_attempts=lambda: failed,
        samples=lambda: len(others),
    )


def delays(job: Job) -> None:
    """Each record fails once and names its own delay; all of them wait in the retry topic."""
    app, tally = app_of(job), Tally(job)
    consumer = {
        "retry": RetryPolicy.fixed(delay=1.0, max_attempts=2),
        "retry_topic": job.retry_topic,
        "dead_letter_topic": job.dead_letter_topic,
        "max_in_memory_wait": 0,
    }
    shortest, longest = job.options["shortest"], job.options["longest"]
    failed_at: dict[int, float] = {}
    lateness: list[float] = []
    done = tally.done

    @app.consumer(job.topic, **consumer)
    def handle(order: Order, record: Record) -> None:
        delay = shortest + (longest - shortest) * spread(order.number)
        if record.attempt == 1:
            failed_at[order.number] = time.monotonic()
            raise Retry(after=delay)
        lateness.append((time.monotonic() - failed_at[order.number] - delay) * 1000)
        done(order.number)

    tally.watch(then=app.stop)
    run(
        app,
        job,
        tally,
        consumer,
        lateness=lambda: late(lateness),
        early=lambda: sum(1 for value in lateness if value < 0),
    )


# -- memory ------------------------------------------------------------------------------------------


def memory(job: Job) -> None:
    """A tenth of a backlog waits in its lanes, the rest is handled; then nothing happens but retries."""
    app, tally = app_of(job), Tally(job)
    consumer = {
        "ordering": "key",
        "concurrency": 64,
        "retry": RetryPolicy.fixed(delay=job.options["delay"], max_attempts=100_000, retry_on=NotYetError),
        "dead_letter_topic": job.dead_letter_topic,
    }
    is_bad, done, keys = job.is_bad, tally.done, job.keys
    to_park = sum(1 for number in range(job.n) if is_bad(number % keys))
    samples: list[tuple[float, float]] = []
    most = parked = 0.0
    healed = False

    @app.consumer(job.topic, **consumer)
    async def handle(order: Order, record: Record) -> None:
        if not healed and is_bad(order.number % keys):
            raise NotYetError("not now")
        done(order.number)

    def hold() -> None:
        nonlocal healed, most, parked
        while len(tally.numbers) < job.n - to_park:
            time.sleep(0.1)
        time.sleep(job.options["settle_s"])
        until = time.monotonic() + job.options["hold_s"]
        parked = app.stats().queued
        while time.monotonic() < until:
            samples.append((time.monotonic(), rss_mb()))
            time.sleep(0.5)
        most = max_rss_mb()
        healed = True

    threading.Thread(target=hold, daemon=True).start()
    tally.watch(then=app.stop)
    run(
        app,
        job,
        tally,
        consumer,
        slope_mb_per_min=lambda: slope(samples),
        held_seconds=job.options["hold_s"],
        parked=lambda: parked,
        rss_samples=lambda: [round(mb, 1) for _, mb in samples[:: max(1, len(samples) // 60)]],
        max_rss_while_parked_mb=lambda: most,
    )


def slope(samples: list[tuple[float, float]]) -> float | None:
    """Least squares, in MB a minute."""
    if len(samples) < 2:
        return None
    mean_t = sum(t for t, _ in samples) / len(samples)
    mean_mb = sum(mb for _, mb in samples) / len(samples)
    above = sum((t - mean_t) * (mb - mean_mb) for t, mb in samples)
    return round(60 * above / sum((t - mean_t) ** 2 for t, _ in samples), 4)


WORKS: dict[str, Callable[[Job], None]] = {
    "fast": fast,
    "fast-key": fast_key,
    "fast-key-proof": waiting,
    "io": waiting,
    "async": in_async,
    "poison": poison,
    "latency": latency,
    "isolation": isolation,
    "delays": delays,
    "memory": memory,
}

if __name__ == "__main__":
    the_work = the_job()
    WORKS[the_work.work](the_work)

"""Outages and poisoned records at random, in a world in memory: keys, partitions, batches, consumers.

After the outages all healthy records are handled within a bounded number of the breaker's windows, none of
them is dead-lettered for an outage, and each poisoned one is dead-lettered after exactly its attempts, while
healthy records keep arriving on other lanes.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from relance import App, BatchError, CircuitBreaker, Record, RetryPolicy, Settings, TransientError
from relance.testing import World

ATTEMPTS = 5
TOPICS = ("orders", "refunds")
KEYS = 12
STEP = 0.1  # seconds between healthy records of a topic
OPEN_FOR = 1.0


@dataclass(frozen=True)
class Case:
    """What is drawn."""

    ordering: Any
    processes: int
    share: int
    """Partitions of each process: with one that is one lane, its poison would be all that it has."""
    consumers: int
    shared: bool
    batch: int | None
    retry_topic: bool
    slow: float
    """Seconds a healthy call takes, of async handlers only; 0: none."""
    breaker: CircuitBreaker
    """It sees an outage within the attempts of one record: the condition on the page."""
    outages: list[tuple[float, float]]
    """Quiet seconds before each, and how long it is."""
    poison: list[tuple[float, int]]
    """When, in seconds, a poisoned record comes, and which key it has (above KEYS: its own)."""

    @property
    def partitions(self) -> int:
        return self.processes * self.share


CASES = st.builds(
    Case,
    ordering=st.sampled_from(["key", "key", "partition", "none"]),
    processes=st.integers(1, 2),
    share=st.integers(2, 3),
    consumers=st.integers(1, 2),
    shared=st.booleans(),
    batch=st.sampled_from([None, None, 3]),
    retry_topic=st.booleans(),
    slow=st.sampled_from([0.0, 0.0, 0.03]),
    breaker=st.builds(
        CircuitBreaker,
        window=st.sampled_from([5, 6, 10]),
        minimum_calls=st.integers(1, 5),
        failure_rate=st.sampled_from([0.3, 0.5, 0.7, 1.0]),
        open_for=st.just(OPEN_FOR),
        probes=st.sampled_from([1, 2, 3, 10]),
    ).filter(lambda breaker: (breaker.failures_to_open or 0) <= ATTEMPTS),
    outages=st.lists(st.tuples(st.floats(6.0, 10.0), st.floats(0.3, 6.0)), max_size=2),
    poison=st.lists(st.tuples(st.floats(0.0, 20.0), st.integers(0, KEYS + 12)), max_size=8),
)


class Run:
    """One case at work."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.handled: Counter[str] = Counter()
        self.app = App("g", settings=Settings(bootstrap_servers="nowhere:1"))
        self.world: World | None = None
        self.down: list[tuple[float, float]] = []
        at = 0.0
        for quiet, length in case.outages:
            self.down.append((at + quiet, at + quiet + length))
            at += quiet + length
        self.end = max([20.0, *(end for _, end in self.down)])
        for i in range(case.consumers):
            self.add(TOPICS[i], "service" if case.shared else None)

    def add(self, topic: str, name: str | None) -> None:
        case = self.case
        decorate = self.app.consumer(
            topic,
            retry=RetryPolicy.fixed(delay=0.4, max_attempts=ATTEMPTS, jitter_factor=0.2),
            retry_topic=f"{topic}.retry" if case.retry_topic else None,
            max_in_memory_wait=0.0 if case.retry_topic else 10.0,
            dead_letter_topic="dead",
            ordering=case.ordering,
            batch=case.batch,
            concurrency=4 if case.slow else 1,
            breaker=replace(case.breaker, name=name),
        )
        if case.batch is not None:

            def many(values: list[dict[str, Any]]) -> None:
                errors = {i: error for i, value in enumerate(values) if (error := self.ask(value))}
                if errors:
                    raise BatchError(errors)

            decorate(many)
        elif case.slow:

            async def slow(value: dict[str, Any]) -> None:
                import asyncio

                if error := self.ask(value):
                    raise error
                await asyncio.sleep(case.slow)

            decorate(slow)
        else:

            def one(value: dict[str, Any], record: Record) -> None:
                if error := self.ask(value):
                    raise error

            decorate(one)

    def ask(self, value: dict[str, Any]) -> Exception | None:
        assert self.world is not None
        if value["poison"] or any(begin <= self.world.now < end for begin, end in self.down):
            return TransientError("503")
        self.handled[value["id"]] += 1
        return None

    def go(self) -> None:
        case = self.case
        topics = TOPICS[: case.consumers]
        healthy: list[tuple[float, str]] = []
        poison = sorted(case.poison)
        with World(self.app, partitions=case.partitions, processes=case.processes) as world:
            self.world = world
            turn = 0

            def tick() -> None:
                nonlocal turn
                while poison and poison[0][0] <= world.now:
                    _, key = poison.pop(0)
                    topic = topics[key % len(topics)]
                    dead.append(f"p{len(dead)}")
                    world.produce(topic, {"id": dead[-1], "poison": True}, key=f"key-{key}", partition=0)
                for topic in topics:
                    name = f"{topic}-{turn}"
                    healthy.append((world.now, name))
                    place = None if case.ordering == "key" else turn % case.partitions
                    value = {"id": name, "poison": False}
                    world.produce(topic, value, key=f"key-{turn % KEYS}", partition=place)
                turn += 1
                world.jump(STEP)

            dead: list[str] = []
            while world.now < self.end:
                tick()
            quiet = world.now + self.bound(len(case.poison))
            while world.now < quiet:  # other lanes go on while the last ones are given up
                tick()
                if len(world.dead_letters()) == len(dead) and world.now > self.end + 2 * OPEN_FOR:
                    break
            world.jump(5.0)
            letters = world.dead_letters()
            found = Counter(letter.original_value for letter in letters)
            assert all('"poison":true' in (value or "").replace(" ", "") for value in found), found
            assert len(letters) == len(found) == len(dead), (found, self.app.stats())
            assert {letter.retry_count for letter in letters} <= {ATTEMPTS - 1}
            missing = [name for _, name in healthy if not self.handled[name]]
            assert not missing, (len(missing), missing[:5], self.app.stats())
            world.assert_no_commit_past_unfinished()
            states = [breaker.state for breaker in self.app.stats().circuit_breakers]
            event(f"opened {min(5, max(b.times_opened for b in self.app.stats().circuit_breakers))} times")
            assert set(states) <= {"closed"}, self.app.stats()

    def bound(self, poison: int) -> float:
        """Seconds: windows of the breaker that the poisoned records may cost after all outages are over."""
        return (6 + ATTEMPTS * poison) * 2 * OPEN_FOR


@settings(max_examples=60)
@given(CASES)
def test_after_the_outages_the_healthy_are_handled_and_the_poisoned_given_up(case: Case) -> None:
    logging.disable(logging.CRITICAL)
    try:
        Run(case).go()
    except AssertionError as error:
        error.add_note(repr(case))
        raise
    finally:
        logging.disable(logging.NOTSET)

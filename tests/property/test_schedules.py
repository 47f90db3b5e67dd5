"""Random schedules in the world of `relance.testing`: records, failures, retries, rebalances, crashes.

Each is one seed. What must hold at its end: every record was handled or dead-lettered, no commit was ever
past an unfinished one, no retry was early, the order was kept between crashes, nothing was repeated without,
and nothing that a process did after it had died had an effect.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from relance import App, BatchError, Record, Reject, RetryPolicy
from relance.engine.assignment import Assignment, Commit
from relance.engine.crashes import Mark
from relance.engine.due import DueHeap
from relance.engine.engine import Engine
from relance.engine.lanes import Run
from relance.testing import World
from relance.workers.batch import Attempt, Batch

SEEDS, BATCH_SEEDS = 200, 100  # for each ordering
DELAYS = (1.0, 2.0, 4.0)
EXACT = 1e-5  # seconds; the time of day as a float has a fourth of a microsecond, and is taken several times


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Schedule:
    """What one seed does."""

    def __init__(self, seed: int, ordering: Any, batch: int | None = None) -> None:
        self.chance = chance = random.Random(seed)
        self.seed, self.ordering, self.batch = seed, ordering, batch
        self.is_async = chance.random() < 0.6
        self.retry_topic = "t.retry" if ordering == "none" or chance.random() < 0.3 else None
        self.strict = self.retry_topic is None
        self.crashes = self.moves = 0
        self.sent: dict[str, dict[str, Any]] = {}
        self.handled: dict[str, int] = defaultdict(int)
        self.killed: set[str] = set()
        self.order: dict[Any, list[int]] = defaultdict(list)
        one, many = (
            (self.handle_async, self.handle_all_async) if self.is_async else (self.handle, self.handle_all)
        )
        app = App("g", bootstrap_servers="localhost:1")
        app.consumer(
            "t",
            ordering=ordering,
            concurrency=chance.choice([1, 3, 20]) if self.is_async else 1,
            retry=RetryPolicy.exponential(max_attempts=4, initial_delay=1.0, jitter_factor=0),
            retry_topic=self.retry_topic,
            dead_letter_topic="t.DLT",
            batch=batch,
            max_crashes=0,  # these crashes are nobody's fault
            max_in_memory_wait=chance.choice([0.0, 1.5, 10.0]) if self.retry_topic else 10.0,
            handoff=chance.choice(["acknowledged", "transactional"]),
        )(many if batch else one)
        self.world = World(
            app, partitions=chance.choice([1, 2, 4]), processes=chance.choice([1, 2]), seed=seed
        )

    def handle(self, value: dict[str, Any], record: Record) -> None:
        self.perhaps_die(value, record)
        if error := failure_of(value, record):
            raise error
        self.done(value, record)

    def perhaps_die(self, value: dict[str, Any], record: Record) -> None:
        if value["kills"] and value["id"] not in self.killed:
            self.killed.add(value["id"])
            self.crashes += 1
            try:
                self.world.crash()
            except BaseException:
                record.send("out", "dead")
                if len(self.killed) % 2:
                    raise  # else the handler goes on as if nothing had happened

    def done(self, value: dict[str, Any], record: Record) -> None:
        record.send("out", value["id"])
        self.handled[value["id"]] += 1
        self.order[record.partition if self.ordering == "partition" else record.key].append(record.offset)

    async def handle_async(self, value: dict[str, Any], record: Record) -> None:
        if value["takes"]:
            await asyncio.sleep(value["takes"])
        self.handle(value, record)

    def handle_all(self, values: list[dict[str, Any]], records: list[Record]) -> None:
        """All, or nothing and not a word of whose fault it is; where there is no order, sometimes by name."""
        for value, record in zip(values, records, strict=True):
            self.perhaps_die(value, record)
        found = [failure_of(value, record) for value, record in zip(values, records, strict=True)]
        failed = {i: error for i, error in enumerate(found) if error is not None}
        if failed and (self.ordering != "none" or self.seed % 2):
            raise next(iter(failed.values()))
        for i, (value, record) in enumerate(zip(values, records, strict=True)):
            if i not in failed:
                self.done(value, record)
        if failed:
            raise BatchError(failed)

    async def handle_all_async(self, values: list[dict[str, Any]], records: list[Record]) -> None:
        await asyncio.sleep(max(value["takes"] for value in values))
        self.handle_all(values, records)

    def run(self) -> None:
        with self.world:
            self.world.topic("out")
            for _ in range(self.chance.randrange(3, 12)):
                self.step()
            self.world.finish()
            self.check()

    def step(self) -> None:
        chance, world = self.chance, self.world
        for _ in range(chance.randrange(0, 8)):
            number = str(len(self.sent))
            value = {
                "id": number,
                "fails": chance.choice([0, 0, 0, 0, 1, 2, 3, 9]),
                "poison": chance.random() < 0.1,
                "takes": chance.choice([0, 0, 0.1, 3.0]),
                "kills": chance.random() < 0.02,
            }
            self.sent[number] = value
            world.produce("t", value, key=f"k{chance.randrange(5)}")
        match chance.randrange(8):
            case 0 | 1:
                world.run(commit=chance.random() < 0.5)
            case 2 | 3:
                world.jump(chance.choice([0.1, 1.0, 2.5]))
            case 4:
                self.moves += 1
                world.rebalance(chance.choice([1, 2, 3]))
            case 5:
                self.crashes += 1
                world.crash()
            case 6:
                self.crashes += 1
                world.lose("t", chance.randrange(world.topics.counts["t"]))
            case _:
                world.finish()

    def check(self) -> None:
        world = self.world
        world.assert_no_commit_past_unfinished()
        letters = {letter.original_value: letter for letter in world.dead_letters()}
        dead = {_id_of(text) for text in letters}
        for number, value in self.sent.items():
            ends = value["fails"] >= 4 or value["poison"]
            assert (number in dead) == ends, f"{number} {value}"
            assert (self.handled[number] > 0) != ends, f"{number} {value}"
        assert world.lag("t") == 0
        if self.retry_topic:
            assert world.lag("t.retry") == 0
        out = Counter((stored.value or b"").decode() for stored in world.records("out"))
        assert out.keys() == {number for number, times in self.handled.items() if times}, out
        assert all(out[number] <= times for number, times in self.handled.items()), out
        self.check_calls()

    def check_calls(self) -> None:
        by_record = defaultdict(list)
        for call in self.world.calls:
            by_record[call.partition, call.offset].append(call)
        for calls in by_record.values():
            if not self.crashes and not self.batch:  # of a batch, one attempt may be two calls
                assert [call.attempt for call in calls] == list(range(1, len(calls) + 1)), calls
            for call in calls:
                # Any of the attempt before: after a crash there may be two copies in the retry topic.
                if call.attempt > 1:
                    delay = DELAYS[call.attempt - 2] - EXACT
                    ends = [b.ended for b in calls if b.attempt == call.attempt - 1 and b.ended is not None]
                    assert any(ended + delay <= call.at for ended in ends), calls
        if self.crashes:
            return
        assert max(self.handled.values(), default=0) <= 1, self.handled
        if self.strict and self.ordering != "none":
            begun = defaultdict(list)
            for call in () if self.batch else self.world.calls:
                begun[call.partition if self.ordering == "partition" else call.key].append(call.offset)
            for offsets in (*self.order.values(), *begun.values()):
                assert offsets == sorted(offsets), offsets


def failure_of(value: dict[str, Any], record: Record) -> Exception | None:
    if record.attempt <= value["fails"]:
        return TimeoutError("asked to")
    return Reject("asked to") if value["poison"] else None


def _id_of(text: str | None) -> str:
    return str(msgspec.json.decode(text or "")["id"])


@pytest.mark.parametrize("batch", [None, 3], ids=["one-by-one", "batches"])
@pytest.mark.parametrize("ordering", ["partition", "key", "none"])
def test_whatever_happens_nothing_is_lost_early_out_of_order_or_committed_too_soon(
    ordering: str, batch: int | None
) -> None:
    for seed in range(BATCH_SEEDS if batch else SEEDS):
        try:
            Schedule(seed, ordering, batch).run()
        except Exception as error:
            error.add_note(f"seed {seed}, ordering {ordering}, batch {batch}")
            raise


# -- a checker that can fail -------------------------------------------------------------------------


def commit_to_the_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Assignment, "commit", lambda self, **_: Commit(self, self.frontier.position, "", Mark(True))
    )


def retry_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = DueHeap.push
    monkeypatch.setattr(DueHeap, "push", lambda self, due, item: before(self, due - 0.5, item))


def forget_what_is_handed_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "settled", lambda self, assignment, offset: False)


def a_lane_for_each_record(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Engine.__init__

    def init(self: Engine, ordering: Any, *given: Any, **more: Any) -> None:
        before(self, "none", *given, **more)

    monkeypatch.setattr(Engine, "__init__", init)


def the_others_of_a_batch_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Batch._one_by_one

    def one_by_one(self: Batch, found: Any, run: Run, attempt: Attempt) -> Any:
        run.lane.keyed = False
        yield from before(self, found, run, attempt)
        run.lane.keyed = True

    monkeypatch.setattr(Batch, "_one_by_one", one_by_one)


def run_many(ordering: str) -> None:
    for seed in range(100):
        Schedule(seed, ordering, 3 if seed % 2 else None).run()


@pytest.mark.parametrize(
    "mutant",
    [
        commit_to_the_position,
        retry_at_once,
        forget_what_is_handed_off,
        a_lane_for_each_record,
        the_others_of_a_batch_go_on,
    ],
)
def test_each_mutant_is_caught(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    with pytest.raises((AssertionError, ValueError)):
        run_many("key")

"""A circuit breaker under each kind of worker, in real time: an outage wakes nobody, its end wakes all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relance.clock import SystemClock
from relance.decoding import decoder_for, handler_shape
from relance.errors import TransientError
from relance.policies.breaker import CircuitBreaker
from relance.policies.retry import RetryPolicy
from relance.record import Record
from relance.workers.batch import BatchCall
from relance.workers.coroutine import CoroutineBatchCall, CoroutineCall
from relance.workers.inline import InlineWorker
from relance.workers.loop import LoopWorker
from relance.workers.processes import ProcessesWorker
from relance.workers.single import SingleCall
from relance.workers.threads import ThreadsWorker
from waiting import wait_until
from world import ORDERS, Member, record

COUNT = 60


def ask(folder: str, record: Record) -> None:
    """The service is down while there is a file `down`; each call leaves one, so that children can tell."""
    there = Path(folder)
    if (there / "down").exists():
        raise TransientError("503")
    (there / f"handled-{record.offset}-{record.attempt}").touch()


def one(value: str, record: Record) -> None:
    ask(value, record)


def many(values: list[str], records: list[Record]) -> None:
    for value, found in zip(values, records, strict=True):
        ask(value, found)


async def one_async(value: str, record: Record) -> None:
    await asyncio.sleep(0)
    ask(value, record)


async def many_async(values: list[str], records: list[Record]) -> None:
    await asyncio.sleep(0)
    many(values, records)


def make_worker(kind: str, member: Member) -> Any:
    runtime = member.runtime
    batch = kind.endswith("batch")
    handlers: dict[str, Callable[..., Any]] = {"loop": one_async, "loop batch": many_async}
    handler = handlers.get(kind, many if batch else one)
    shape = handler_shape(handler, batch=batch)
    decoding = decoder_for(shape.annotation)
    fixed = 5 if batch else None

    def call() -> Any:
        kind_of_call = BatchCall if batch else SingleCall
        return kind_of_call(runtime, handler, shape, decoding)

    if kind.startswith("loop"):
        loop_call = (CoroutineBatchCall if batch else CoroutineCall)(runtime, handler, shape, decoding)
        return LoopWorker(runtime, loop_call, 4, fixed=fixed)
    if kind == "processes":
        return ProcessesWorker(runtime, handler, shape, 2, None)
    if kind.startswith("threads"):
        return ThreadsWorker(runtime, call, 4, fixed=fixed)
    return InlineWorker(runtime, call(), fixed=fixed)


class Bench:
    """A member at work on a thread."""

    def __init__(self, kind: str, **breaker: Any) -> None:
        breaker = {"window": 10, "minimum_calls": 5, "open_for": 0.05, "probes": 2, **breaker}
        settings = CircuitBreaker(**breaker)
        retry = RetryPolicy.fixed(delay=0.01, max_attempts=6)
        self.member = Member.in_real_time(
            breaker=settings, ordering="key", retry=retry, batch=5 if kind.endswith("batch") else 1
        )
        self.worker = make_worker(kind, self.member)
        self.errors: list[BaseException] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            if isinstance(self.worker, LoopWorker):
                asyncio.run(self.worker.run())
            else:
                self.worker.run()
        except BaseException as error:
            self.errors.append(error)

    def look(self) -> Any:
        assert self.member.circuit is not None
        return self.member.circuit.look()

    def stop(self) -> None:
        self.member.runtime.drain(SystemClock().monotonic() + 5.0)
        self.thread.join(10.0)
        assert not self.thread.is_alive()
        assert self.errors == []


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(kind: str, **breaker: Any) -> Bench:
        made.append(Bench(kind, **breaker))
        return made[-1]

    yield make
    for bench in made:
        bench.stop()


KINDS = ["inline", "threads", "processes", "loop", "inline batch", "threads batch", "loop batch"]


def give(bench: Bench, folder: Path) -> None:
    value = str(folder).encode()
    records = [record(i, key=b"k%d" % (i % 12), value=value) for i in range(COUNT)]
    bench.member.runtime.received("source", ORDERS, records)


@pytest.mark.parametrize("kind", KINDS)
def test_an_outage_ends_with_everything_handled_and_nothing_dead_lettered(
    kind: str, make_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    (tmp_path / "down").touch()
    bench = make_bench(kind)
    give(bench, tmp_path)
    wait_until(lambda: bench.look().times_opened >= 4, 20.0, lambda: f"{bench.look()} {bench.errors}")
    (tmp_path / "down").unlink()
    wait_until(bench.member.at_rest, 20.0, lambda: f"{bench.look()} {bench.member.runtime.look()}")
    handled = {int(path.name.split("-")[1]) for path in tmp_path.glob("handled-*")}
    assert handled == set(range(COUNT))
    assert bench.look().state == "closed"
    assert (bench.member.writes, bench.member.failures) == ([], [])


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_while_it_is_open_ends_the_worker_at_once(
    kind: str, make_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    (tmp_path / "down").touch()
    bench = make_bench(kind, open_for=3600.0)
    give(bench, tmp_path)
    wait_until(lambda: bench.look().state == "open", 20.0, lambda: f"{bench.look()} {bench.errors}")
    bench.stop()
    assert bench.member.writes == []

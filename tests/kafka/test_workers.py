"""Workers on a real broker: threads, child processes, batches, deadlines, and what a record sends."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

import process_handlers
from relance import App, BatchError, CircuitBreaker, Record, RetryPolicy, SendError, Settings
from relance.kafka.admin import Admin
from relance.record import TopicPartition as Place
from waiting import wait_until

Topics = Callable[..., str]
TESTS = Path(__file__).parents[1]


async def until(condition: Callable[[], object], timeout: float = 30.0, what: object = "") -> None:
    await asyncio.to_thread(wait_until, condition, timeout, str(what))


def app_of(bootstrap: str, topic: str, **more: Any) -> App:
    return App(f"g-{topic}", settings=Settings(bootstrap_servers=bootstrap, commit_interval=0.1, **more))


def committed(bootstrap: str, topic: str) -> int:
    found = Admin(bootstrap).committed(f"g-{topic}")
    return sum(c.offset for tp, c in found.items() if tp.topic == topic)


def fill(bootstrap: str, topic: str, *values: bytes, keys: int = 1) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for n, value in enumerate(values):
        producer.produce(topic, value, key=b"k%d" % (n % keys))
    assert producer.flush(10) == 0


# -- threads -----------------------------------------------------------------------------------------


def test_threads_handle_as_many_keys_at_once_as_asked_for_and_each_in_order(
    bootstrap: str, make_topic: Topics
) -> None:
    topic = make_topic("t", 2)
    app = app_of(bootstrap, topic)
    all_in = threading.Barrier(8, timeout=20)
    seen: dict[bytes, list[int]] = defaultdict(list)

    @app.consumer(topic, ordering="key", concurrency=8)
    def handle(value: int, record: Record) -> None:
        if value < 8:
            all_in.wait()  # ends only if eight are here together
        seen[record.key or b""].append(value)

    async def main() -> None:
        fill(bootstrap, topic, *(b"%d" % n for n in range(400)), keys=8)
        async with app.running():
            await until(lambda: sum(map(len, seen.values())) == 400, what=app.stats())
            await until(lambda: committed(bootstrap, topic) == 400)

    asyncio.run(main())
    assert all(values == sorted(values) for values in seen.values())
    assert not all_in.broken


def test_a_handler_on_a_thread_past_its_deadline_makes_health_down_until_it_ends(
    bootstrap: str, make_topic: Topics
) -> None:
    topic = make_topic("t", 1)
    app = app_of(bootstrap, topic)
    let_go = threading.Event()

    @app.consumer(topic, workers="threads", timeout=0.2)
    def handle(value: int) -> None:
        let_go.wait(30)

    async def main() -> None:
        fill(bootstrap, topic, b"1")
        async with app.running():
            await until(lambda: app.health().status == "DOWN" and app.assignment())
            assert any(f"{topic}-0, offset 0" in reason for reason in app.health().reasons)
            let_go.set()
            await until(lambda: app.health().status == "UP")
            await until(lambda: committed(bootstrap, topic) == 1)

    asyncio.run(main())


# -- child processes ---------------------------------------------------------------------------------


def test_a_record_that_kills_its_child_is_dead_lettered_after_its_attempts_and_no_other_suffers(
    bootstrap: str, make_topic: Topics, tmp_path: Path
) -> None:
    topic, dlt = make_topic("t", 2), make_topic("dlt", 1)
    app = app_of(bootstrap, topic)
    app.consumer(
        topic,
        workers="processes",
        concurrency=2,
        ordering="key",
        retry=RetryPolicy.fixed(0.05, max_attempts=3),
        dead_letter_topic=dlt,
    )(process_handlers.handle)
    good = b'{"notes": "%s"}' % str(tmp_path).encode()

    async def main() -> None:
        fill(bootstrap, topic, *[good] * 60, b'{"die": "kill"}', *[good] * 60, keys=6)
        async with app.running():
            await until(lambda: committed(bootstrap, topic) == 121, 60.0, app.stats())
            letters = await asyncio.to_thread(app.dead_letters(dlt).latest, 10)
            assert [letter.retry_count for letter in letters] == [2]
            assert "WorkerDiedError" in letters[0].error_message
            assert "SIGKILL" in letters[0].error_message
            assert app.health().status == "UP"

    asyncio.run(main())
    lines = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    calls = Counter((partition, offset) for _, _, partition, offset, _ in lines)
    assert len(calls) == 120
    assert set(calls.values()) == {1}
    assert str(os.getpid()) not in {line[1] for line in lines}


def test_a_child_past_its_deadline_is_ended_and_the_attempt_counts(
    bootstrap: str, make_topic: Topics, tmp_path: Path
) -> None:
    topic = make_topic("t", 1)
    app = app_of(bootstrap, topic)
    retry = RetryPolicy.fixed(0.05, max_attempts=3)
    app.consumer(topic, workers="processes", timeout=0.5, retry=retry)(process_handlers.handle)

    async def main() -> None:
        slow_once = b'{"work": 60, "times": 1, "notes": "%s"}' % str(tmp_path).encode()
        fill(bootstrap, topic, slow_once, b"{}")
        async with app.running():
            await until(lambda: committed(bootstrap, topic) == 2, 30.0, app.stats())

    asyncio.run(main())
    assert [line.split()[4] for line in (tmp_path / "notes").read_text().splitlines()] == ["1", "2"]


def test_a_program_without_a_main_guard_is_told_so_and_starts_no_consumers_without_end(
    bootstrap: str, make_topic: Topics, tmp_path: Path
) -> None:
    topic = make_topic("t", 1)
    fill(bootstrap, topic, b"1")
    program = tmp_path / "unguarded.py"
    program.write_text(
        f"from relance import App\napp = App('g-{topic}', bootstrap_servers='{bootstrap}')\n"
        f"@app.consumer('{topic}', workers='processes')\ndef handle(value: int) -> None: pass\napp.run()\n"
    )
    found = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60)
    assert found.returncode != 0
    assert 'if __name__ == "__main__":' in found.stderr
    assert committed(bootstrap, topic) <= 0


def calls(folder: Path) -> list[tuple[str, str, str]]:
    """Who was called for what, as the children noted it: process, partition, offset."""
    lines = [line.split() for line in (folder / "notes").read_text().splitlines()]
    return [(pid, partition, offset) for _, pid, partition, offset, _ in lines]


def test_children_work_side_by_side_and_finish_what_they_have_when_partitions_move(
    bootstrap: str, make_topic: Topics, tmp_path: Path
) -> None:
    topic = make_topic("t", 4)
    apps = [app_of(bootstrap, topic) for _ in range(2)]
    for app in apps:
        app.consumer(topic, workers="processes", concurrency=2)(process_handlers.handle)
    value = b'{"work": 0.02, "notes": "%s"}' % str(tmp_path).encode()

    async def main() -> None:
        fill(bootstrap, topic, *[value] * 400, keys=40)
        async with apps[0].running():
            await until(lambda: (tmp_path / "notes").exists() and len(calls(tmp_path)) > 40)
            async with apps[1].running():
                await until(lambda: len(apps[1].assignment()) == 2)
                await until(lambda: apps[1].stats().handled > 20, what=apps[1].stats())
            # It left with records on their way: they were finished, or nobody had begun them.
            await until(lambda: committed(bootstrap, topic) == 400, 60.0, apps[0].stats())

    asyncio.run(main())
    found = calls(tmp_path)
    assert set(Counter(found_at[1:] for found_at in found).values()) == {1}
    assert len(found) == 400
    assert len({pid for pid, _, _ in found} - {str(os.getpid())}) == 4


def test_an_application_that_stops_ends_its_children_and_commits_just_what_they_did(
    bootstrap: str, make_topic: Topics, tmp_path: Path
) -> None:
    topic = make_topic("t", 2)
    value = b'{"work": 0.02, "notes": "%s"}' % str(tmp_path).encode()

    async def one_life(enough: Callable[[], object]) -> None:
        app = app_of(bootstrap, topic)
        app.consumer(topic, workers="processes", concurrency=2)(process_handlers.handle)
        async with app.running():
            await until(enough, what=app.stats())

    fill(bootstrap, topic, *[value] * 200, keys=20)
    asyncio.run(one_life(lambda: (tmp_path / "notes").exists() and len(calls(tmp_path)) > 50))
    first = calls(tmp_path)
    assert committed(bootstrap, topic) == len(first) < 200
    assert not [pid for pid, _, _ in first if Path(f"/proc/{pid}").exists()]
    asyncio.run(one_life(lambda: committed(bootstrap, topic) == 200))
    assert len(calls(tmp_path)) == len({at[1:] for at in calls(tmp_path)}) == 200


def test_a_breaker_over_children_opens_in_an_outage_and_the_outage_costs_no_attempt(
    bootstrap: str, make_topic: Topics, tmp_path: Path
) -> None:
    topic, dlt = make_topic("t", 2), make_topic("dlt", 1)
    app = app_of(bootstrap, topic)
    service = tmp_path / "service is up"
    app.consumer(
        topic,
        workers="processes",
        concurrency=2,
        # As many attempts as failures open it: the other child may still be starting.
        retry=RetryPolicy.fixed(0.02, max_attempts=5),
        dead_letter_topic=dlt,
        breaker=CircuitBreaker(window=10, minimum_calls=4, open_for=0.2, name="service"),
    )(process_handlers.calls_a_service)
    value = b'{"service": "%s", "notes": "%s"}' % (str(service).encode(), str(tmp_path).encode())

    def opened() -> int:
        (found,) = app.stats().circuit_breakers
        return found.times_opened

    async def main() -> None:
        fill(bootstrap, topic, *[value] * 100, keys=10)
        async with app.running():
            await until(lambda: opened() >= 4, what=app.stats())
            assert committed(bootstrap, topic) <= 0
            service.touch()
            await until(lambda: committed(bootstrap, topic) == 100, what=app.stats())
            assert await asyncio.to_thread(app.dead_letters(dlt).count) == 0

    asyncio.run(main())


# -- deadlines of async handlers ---------------------------------------------------------------------


def test_an_async_handler_past_its_deadline_is_cancelled_and_its_attempts_count(
    bootstrap: str, make_topic: Topics
) -> None:
    topic, dlt = make_topic("t", 1), make_topic("dlt", 1)
    app = app_of(bootstrap, topic)
    cancelled = 0

    @app.consumer(topic, timeout=0.1, retry=RetryPolicy.fixed(0.02, max_attempts=3), dead_letter_topic=dlt)
    async def handle(value: int) -> None:
        nonlocal cancelled
        if value == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                raise

    async def main() -> None:
        fill(bootstrap, topic, b"0", b"1", b"2")
        async with app.running():
            await until(lambda: committed(bootstrap, topic) == 3, what=app.stats())
            (letter,) = await asyncio.to_thread(app.dead_letters(dlt).latest, 10)
            assert "HandlerTimeoutError" in letter.error_message
            assert letter.retry_count == 2

    asyncio.run(main())
    assert cancelled == 3


# -- batches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_of_a_batch_only_what_failed_is_tried_again_and_dead_lettered(
    bootstrap: str, make_topic: Topics, is_async: bool
) -> None:
    topic, dlt = make_topic("t", 2), make_topic("dlt", 1)
    app = app_of(bootstrap, topic)
    stored: Counter[int] = Counter()
    tries: Counter[int] = Counter()
    sizes: list[int] = []

    def store(values: list[int]) -> None:
        sizes.append(len(values))
        tries.update(values)
        failed = {i: TimeoutError("again") for i, n in enumerate(values) if n % 50 == 7}
        stored.update(n for i, n in enumerate(values) if i not in failed)
        if failed:
            raise BatchError(failed)

    async def store_async(values: list[int]) -> None:
        store(values)

    retry = RetryPolicy.fixed(0.05, max_attempts=3)
    app.consumer(topic, ordering="none", batch=100, retry=retry, dead_letter_topic=dlt)(
        store_async if is_async else store
    )

    async def main() -> None:
        fill(bootstrap, topic, *(b"%d" % n for n in range(1000)), keys=16)
        async with app.running():
            await until(lambda: committed(bootstrap, topic) == 1000, 30.0, app.stats())
            letters = await asyncio.to_thread(app.dead_letters(dlt).latest, 100)
            assert sorted(int(letter.original_value or "") for letter in letters) == list(range(7, 1000, 50))
            assert {letter.retry_count for letter in letters} == {2}

    asyncio.run(main())
    assert stored == Counter(n for n in range(1000) if n % 50 != 7)
    assert {tries[n] for n in range(7, 1000, 50)} == {3}
    assert max(sizes) > 10


def test_batches_keep_the_order_of_each_key_also_where_one_of_it_is_tried_again(
    bootstrap: str, make_topic: Topics
) -> None:
    topic = make_topic("t", 2)
    app = app_of(bootstrap, topic)
    ended: dict[bytes, list[int]] = defaultdict(list)

    @app.consumer(
        topic, ordering="key", batch=50, concurrency=4, retry=RetryPolicy.fixed(0.05, max_attempts=3)
    )
    async def store(values: list[int], records: list[Record]) -> None:
        failed: dict[int, Exception] = {}
        for i, (value, record) in enumerate(zip(values, records, strict=True)):
            if value % 40 == 3 and record.attempt == 1:
                failed[i] = TimeoutError("again")
            elif not any(records[j].key == record.key for j in failed):
                ended[record.key or b""].append(value)
            else:
                failed[i] = TimeoutError("stands behind one that failed")
        if failed:
            raise BatchError(failed)

    async def main() -> None:
        fill(bootstrap, topic, *(b"%d" % n for n in range(600)), keys=7)
        async with app.running():
            await until(lambda: committed(bootstrap, topic) == 600, what=app.stats())

    asyncio.run(main())
    assert sum(map(len, ended.values())) == 600
    assert all(values == sorted(values) for values in ended.values())


# -- what a record sends -----------------------------------------------------------------------------


def test_what_a_record_sends_is_in_its_topic_before_its_offset_counts_and_only_if_it_succeeds(
    bootstrap: str, make_topic: Topics
) -> None:
    topic, out = make_topic("t", 1), make_topic("out", 1)
    app = app_of(bootstrap, topic)

    @app.consumer(topic, retry=RetryPolicy.fixed(0.02, max_attempts=3))
    async def handle(value: int, record: Record) -> None:
        record.send(out, value, key=record.key)
        if record.attempt == 1 and value % 10 == 3:
            raise TimeoutError("again")

    async def main() -> None:
        fill(bootstrap, topic, *(b"%d" % n for n in range(100)))
        async with app.running():
            await until(lambda: committed(bootstrap, topic) == 100, what=app.stats())

    asyncio.run(main())
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader"})
    try:
        assert reader.get_watermark_offsets(TopicPartition(out, 0), 10.0) == (0, 100)
    finally:
        reader.close()


def test_what_can_never_be_sent_is_an_error_of_the_handler_and_not_of_the_partition(
    bootstrap: str, make_topic: Topics
) -> None:
    topic, dlt = make_topic("t", 1), make_topic("dlt", 1)
    app = app_of(bootstrap, topic)

    @app.consumer(topic, dead_letter_topic=dlt)
    async def handle(value: int, record: Record) -> None:
        if value == 1:
            with pytest.raises(SendError):
                record.send("no topic name", b"")
            record.send("no topic name", b"")

    async def main() -> None:
        fill(bootstrap, topic, b"0", b"1", b"2")
        async with app.running():
            await until(lambda: committed(bootstrap, topic) == 3, what=app.stats())
            (letter,) = await asyncio.to_thread(app.dead_letters(dlt).latest, 10)
            assert "'no topic name' is no topic name" in letter.error_message

    asyncio.run(main())


def test_an_offset_waits_until_what_its_record_sent_is_acknowledged(
    bootstrap: str, make_topic: Topics
) -> None:
    topic, out = make_topic("t", 2), make_topic("out", 1)
    app = app_of(bootstrap, topic, client={"linger.ms": 3000})  # for so long nothing that is sent leaves

    @app.consumer(topic)
    def handle(value: int, record: Record) -> None:
        if record.partition == 0:
            record.send(out, value)

    def place(partition: int) -> int:
        found = Admin(bootstrap).committed(f"g-{topic}").get(Place(topic, partition))
        return 0 if found is None else max(0, found.offset)

    def write(partition: int) -> None:
        producer = Producer({"bootstrap.servers": bootstrap})
        for n in range(20):
            producer.produce(topic, b"%d" % n, partition=partition)
        assert producer.flush(10) == 0

    async def main() -> None:
        reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader"})
        try:
            write(0)
            async with app.running():
                await until(lambda: app.stats().handled == 20, what=app.stats())
                write(1)  # handled, and committed, after all of the other partition
                await until(lambda: place(1) == 20, what=app.stats())
                at = place(0)
                written = reader.get_watermark_offsets(TopicPartition(out, 0), 10.0)[1]
                assert (at, written) == (0, 0)
                await until(lambda: place(0) == 20, what=app.stats())
                assert reader.get_watermark_offsets(TopicPartition(out, 0), 10.0) == (0, 20)
        finally:
            reader.close()

    asyncio.run(main())

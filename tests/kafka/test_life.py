"""What ends, and what must not: handlers that hang, clients that die, letters that are too large."""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from members import Group

from relance import App, Record, RetryPolicy, SendError, Settings
from relance.errors import HandlerExitError
from relance.kafka.admin import Admin
from relance.kafka.producer import KafkaProducer
from waiting import wait_until

Handler = Callable[..., Any]


async def until(condition: Callable[[], object], timeout: float = 20.0, what: object = "") -> None:
    await asyncio.to_thread(wait_until, condition, timeout, str(what))


def settings(bootstrap: str, **more: Any) -> Settings:
    return Settings(
        bootstrap_servers=bootstrap, session_timeout=6.0, heartbeat_interval=0.5, commit_interval=0.2, **more
    )


# -- handlers that hang ----------------------------------------------------------------------------


class Hanging:
    """Handlers that end when the test lets them, and not before."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.let_go = threading.Event()

    def sync(self, value: int) -> None:
        self.started.set()
        self.let_go.wait()

    async def swallowing(self, value: int) -> None:
        self.started.set()
        while not self.let_go.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                pass


@pytest.mark.parametrize(
    ("kind", "options"),
    [("sync", {}), ("sync", {"workers": "threads", "concurrency": 2}), ("swallowing", {})],
    ids=["inline", "threads", "async"],
)
def test_a_handler_that_hangs_does_not_keep_running_from_being_left(
    bootstrap: str,
    make_topic: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
    kind: str,
    options: dict[str, Any],
) -> None:
    topic, hanging = make_topic("t", 1), Hanging()
    app = App(f"g-{topic}", settings=settings(bootstrap, drain_timeout=1.0))
    app.consumer(topic, **options)(getattr(hanging, kind))
    left = threading.Event()

    async def main() -> None:
        async with app.running():
            await app.send(topic, 1)
            await until(hanging.started.is_set)
        left.set()

    # On a thread of its own, because a loop whose task swallows its cancellation cannot be ended either.
    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    try:
        wait_until(hanging.started.is_set, 20.0)
        wait_until(left.is_set, 10.0, "leaving running()")
    finally:
        hanging.let_go.set()
        thread.join(20.0)
    assert not thread.is_alive()
    assert "a handler is still running after the drain deadline" in caplog.text
    assert sum(c.offset for c in Admin(bootstrap).committed(f"g-{topic}").values()) <= 0


@pytest.mark.parametrize("is_async", [False, True])
def test_a_handler_that_exits_leaves_the_loop_of_others_alone(
    bootstrap: str, make_topic: Callable[..., str], is_async: bool
) -> None:
    topic = make_topic("t", 1)
    app = App(f"g-{topic}", settings=settings(bootstrap))

    def handle(value: int) -> None:
        sys.exit(0)

    async def handle_async(value: int) -> None:
        sys.exit(0)

    app.consumer(topic)(handle_async if is_async else handle)

    async def main() -> None:
        async with app.running():
            await app.send(topic, 1)
            await until(lambda: app.health().reasons)
            assert f"{topic}-0 at offset 0: SystemExit: 0" in app.health().reasons[0]
            await asyncio.sleep(0)
            left.append(True)

    left: list[bool] = []
    with pytest.raises(HandlerExitError, match="ends the process"):
        asyncio.run(main())
    assert left
    [metadata] = [found.metadata for found in Admin(bootstrap).committed(f"g-{topic}").values()]
    assert "o2.1~0x1" in metadata


def hangs_in_a_child(value: int) -> None:
    threading.Event().wait(60)


def test_what_hangs_is_named_by_stats_health_and_one_warning_each_while_health_stays_up(
    bootstrap: str, make_topic: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    topics = {kind: make_topic(kind, 1) for kind in ("threads", "batch", "async", "children")}
    hanging = Hanging()
    app = App(f"g-{topics['async']}", settings=settings(bootstrap, drain_timeout=0.5, hang_warning=0.5))
    app.consumer(topics["threads"], workers="threads", concurrency=2)(hanging.sync)
    app.consumer(topics["batch"], batch=10)(lambda values: hanging.let_go.wait() and None)
    app.consumer(topics["async"])(hanging.swallowing)
    app.consumer(topics["children"], workers="processes")(hangs_in_a_child)

    @app.on_assigned
    def came(partitions: object) -> None:
        hanging.let_go.wait()

    def told() -> set[str]:
        lines = [r.getMessage() for r in caplog.records if r.name == "relance.hang"]
        assert len(lines) == len(set(lines)), lines
        return {topic for topic in topics.values() if any(f"{topic}-0, offset 0" in line for line in lines)}

    async def main() -> None:
        async with app.running():
            for topic in topics.values():
                await app.send(topic, 1)
            await until(lambda: told() == set(topics.values()), what=caplog.text)
            assert "hook test_what_hangs" in caplog.text
            oldest = app.stats().oldest_in_flight
            assert oldest is not None
            assert oldest.seconds > 0.5
            health = app.health()
            assert (health.status, health.reasons) == ("UP", [])
            assert health.details["oldest_in_flight"]["topic"] in topics.values()
            assert health.details["hook"]["name"].endswith("came")
            hanging.let_go.set()

    asyncio.run(main())


# -- handlers that are cancelled by something of their own -----------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"workers": "threads", "concurrency": 2, "ordering": "none"}], ids=["inline", "threads"]
)
def test_a_cancellation_out_of_a_sync_handler_is_a_failure_of_its_record_and_the_worker_goes_on(
    bootstrap: str, make_topic: Callable[..., str], options: dict[str, Any]
) -> None:
    topic, dlt = make_topic("t", 1), make_topic("dlt", 1)
    app = App(f"g-{topic}", settings=settings(bootstrap))
    calls: list[tuple[int, int]] = []

    def handle(value: int, record: Record) -> None:
        calls.append((value, record.attempt))
        if value == 3:
            raise asyncio.CancelledError
        if value == 5 and record.attempt == 1:
            raise asyncio.CancelledError

    policy = RetryPolicy.fixed(0.05, max_attempts=2, retry_on=RuntimeError)
    app.consumer(topic, retry=policy, dead_letter_topic=dlt, **options)(handle)

    async def main() -> None:
        async with app.running():
            for n in range(10):
                await app.send(topic, n)
            letters = app.dead_letters(dlt)
            await until(lambda: {n for n, _ in calls} == set(range(10)), what=calls)
            await until(lambda: letters.count() == 1)
            (letter,) = await asyncio.to_thread(letters.latest, 10)
            assert (letter.original_offset, letter.retry_count) == (3, 1)
            assert "the handler was cancelled" in letter.error_message
            assert app.health().status == "UP"

    asyncio.run(main())
    assert [attempt for n, attempt in calls if n == 3] == [1, 2]
    assert [attempt for n, attempt in calls if n == 5] == [1, 2]
    assert sum(c.offset for c in Admin(bootstrap).committed(f"g-{topic}").values()) == 10


# -- clients that die ------------------------------------------------------------------------------


def break_for_good(producer: KafkaProducer) -> None:
    """A fatal error, as an idempotent producer has when brokers lost what it wrote."""
    client = producer._client
    library = ctypes.CDLL(confluent_kafka.cimpl.__file__)
    handle = ctypes.c_void_p.from_address(id(client) + object.__basicsize__).value  # its first field
    library.rd_kafka_test_fatal_error.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    library.rd_kafka_test_fatal_error(handle, 45, b"OUT_OF_ORDER_SEQUENCE_NUMBER, asked for by a test")


def test_a_producer_after_a_fatal_error_is_replaced_and_every_write_has_one_answer(
    bootstrap: str, make_topic: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    topic = make_topic("t", 1)
    failures: list[Exception] = []
    producer = KafkaProducer(
        {"bootstrap.servers": bootstrap}, name="breaks", timeout=10.0, on_failure=failures.append
    )
    answers: dict[int, list[object]] = {n: [] for n in range(200)}

    def send(n: int) -> None:
        try:
            producer.send(topic, b"%d" % n, answer=lambda error, sent: answers[n].append(error or sent))
        except SendError as error:
            answers[n].append(error)

    try:
        for n in range(100):
            send(n)
        broken = producer._client
        break_for_good(producer)
        for n in range(100, 199):
            send(n)
        wait_until(lambda: producer._client is not broken, 10.0, "another client")
        send(199)
        wait_until(lambda: all(answers.values()), 20.0, "answers")
    finally:
        producer.close(5.0)
    assert {len(each) for each in answers.values()} == {1}
    assert not isinstance(answers[199][0], SendError)
    assert failures == []
    assert caplog.text.count("the producer is replaced") == 1


def test_a_dead_letter_is_written_although_the_producer_has_had_a_fatal_error(
    bootstrap: str, make_topic: Callable[..., str]
) -> None:
    topic, dlt = make_topic("t", 1), make_topic("dlt", 1)
    app = App(f"g-{topic}", settings=settings(bootstrap))
    handled: list[int] = []

    @app.consumer(topic, dead_letter_topic=dlt)
    async def handle(value: int) -> None:
        if value == 1:
            runner = app._runner
            assert runner is not None
            assert runner._handoffs is not None
            break_for_good(next(iter(runner._handoffs._clients.values())))
            raise ValueError("poison")
        handled.append(value)

    async def main() -> None:
        async with app.running():
            for n in range(3):
                await app.send(topic, n)
            letters = app.dead_letters(dlt)
            await until(lambda: letters.count() >= 1)
            await until(lambda: handled == [0, 2])
            await until(lambda: app.health().status == "UP")

    asyncio.run(main())
    assert sum(c.offset for c in Admin(bootstrap).committed(f"g-{topic}").values()) == 3


# -- after the end ---------------------------------------------------------------------------------


def test_after_the_end_a_send_is_refused_at_once_and_health_is_down(
    bootstrap: str, make_topic: Callable[..., str]
) -> None:
    topic = make_topic("t", 1)
    app = App(f"g-{topic}", settings=settings(bootstrap))

    @app.consumer(topic)
    async def handle(value: int) -> None:
        pass

    async def main() -> None:
        async with app.running():
            await app.send(topic, 1)
            await until(lambda: app.stats().handled == 1)
            assert app.health().status == "UP"
        health = app.health()
        assert health.status == "DOWN"
        assert health.reasons
        with pytest.raises(SendError, match="closed") as refused:
            app.send(topic, 2)
        assert not refused.value.maybe_written

    asyncio.run(main())


# -- members ---------------------------------------------------------------------------------------


def test_consumers_of_one_process_are_told_apart_in_their_group(
    bootstrap: str, make_topic: Callable[..., str]
) -> None:
    topics = [make_topic("t", 1), make_topic("u", 1)]
    app = App(f"g-{topics[0]}", settings=settings(bootstrap))
    other = App(f"g-{topics[0]}", settings=settings(bootstrap))

    async def handle(value: int) -> None:
        pass

    for topic in topics:
        app.consumer(topic)(handle)
    other.consumer(topics[0])(handle)

    async def main() -> None:
        async with app.running(), other.running():
            ids = [poller.client_id for one in (app, other) for c in one._consumers() for poller in c.pollers]
            assert len(set(ids)) == 3
            admin = Admin(bootstrap)
            await until(lambda: admin.members([f"g-{topics[0]}"])[0][f"g-{topics[0]}"] == set(ids), what=ids)

    asyncio.run(main())


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_static_members_of_one_app_do_not_fence_each_other(
    protocol: str, bootstrap: str, make_topic: Callable[..., str]
) -> None:
    topics = [make_topic("t", 1), make_topic("u", 1)]
    client = {"group.instance.id": "one", "group.protocol": protocol}
    app = App(f"g-{topics[0]}", settings=settings(bootstrap, client=client))
    handled: list[int] = []

    async def handle(value: int) -> None:
        handled.append(value)

    for topic in topics:
        app.consumer(topic)(handle)

    async def main() -> None:
        async with app.running():
            for value in range(10):
                await app.send(topics[value % 2], value)
            await until(lambda: sorted(handled) == list(range(10)), what=handled)
            found = Admin(bootstrap).group(f"g-{topics[0]}")
            assert {member.instance_id for member in found.members} == {"one", "one-2"}
            assert app.health().status == "UP"

    asyncio.run(main())


@pytest.fixture
def group(tmp_path: Path, bootstrap: str, make_topic: Callable[..., str]) -> Iterator[Group]:
    topic = make_topic("source", 6)
    found = Group(
        tmp_path,
        bootstrap=bootstrap,
        topic=topic,
        group=f"group-{topic}",
        ordering="partition",
        concurrency=6,
    )
    yield found
    found.close()


def test_nothing_is_repeated_after_a_clean_stop_while_a_rebalance_waits_for_another_member(
    group: Group, bootstrap: str
) -> None:
    """The broker answers no commit of a member that has joined anew until the slowest member has, too."""
    topic = group.config["topic"]
    leaving = group.start(work=0.02)
    slow = group.start(work=60.0, drain_timeout=5.0)
    group.settle(leaving, slow, partitions=6)
    settled = len(slow.told("revoked"))  # whoever came first had them all
    producer = Producer({"bootstrap.servers": bootstrap})
    for partition in range(6):
        for n in range(400):
            producer.produce(topic, b'{"id": "%d-%d"}' % (partition, n), partition=partition)
    assert producer.flush(10) == 0
    # Busy in each of its partitions, so that whichever it gives up must be drained.
    wait_until(lambda: {e["partition"] for e in slow.told("start")} >= slow.owned(), 20.0)
    wait_until(lambda: leaving.told("end"), 20.0)
    given_up = len(leaving.told("revoked"))
    third = group.start(work=0.0)
    # It has given partitions up and joined again; the slow one drains for five seconds.
    wait_until(lambda: len(leaving.told("revoked")) > given_up, 20.0, lambda: leaving.log)
    before = len(leaving.told("end"))
    wait_until(lambda: len(leaving.told("end")) >= before + 60, 20.0)
    assert len(slow.told("revoked")) == settled, "the rebalance was over too soon to prove anything"
    kept = leaving.owned()
    assert kept
    assert leaving.stop() == 0
    mine = {e["id"] for e in leaving.told("end")}
    last = {p: max(e["offset"] for e in leaving.told("end") if e["partition"] == p) for p in kept}
    found = {tp.partition: c.offset for tp, c in Admin(bootstrap).committed(group.config["group"]).items()}
    assert {p: found[p] > last[p] for p in kept} == dict.fromkeys(kept, True), (found, last, leaving.log)
    slow.process.kill()

    def third_has_gone_on() -> bool:
        return kept <= {e["partition"] for e in third.told("end")}

    wait_until(third_has_gone_on, 30.0, lambda: third.log)
    again = [e["id"] for member in (slow, third) for e in member.told("start") if e["id"] in mine]
    assert again == []


def test_a_member_without_partitions_leaves_the_group_when_it_stops(
    bootstrap: str, make_topic: Callable[..., str]
) -> None:
    topic, admin = make_topic("t", 1), Admin(bootstrap)
    group = f"g-{topic}"

    def member() -> App:
        app = App(group, settings=settings(bootstrap))

        @app.consumer(topic)
        async def handle(value: int) -> None:
            pass

        return app

    async def main() -> None:
        async with (first := member()).running():
            await until(first.assignment)
            async with (second := member()).running():
                await until(lambda: len(admin.group(group).members) == 2)
                await until(lambda: admin.group(group).state.upper() == "STABLE", what=admin.group(group))
                assert (len(first.assignment()), second.assignment()) == (1, [])
            # Not when the broker has missed its heartbeats for the six seconds of a session.
            await until(lambda: len(admin.group(group).members) == 1, timeout=3.0)

    asyncio.run(main())


# -- dead letters that are too large ---------------------------------------------------------------

BINARY = bytes(range(256)) * 3_600  # 921,600 bytes, of which a letter makes a third more


def send_a_large_record_and_a_small_one(bootstrap: str, topic: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(topic, BINARY, key=b"large")
    producer.produce(topic, b"small", key=b"small")
    assert producer.flush(10) == 0


def test_a_letter_that_its_topic_does_not_take_stops_the_partition_until_the_topic_takes_more(
    bootstrap: str, make_topic: Callable[..., str], admin: AdminClient, caplog: pytest.LogCaptureFixture
) -> None:
    topic, dlt = make_topic("t", 1), make_topic("dlt", 1, max_message_bytes=1_000_000)
    app = App(f"g-{topic}", settings=settings(bootstrap))
    handled: list[bytes] = []

    @app.consumer(topic, dead_letter_topic=dlt)
    async def handle(value: bytes) -> None:
        if len(value) > 100:
            raise ValueError("poison")
        handled.append(value)

    def stopped() -> bool:
        return any("its dead letter takes" in reason for reason in app.health().reasons)

    def raise_the_limit() -> None:
        entry = ConfigEntry("max.message.bytes", "2000000", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, dlt, incremental_configs=[entry])
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(10.0)

    async def main() -> None:
        async with app.running():
            await asyncio.to_thread(send_a_large_record_and_a_small_one, bootstrap, topic)
            await until(stopped)
            assert app.health().status == "DOWN"
            letters = app.dead_letters(dlt)
            assert await asyncio.to_thread(letters.count) == 0
            assert handled == []
            assert sum(c.offset for c in Admin(bootstrap).committed(f"g-{topic}").values()) <= 0
            await asyncio.to_thread(raise_the_limit)
            await until(lambda: handled == [b"small"])
            (letter,) = await asyncio.to_thread(letters.latest, 10)
            assert letter.value_bytes() == BINARY
            assert not letter.pointer
            await until(lambda: app.health().status == "UP")

    asyncio.run(main())
    assert sum(c.offset for c in Admin(bootstrap).committed(f"g-{topic}").values()) == 2
    told = [r.getMessage() for r in caplog.records if "its dead letter takes" in r.getMessage()]
    assert len(told) == 1
    assert "goes on once" in told[0]


def test_with_pointers_allowed_a_letter_that_is_too_large_is_written_at_once_as_one(
    bootstrap: str, make_topic: Callable[..., str]
) -> None:
    topic, dlt = make_topic("t", 1), make_topic("dlt", 1, max_message_bytes=1_000_000)
    app = App(f"g-{topic}", settings=settings(bootstrap))
    handled: list[bytes] = []

    @app.consumer(topic, dead_letter_topic=dlt, dead_letter_pointer=True)
    async def handle(value: bytes) -> None:
        if len(value) > 100:
            raise ValueError("poison")
        handled.append(value)

    async def main() -> None:
        async with app.running():
            await asyncio.to_thread(send_a_large_record_and_a_small_one, bootstrap, topic)
            await until(lambda: handled == [b"small"])
            letters = app.dead_letters(dlt)
            await until(lambda: letters.count() == 1)
            (letter,) = await asyncio.to_thread(letters.latest, 10)
            assert letter.pointer
            assert letter.original_value is None
            assert "originalValue" in letter.trimmed
            assert (letter.original_topic, letter.original_partition, letter.original_offset) == (topic, 0, 0)
            assert app.health().status == "UP"

    asyncio.run(main())
    assert sum(c.offset for c in Admin(bootstrap).committed(f"g-{topic}").values()) == 2

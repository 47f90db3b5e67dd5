"""The application inside somebody else's loop, on a real broker: sends, tables, health, outages."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from relance import App, Mask, Record, RetryPolicy, SendError, Settings, TransientError
from relance.broker import LocalBroker
from relance.kafka.admin import Admin
from waiting import wait_until


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[LocalBroker]:
    """A broker that this test may stop."""
    with LocalBroker(tmp_path / "broker", port=0) as broker:
        yield broker


@contextlib.contextmanager
def stopped(broker: LocalBroker) -> Iterator[None]:
    """Meanwhile it answers nothing, and its connections stay."""
    pid = broker.status().nodes[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def until(condition: Callable[[], object], timeout: float = 20.0, what: object = "") -> None:
    await asyncio.to_thread(wait_until, condition, timeout, str(what))


def settings(bootstrap: str, **more: Any) -> Settings:
    return Settings(
        bootstrap_servers=bootstrap, session_timeout=6.0, heartbeat_interval=0.5, commit_interval=0.2, **more
    )


def test_a_broker_that_goes_away_between_two_questions_of_a_start_is_waited_for(
    own_broker: LocalBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Injected by SIGSTOP, after the first answer; found by the chaos rig with a broker killed just then."""
    Admin(own_broker.bootstrap).ensure_topic("t", 1)
    frozen = contextlib.ExitStack()
    pings: list[int] = []
    ping = Admin.ping

    def then_away(admin: Admin, timeout: float | None = None) -> int:
        pings.append(ping(admin, timeout))
        if len(pings) == 1:
            frozen.enter_context(stopped(own_broker))
        return pings[-1]

    monkeypatch.setattr(Admin, "ping", then_away)
    app, handled = App("g", settings=settings(own_broker.bootstrap)), []

    @app.consumer("t")
    async def handle(value: int) -> None:
        handled.append(value)

    async def run() -> None:
        async with app.running():
            await app.send("t", 7)
            await until(lambda: handled == [7])

    async def both() -> None:
        running = asyncio.create_task(run())
        with frozen:
            await until(lambda: "trying for" in caplog.text, what="the question that nobody answers")
        await running

    asyncio.run(both())
    assert caplog.text.count("no Kafka broker answers") == 1


def test_an_app_inside_a_running_loop_sends_handles_and_stops(
    bootstrap: str, make_topic: Callable[..., str]
) -> None:
    topic, handled = make_topic("t", 3), []
    app = App(f"g-{topic}", settings=settings(bootstrap))

    @app.consumer(topic, ordering="key", concurrency=4)
    async def handle(value: dict, record: Record) -> None:  # type: ignore[type-arg]
        handled.append((value["n"], record.key, record.headers, record.timestamp is not None))

    async def main() -> None:
        async with app.running():
            sent = await app.send(topic, {"n": 1}, key="k", headers=[("h", b"v"), ("h", None)])
            assert (sent.topic, sent.offset) == (topic, 0)
            assert (await asyncio.to_thread(app.send(topic, {"n": 2}, key="k").result, 5)).offset == 1
            await until(lambda: len(handled) == 2)
            assert len(app.assignment()) == 3
            assert app.health().status == "UP"
            assert app.stats().handled + app.stats().in_flight == 2
        assert app.assignment() == []

    asyncio.run(main())
    assert handled == [(1, b"k", [("h", b"v"), ("h", None)], True), (2, b"k", [], True)]


def test_a_sync_handler_in_a_running_loop_does_not_block_it(
    bootstrap: str, make_topic: Callable[..., str]
) -> None:
    import threading

    topic, go = make_topic("t", 1), threading.Event()
    app = App(f"g-{topic}", settings=settings(bootstrap))
    threads = []

    @app.consumer(topic)
    def handle(value: dict) -> None:  # type: ignore[type-arg]
        threads.append(threading.current_thread().name)
        assert go.wait(20)

    async def main() -> None:
        async with app.running():
            await app.send(topic, {})
            await until(lambda: threads)
            go.set()  # only a loop that goes on gets here

    asyncio.run(main())
    assert threads == ["relance-worker"]


CORES = os.sched_getaffinity(0) if sys.platform == "linux" else set()


@pytest.mark.skipif(len(CORES) < 2, reason="Linux binds threads to cores; with one core all are")
def test_with_share_core_a_backlog_is_handled_on_one_core_and_the_thread_gets_back_what_it_had(
    bootstrap: str, make_topic: Callable[..., str]
) -> None:
    topic, count = make_topic("t", 1), 30_000
    app = App(f"g-{topic}", settings=settings(bootstrap, share_core=True))
    cores: list[int] = []

    @app.consumer(topic)
    def handle(value: int) -> None:
        cores.append(len(os.sched_getaffinity(0)))
        if len(cores) == count:
            app.stop()

    producer = Producer({"bootstrap.servers": bootstrap})
    for n in range(count):
        producer.produce(topic, str(n))
    assert producer.flush(30.0) == 0
    app.run()
    assert len(cores) == count
    assert 1 in cores
    assert set(cores) <= {1, len(CORES)}
    assert os.sched_getaffinity(0) == CORES


def test_a_loop_of_somebody_else_s_is_bound_to_no_core(
    bootstrap: str, make_topic: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    topic = make_topic("t", 1)
    app = App(f"g-{topic}", settings=settings(bootstrap, share_core=True))

    @app.consumer(topic)
    async def handle(value: int) -> None: ...

    async def main() -> None:
        async with app.running():
            pass

    asyncio.run(main())
    assert "share_core does nothing here: it takes App.run and one consumer" in caplog.text


def test_a_fatal_error_makes_health_down_and_is_raised_on_leaving(
    bootstrap: str, make_topic: Callable[..., str]
) -> None:
    from relance import Fatal

    topic = make_topic("t", 1)
    app = App(f"g-{topic}", settings=settings(bootstrap))

    @app.consumer(topic)
    async def handle(value: dict) -> None:  # type: ignore[type-arg]
        raise Fatal("no disk")

    async def main() -> None:
        async with app.running():
            await app.send(topic, {})
            await until(lambda: app.health().status == "DOWN")
            assert "no disk" in app.health().reasons[0]

    with pytest.raises(Fatal, match="no disk"):
        asyncio.run(main())
    assert sum(c.offset for c in Admin(bootstrap).committed(f"g-{topic}").values()) == 0


def test_a_record_that_stops_all_is_named_with_its_error_and_nothing_that_a_mask_hides(
    bootstrap: str, make_topic: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    topic = make_topic("t", 1)
    mask = Mask(fields=["cardNumber"], patterns=[r"\bpin \d+"])
    app = App(f"g-{topic}", settings=settings(bootstrap), mask=mask)

    @app.consumer(topic)
    async def pay(value: dict) -> None:  # type: ignore[type-arg]
        raise ValueError(f"no account for {value}, pin 1234")

    async def main() -> None:
        async with app.running():
            await app.send(topic, {"cardNumber": "4111111111111111", "amount": 5}, key="k")
            await until(lambda: app.health().status == "DOWN")
            [reason] = [one for one in app.health().reasons if one.startswith("stopped by")]
            assert f"{topic}-0, offset 0, key #8254c329: " in reason
            assert (
                "pay failed with ValueError: no account for {'cardNumber': '***', 'amount': 5}, ***;"
                in reason
            )
            assert "name one in @app.consumer, or mend the handler" in reason

    with pytest.raises(ValueError, match="no account"):
        asyncio.run(main())
    [line] = [one.getMessage() for one in caplog.records if one.levelname == "CRITICAL"]
    assert line.startswith(f"stopping: {topic}-0, offset 0, key #8254c329: ")
    assert "Traceback (most recent call last):" in caplog.text
    assert "in pay" in caplog.text
    assert "4111" not in caplog.text
    assert "1234" not in caplog.text


def test_a_dead_letter_for_what_never_was_a_record_has_no_coordinates(
    bootstrap: str, make_topic: Callable[..., str]
) -> None:
    dlt = make_topic("dlt", 3)
    app = App("g-none", settings=settings(bootstrap))

    async def main() -> None:
        async with app.running():
            error = ValueError("Invalid amount")
            await app.dead_letter(dlt, '{"amount": -1}', key=None, error=error, source_topic="orders")
            letters = app.dead_letters(dlt)
            assert await asyncio.to_thread(letters.count) == 1
            (letter,) = await asyncio.to_thread(letters.latest, 10)
            assert letter.original_topic == "orders"
            assert (letter.original_partition, letter.original_offset, letter.original_key) == (None,) * 3
            assert letter.error_message == "ValueError: Invalid amount"
            assert letter.value_bytes() == b'{"amount": -1}'

    asyncio.run(main())


def test_a_table_is_shared_and_tells_when_an_offset_is_reached(bootstrap: str) -> None:
    one, two = (App("g-table", settings=settings(bootstrap)) for _ in range(2))
    name = f"table-{os.getpid()}"
    ours, theirs = one.table(name), two.table(name)

    async def main() -> None:
        async with one.running():
            await ours.put("flag", {"on": True})
            await ours.put("gone", {"x": 1})
            await ours.put("gone", None)
            async with two.running():
                # Read to its end before anything runs.
                assert theirs.items() == {"flag": {"on": True}}
                assert not await theirs.reached(ours.position + 5, timeout=0.01)
                sent = await theirs.put("flag", {"on": False})
                assert await ours.reached(sent.offset, timeout=5.0)
                assert ours.get("flag") == {"on": False}
                assert ours.position > sent.offset

    asyncio.run(main())


def test_a_send_to_a_broker_that_is_away_was_not_written_and_one_it_never_answered_may_be(
    own_broker: LocalBroker,
) -> None:
    bootstrap = own_broker.bootstrap
    Admin(bootstrap).ensure_topic("t", 1)
    app = App("g", settings=settings(bootstrap, send_timeout=2.0))

    async def main() -> None:
        async with app.running():
            await app.send("t", b"1")
            with stopped(own_broker), pytest.raises(SendError) as frozen:
                await app.send("t", b"2")
            assert frozen.value.maybe_written
            own_broker.kill()
            await until(lambda: not _connected(app))
            with pytest.raises(SendError) as away:
                await app.send("t", b"3")
            assert not away.value.maybe_written

    asyncio.run(main())


def test_writes_that_a_slow_broker_does_not_answer_take_no_processor(own_broker: LocalBroker) -> None:
    bootstrap = own_broker.bootstrap
    Admin(bootstrap).ensure_topic("t", 1)
    app = App("g", settings=settings(bootstrap, send_timeout=3.0))

    async def main() -> None:
        async with app.running():
            await app.send("t", b"0")
            with stopped(own_broker):
                sent = []
                for _ in range(50):
                    sent.append(app.send("t", b"x"))
                    await asyncio.sleep(0.01)  # each a request of its own
                before = time.process_time()
                found = await asyncio.gather(*sent, return_exceptions=True)
                assert time.process_time() - before < 0.2
            assert {type(answer) for answer in found} == {SendError}

    asyncio.run(main())


def _connected(app: App) -> bool:
    import socket

    host, _, port = app.settings.bootstrap_servers.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 0.5).close()
    except OSError:
        return False
    return True


def test_an_outage_of_the_broker_is_told_once_survived_and_loses_nothing(
    own_broker: LocalBroker, caplog: pytest.LogCaptureFixture
) -> None:
    bootstrap = own_broker.bootstrap
    for topic in ("t", "t.retry", "t.dlt"):
        Admin(bootstrap).ensure_topic(topic, 2)
    app = App("g", settings=settings(bootstrap, send_timeout=30.0))
    handled: list[int] = []
    caplog.set_level("INFO", "relance")

    @app.consumer(
        "t",
        retry=RetryPolicy.fixed(0.2, max_attempts=3),
        retry_topic="t.retry",
        dead_letter_topic="t.dlt",
        max_in_memory_wait=0.0,
    )
    async def handle(value: dict, record: Record) -> None:  # type: ignore[type-arg]
        if value["n"] % 5 == 0 and record.attempt == 1:
            raise TransientError("first try")
        handled.append(value["n"])

    async def main() -> None:
        async with app.running():
            await asyncio.gather(*(app.send("t", {"n": n}, key=str(n)) for n in range(50)))
            own_broker.kill()
            await until(lambda: "waiting until one does" in caplog.text, 30)
            later = [app.send("t", {"n": n}, key=str(n)) for n in range(50, 100)]
            await until(lambda: app.health().status == "DOWN", 30)
            await asyncio.to_thread(own_broker.start)
            await asyncio.gather(*later)
            await until(lambda: set(handled) == set(range(100)), 40, sorted(set(range(100)) - set(handled)))
            await until(lambda: app.health().status == "UP")

    asyncio.run(main())
    told = [r for r in caplog.records if r.levelname in ("ERROR", "CRITICAL")]
    assert len(told) <= 3, [r.getMessage() for r in told]


def test_a_client_whose_group_no_longer_knows_it_joins_again(
    bootstrap: str,
    make_topic: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A client that fell silent cannot be made on purpose, so here the look is made to see one."""
    from relance import consumer

    topic, handled = make_topic("t", 2), []
    app = App(f"g-{topic}", settings=settings(bootstrap, drain_timeout=1.0))

    @app.consumer(topic)
    async def handle(value: int) -> None:
        handled.append(value)

    members = Admin.members
    blind = True

    def seen(admin: Admin, groups: list[str]) -> tuple[dict[str, set[str]], dict[str, str]]:
        return ({group: set() for group in groups}, {}) if blind else members(admin, groups)

    monkeypatch.setattr(Admin, "members", seen)
    monkeypatch.setattr(consumer, "_STALL_MARGIN", -7.0)  # no patience

    async def main() -> None:
        nonlocal blind
        async with app.running():
            await app.send(topic, 1)
            await until(lambda: handled == [1])
            await until(lambda: "joining it again" in caplog.text)
            blind = False
            await app.send(topic, 2)
            await until(lambda: handled == [1, 2])
            await until(lambda: len(app.assignment()) == 2)

    asyncio.run(main())


def test_a_send_that_a_stop_cuts_short_is_answered(own_broker: LocalBroker) -> None:
    bootstrap = own_broker.bootstrap
    Admin(bootstrap).ensure_topic("t", 1)
    app = App("g", settings=settings(bootstrap, send_timeout=60.0, drain_timeout=1.0))

    async def main() -> None:
        async with app.running():
            own_broker.kill()
            delivery = app.send("t", b"late")
        with pytest.raises(SendError):
            await asyncio.to_thread(delivery.result, 5)

    asyncio.run(main())


def test_a_table_goes_on_after_a_value_that_is_no_json_object(
    bootstrap: str, make_topic: Callable[..., str]
) -> None:
    name = make_topic("table", 1, cleanup_policy="compact")
    app = App("g-table", settings=settings(bootstrap))
    table = app.table(name)

    async def main() -> None:
        async with app.running():
            for poison in (b"\xff", b"[1]", b'{"a":' + b"[" * 100_000):
                await app.send(name, poison, key="poison")
            sent = await table.put("key", {"x": 1})
            assert await table.reached(sent.offset, timeout=10.0)
            assert table.items() == {"key": {"x": 1}}

    asyncio.run(main())


def test_consumers_of_one_app_drain_together(bootstrap: str, make_topic: Callable[..., str]) -> None:
    slow_topic, quick_topic = make_topic("slow", 1), make_topic("quick", 1)
    app = App(f"g-{slow_topic}", settings=settings(bootstrap, drain_timeout=2.0))
    go, events = asyncio.Event(), []

    @app.consumer(slow_topic)
    async def slow(value: int) -> None:
        events.append("slow starts")
        await asyncio.sleep(600)

    @app.consumer(quick_topic)
    async def quick(value: int) -> None:
        events.append(f"quick starts {value}")
        await go.wait()
        events.append(f"quick ends {value}")

    async def main() -> None:
        async with app.running():
            await app.send(slow_topic, 1)
            for n in range(3):
                await app.send(quick_topic, n)
            await until(lambda: {"slow starts", "quick starts 0"} <= set(events))
            app.stop()
            await until(lambda: all(c.runtime.stop_by is not None for c in app._consumers()))
            go.set()

    asyncio.run(main())
    assert events.count("quick ends 0") == 1
    assert "quick starts 1" not in events

"""`relance.testing`: the world in memory, as users' tests see it."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from relance import (
    App,
    BatchError,
    CircuitBreaker,
    Fatal,
    Record,
    Reject,
    RelanceError,
    RetryPolicy,
    SendError,
    SettingsError,
)
from relance.errors import HandlerExitError
from relance.testing import World
from relance.testing.topics import murmur2

STEPS = RetryPolicy.exponential(max_attempts=4, initial_delay=1.0, jitter_factor=0)


def app_with(handler: Callable[..., Any], **options: Any) -> App:
    app = App("g", bootstrap_servers="localhost:1")
    options = {"retry": STEPS, "dead_letter_topic": "t.DLT", **options}
    app.consumer("t", **options)(handler)
    return app


def offsets(world: World) -> list[int]:
    return [call.offset for call in world.calls]


def test_a_handler_that_stops_the_application_is_told_how_that_is_done_here() -> None:
    def handle(value: int) -> None:
        app.stop()

    app = app_with(handle)
    with World(app) as world:
        world.produce("t", 1)
        with pytest.raises(Fatal, match="leave its `with` block"):
            world.run()
        assert world.dead_letters() == []


def test_an_application_in_a_world_is_not_run_beside_it() -> None:
    app = app_with(lambda value: None)

    async def lifespan() -> None:
        async with app.running():
            """Not reached."""

    with World(app):
        with pytest.raises(RelanceError, match="is in a World, which runs it"):
            app.run()
        with pytest.raises(RelanceError, match="is in a World, which runs it"):
            asyncio.run(lifespan())


# -- time --------------------------------------------------------------------------------------------


def test_a_sync_handler_is_called_at_once_and_its_retries_when_they_are_due() -> None:
    def handle(value: int) -> None:
        if value == 1:
            raise TimeoutError("again")

    with World(app_with(handle, ordering="none")) as world:
        for value in range(3):
            world.produce("t", value)
        assert world.run() == 3
        assert world.committed("t") == 1
        assert world.next_due() == pytest.approx(1.0)
        world.jump(0.999)
        assert len(world.calls) == 3
        assert world.jump(0.001) == 1
        world.finish()
        assert [round(call.at, 3) for call in world.calls if call.offset == 1] == [0.0, 1.0, 3.0, 7.0]
        assert [call.attempt for call in world.calls if call.offset == 1] == [1, 2, 3, 4]
        assert (world.committed("t"), world.lag("t")) == (3, 0)
        assert world.dead_letters()[0].retry_count == 3


def test_the_retries_of_an_async_handler_are_due_when_the_policy_says() -> None:
    async def handle(value: int, record: Record) -> None:
        if record.attempt == 1:
            raise TimeoutError("again")

    with World(app_with(handle, retry=RetryPolicy.fixed(10.0))) as world:
        world.produce("t", 1)
        world.run()
        assert world.next_due() == 10.0
        world.jump(10.0)
        assert world.next_due() is None
        world.finish()
        assert world.now == 10.0
        assert [call.at for call in world.calls] == [0.0, 10.0]


def test_an_async_handler_sleeps_in_virtual_time_and_others_go_on_beside_it() -> None:
    async def handle(value: float) -> None:
        await asyncio.sleep(value)

    with World(app_with(handle, ordering="none", concurrency=3)) as world:
        for value in (5.0, 1.0, 3.0):
            world.produce("t", value)
        world.run()
        assert [call.ended for call in world.calls] == [None, None, None]
        world.jump(3.0)
        assert [call.ended for call in world.calls] == [None, 1.0, 3.0]
        world.finish()
        assert world.now == 5.0
        assert world.committed("t") == 3


def test_time_goes_forward_only_and_what_never_ends_is_told() -> None:
    async def handle(value: int) -> None:
        while True:
            await asyncio.sleep(86_400)

    with World(app_with(handle)) as world:
        world.produce("t", 1)
        with pytest.raises(RelanceError, match="forward only"):
            world.jump(-1)
        with pytest.raises(AssertionError, match="still waits"):
            world.finish()


def test_an_async_deadline_is_of_virtual_time() -> None:
    async def handle(value: int) -> None:
        await asyncio.sleep(60)

    with World(app_with(handle, timeout=2.0, retry=RetryPolicy.fixed(1.0, max_attempts=2))) as world:
        world.produce("t", 1)
        world.finish()
        assert world.now == pytest.approx(5.0)
        assert "HandlerTimeoutError" in world.dead_letters()[0].error_message


# -- topics ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "hashed"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)],
)
def test_keys_are_placed_as_kafka_s_own_producer_places_them(key: bytes, hashed: int) -> None:
    # The values of Kafka's UtilsTest.testMurmur2.
    assert murmur2(key) == hashed & 0xFFFFFFFF


def test_what_handlers_send_is_in_its_topic_and_the_offset_waits_for_it() -> None:
    app = App("g", bootstrap_servers="localhost:1")
    told: list[str] = []

    @app.consumer("t")
    async def handle(value: int, record: Record) -> None:
        record.send("out", value * 2, key="k")
        try:
            await app.send("out", value)
        except SendError as error:
            told.append(str(error))

    with World(app) as world:
        world.produce("t", 21)
        world.run()
        assert "there is no topic out" in told[0]
        assert world.committed("t") == 0
        assert "there is no topic out" in app.health().reasons[0]
        world.topic("out")
        world.run()
        assert world.committed("t") == 1
        assert [record.value for record in world.records("out")] == [b"42"]


def test_a_topic_made_for_what_handlers_send_takes_it() -> None:
    def handle(value: int, record: Record) -> None:
        record.send("out", value * 2, key="k")

    with World(app_with(handle)) as world:
        world.topic("out", 2)
        world.produce("t", 21)
        world.run()
        assert [(r.key, r.value) for r in world.records("out")] == [(b"k", b"42")]
        assert world.committed("t") == 1


def test_a_long_wait_goes_through_the_retry_topic() -> None:
    def handle(value: int) -> None:
        raise TimeoutError("again")

    app = app_with(handle, retry_topic="t.retry", max_in_memory_wait=0, retry=RetryPolicy.fixed(90.0, 3))
    with World(app, partitions=2) as world:
        world.produce("t", 1)
        world.run()
        assert len(world.records("t.retry")) == 1
        assert world.lag("t") == 0
        world.finish()
        assert [call.at for call in world.calls] == [0.0, 90.0, 180.0]
        assert world.lag("t.retry") == 0


def test_wrong_words_are_told_with_the_right_ones() -> None:
    with World(app_with(lambda value: None)) as world:
        with pytest.raises(RelanceError, match=r"no topic nope in this world \(but t, t\.DLT\)"):
            world.produce("nope", 1)
        with pytest.raises(RelanceError, match="has 1 partitions, so none is 7"):
            world.produce("t", 1, partition=7)
        with pytest.raises(SendError):
            world.produce("t", object())
        with pytest.raises(RelanceError, match="at least one process"):
            world.rebalance(0)
        with pytest.raises(RelanceError, match="has 1 partitions already"):
            world.topic("t", 3)
        with pytest.raises(RelanceError, match="no process 1: 1 run, counted from 0"):
            world.crash(1)


@pytest.mark.parametrize("left", [False, True])
def test_a_world_that_was_not_entered_or_is_left_says_so(left: bool) -> None:
    world = World(app_with(lambda value: None))
    if left:
        with world:
            world.produce("t", 1)
            world.run()
    uses: list[Callable[[], object]] = [
        lambda: world.produce("t", 1),
        world.run,
        lambda: world.jump(1),
        world.finish,
        world.next_due,
        lambda: world.rebalance(2),
        lambda: world.lose("t"),
        world.crash,
    ]
    if not left:
        uses += [lambda: world.records("t"), lambda: world.lag("t"), lambda: world.dead_letters("t")]
    for use in uses:
        with pytest.raises(RelanceError, match="only within the world: `with World"):
            use()
    if left:
        assert (world.committed("t"), len(world.calls)) == (1, 1)


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (lambda app: World("orders"), "app: 'orders' is no App"),
        (lambda app: World(app, processes="2"), "processes: '2' is no whole number"),
        (lambda app: World(app, partitions=1.5), "partitions: 1.5 is no whole number"),
        (lambda app: World(app, real_time_limit="1"), "real_time_limit: '1' is no number of seconds"),
        (lambda app: World(app).jump("1"), "seconds: '1' is no number of seconds"),
    ],
)
def test_an_argument_of_a_wrong_type_is_named(use: Callable[[App], object], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        use(app_with(lambda value: None))


def test_a_group_of_no_number_of_processes_is_refused() -> None:
    with World(app_with(lambda value: None)) as world, pytest.raises(SettingsError, match="processes: '2'"):
        world.rebalance("2")  # type: ignore[arg-type]  # on purpose


def test_an_application_without_consumers_or_with_tables_has_no_world() -> None:
    app = App("g", bootstrap_servers="localhost:1")
    with pytest.raises(RelanceError, match="no consumer"):
        World(app)
    app.table("state")
    with pytest.raises(RelanceError, match=r"tables \(state\)"):
        World(app)


def test_an_application_has_one_world_at_a_time_and_another_one_later() -> None:
    app = app_with(lambda value: None)
    with World(app), pytest.raises(RelanceError, match="runs already"):
        World(app).__enter__()
    with World(app) as world:
        world.produce("t", 1)
        assert world.run() == 1
    assert app.health().reasons == ["not running"]


# -- failures ----------------------------------------------------------------------------------------


def test_what_would_end_the_application_is_raised_by_run() -> None:
    def handle(value: int) -> None:
        raise PermissionError("no")

    policy = RetryPolicy.fixed(1.0)
    app = App("g", bootstrap_servers="localhost:1")
    app.consumer("t", retry=policy)(handle)  # no dead-letter topic
    with World(app) as world:
        world.produce("t", 1)
        with pytest.raises(Exception, match="no"):
            world.run()
        assert app.health().status == "DOWN"
        assert world.committed("t") <= 0


def test_a_batch_handler_fails_one_by_one() -> None:
    def handle(values: list[int]) -> None:
        failed = {i: Reject("odd") for i, value in enumerate(values) if value % 2}
        if failed:
            raise BatchError(failed)

    with World(app_with(handle, ordering="none", batch=10)) as world:
        for value in range(10):
            world.produce("t", value)
        world.run()
        assert sorted(letter.original_offset or 0 for letter in world.dead_letters()) == [1, 3, 5, 7, 9]
        assert world.committed("t") == 10
        assert [isinstance(call.error, Reject) for call in world.calls] == [False, True] * 5
        assert {call.error for call in world.calls[::2]} == {None}
        world.assert_no_commit_past_unfinished()


def test_a_batch_error_that_names_no_place_of_the_batch_has_failed_all_of_it() -> None:
    def handle(values: list[int]) -> None:
        if len(values) > 1:
            raise BatchError({7: Reject("nobody is there")})

    with World(app_with(handle, ordering="none", batch=10)) as world:
        for value in range(3):
            world.produce("t", value)
        world.run()
        assert [type(call.error) for call in world.calls] == [BatchError] * 3 + [type(None)] * 3
        assert world.committed("t") == 3
        world.assert_no_commit_past_unfinished()


def test_a_call_that_was_cancelled_at_its_deadline_has_ended_then() -> None:
    async def handle(value: int) -> None:
        await asyncio.sleep(60)

    with World(app_with(handle, timeout=2.0, retry=RetryPolicy.fixed(1.0, max_attempts=1))) as world:
        world.produce("t", 1)
        world.finish()
        assert [(call.ended, type(call.error)) for call in world.calls] == [(2.0, asyncio.CancelledError)]


def test_a_circuit_breaker_opens_and_closes_in_virtual_time() -> None:
    healthy = [False]

    def handle(value: int) -> None:
        if not healthy[0]:
            raise ConnectionError("down")

    breaker = CircuitBreaker(minimum_calls=5, failure_rate=1.0, open_for=30.0)
    with World(app_with(handle, ordering="none", breaker=breaker)) as world:
        for value in range(50):
            world.produce("t", value)
        world.jump(10)
        assert world.app.stats().circuit_breakers[0].state == "open"
        assert world.dead_letters() == []
        healthy[0] = True
        world.finish()
        assert world.app.stats().circuit_breakers[0].state == "closed"
        assert world.committed("t") == 50
        assert world.dead_letters() == []


# -- processes ---------------------------------------------------------------------------------------


def test_processes_share_the_partitions_evenly_and_few_of_them_move() -> None:
    with World(app_with(lambda value: None), partitions=6) as world:
        world.rebalance(3)
        for n in range(6):
            world.produce("t", n, partition=n)
        world.run()
        assert sorted(call.process for call in world.calls) == [1, 1, 2, 2, 3, 3]
        before = {call.partition: call.process for call in world.calls}
        world.rebalance(2)
        for n in range(6):
            world.produce("t", n, partition=n)
        world.run()
        after = {call.partition: call.process for call in world.calls[6:]}
        assert sorted(after.values()) == [1, 1, 1, 2, 2, 2]
        assert sum(before[p] != after[p] for p in before) == 2
        assert len(world.calls) == 12, "a clean move repeats nothing"


def test_a_rebalance_waits_for_what_runs_and_hooks_are_told() -> None:
    told: list[str] = []

    async def handle(value: int) -> None:
        await asyncio.sleep(2)

    app = app_with(handle)
    app.on_assigned(lambda tps: told.append(f"assigned {[tp.partition for tp in tps]}"))
    app.on_revoked(lambda tps: told.append(f"revoked {[tp.partition for tp in tps]}"))
    with World(app, partitions=2) as world:
        world.produce("t", 1, partition=1)
        world.run()
        world.rebalance(2)
        assert world.now == 2.0
        assert world.committed("t", 1) == 1
        assert told == ["assigned [0, 1]", "revoked [1]", "assigned [1]"]
        world.finish()
        assert len(world.calls) == 1


def test_what_a_process_did_after_its_last_commit_is_done_again_when_it_dies() -> None:
    with World(app_with(lambda value: None)) as world:
        for value in range(4):
            world.produce("t", value)
        world.run()
        world.produce("t", 4)
        world.run(commit=False)
        world.crash()
        world.run()
        assert offsets(world) == [0, 1, 2, 3, 4, 4]
        assert [call.process for call in world.calls[-2:]] == [1, 2]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_crash_from_within_a_handler_ends_its_process_right_there(is_async: bool) -> None:
    worlds: list[World] = []
    after: list[int] = []

    def handle(value: int, record: Record) -> None:
        if value == 2 and len(worlds[0].calls) == 3:
            worlds[0].crash()
        after.append(value)

    async def handle_async(value: int, record: Record) -> None:
        await asyncio.sleep(0)
        handle(value, record)

    with World(app_with(handle_async if is_async else handle)) as world:
        worlds.append(world)
        for value in range(4):
            world.produce("t", value)
        world.finish()
        assert after == [0, 1, 0, 1, 2, 3]
        assert world.calls[2].ended is None
        assert world.committed("t") == 4


def crash_and_go_on(world: World, record: Record) -> None:
    try:
        world.crash()
    except BaseException:
        record.send("out", "dead", key="k")


SHAPES: list[dict[str, Any]] = [
    {},
    {"concurrency": 1, "ordering": "key"},
    {"concurrency": 2, "ordering": "key"},
    {"concurrency": 16, "ordering": "key"},
    {"concurrency": 2},
    {"concurrency": 2, "ordering": "none"},
    {"workers": "threads", "concurrency": 4, "ordering": "key"},
    {"batch": 10},
    {"batch": 10, "concurrency": 3, "ordering": "none"},
    {"timeout": 5.0, "concurrency": 2},
    {"handoff": "transactional", "concurrency": 2, "ordering": "key"},
]
DEATHS = ["raised", "swallowed", "finally", "swallowed and awaited", "in a task", "in a thread"]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: " ".join(f"{k}={v}" for k, v in shape.items()))
@pytest.mark.parametrize("how", ["sync", *DEATHS])
def test_the_dead_stay_dead(shape: dict[str, Any], how: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("ERROR")
    crashed: list[bool] = []
    after: list[str] = []

    async def crash_later() -> None:
        await asyncio.sleep(0)
        world.crash()

    async def die(record: Record) -> None:
        crashed.append(True)
        match how:
            case "raised":
                world.crash()
            case "swallowed":
                crash_and_go_on(world, record)
            case "swallowed and awaited":
                crash_and_go_on(world, record)
                await asyncio.sleep(0)
                after.append("the dead went on")
            case "finally":
                try:
                    world.crash()
                finally:
                    record.send("out", "dead", key="k")
                    await asyncio.sleep(1)
                    after.append("the dead went on")
            case "in a task":
                await asyncio.gather(crash_later(), asyncio.sleep(0.5))
            case "in a thread":
                await asyncio.to_thread(world.crash)

    async def handle(value: int, record: Record) -> None:
        if not crashed:
            await die(record)
        record.send("out", value, key="k")

    async def handle_batch(values: list[int], records: list[Record]) -> None:
        for value, record in zip(values, records, strict=True):
            await handle(value, record)

    def handle_sync(value: int, record: Record) -> None:
        if not crashed:
            crashed.append(True)
            crash_and_go_on(world, record)
        record.send("out", value, key="k")

    def handle_sync_batch(values: list[int], records: list[Record]) -> None:
        for value, record in zip(values, records, strict=True):
            handle_sync(value, record)

    is_sync = how == "sync" or "workers" in shape
    single, several = (handle_sync, handle_sync_batch) if is_sync else (handle, handle_batch)
    app = app_with(several if "batch" in shape else single, **{"timeout": None, **shape})
    if is_sync and "timeout" in shape:
        app = app_with(single, **{**shape, "timeout": None})
    with World(app, real_io=how == "in a thread") as world:
        world.topic("out", 1)
        for value in range(3):
            world.produce("t", value, key="k")
        world.finish()
        assert [record.value for record in world.records("out")] == [b"0", b"1", b"2"]
        ended = [(call.process, call.offset) for call in world.calls if call.ended is not None]
        assert [one for one in ended if one[0] == 2 or one[1] == 0] == [(2, 0), (2, 1), (2, 2)]
        assert {call.process for call in world.calls if call.ended is None} == {1}
        assert (world.lag("t"), world.dead_letters(), after) == (0, [], [])
        assert app.stats().handled == 3, "the dead process has taken its figures with it"
        world.assert_no_commit_past_unfinished()
    assert caplog.messages == []


def test_other_handlers_of_a_dead_process_go_no_further() -> None:
    told: list[str] = []

    async def handle(value: int, record: Record) -> None:
        if value == 0 and len(world.calls) <= 2:
            await asyncio.sleep(1)
            world.crash()
        try:
            child = asyncio.create_task(asyncio.sleep(2))
            await child
            told.append(f"slept {value}")
        finally:
            await app.send("out", value)
            told.append(f"sent {value}")

    app = app_with(handle, ordering="none", concurrency=2)
    with World(app) as world:
        world.topic("out", 1)
        world.produce("t", 0)
        world.produce("t", 1)
        world.finish()
        assert sorted(told) == ["sent 0", "sent 1", "slept 0", "slept 1"]
        assert len(world.records("out")) == 2
        assert [call.process for call in world.calls] == [1, 1, 2, 2]
        assert world.now == 3.0


def test_a_lock_that_the_dead_held_is_free() -> None:
    lock = asyncio.Lock()

    async def handle(value: int) -> None:
        async with lock:
            await asyncio.sleep(1)

    with World(app_with(handle, ordering="none", concurrency=3)) as world:
        for value in range(3):
            world.produce("t", value)
        world.jump(0.5)
        world.crash()
        world.finish()
        assert world.lag("t") == 0
        assert [call.process for call in world.calls] == [1, 1, 1, 2, 2, 2]


def test_the_other_consumers_of_a_process_die_with_it() -> None:
    app = App("g", bootstrap_servers="localhost:1")
    done: list[tuple[str, int]] = []

    @app.consumer("a")
    async def slow(value: int) -> None:
        await asyncio.sleep(10)
        done.append(("a", value))

    @app.consumer("b")
    def crashing(value: int) -> None:
        if len(world.calls) == 2:
            world.crash()
        done.append(("b", value))

    @app.consumer("c")
    def later(value: int) -> None:
        done.append(("c", value))

    with World(app) as world:
        world.produce("a", 1)
        world.run()
        world.produce("b", 2)
        world.produce("c", 3)
        world.finish()
        assert done == [("b", 2), ("c", 3), ("a", 1)]
        assert [(call.process, call.topic) for call in world.calls] == [
            (1, "a"),
            (1, "b"),
            (2, "b"),
            (2, "c"),
            (2, "a"),
        ] or {call.process for call in world.calls if call.ended is not None} == {2}


def test_a_crash_in_a_hook_ends_its_process_and_no_hook_of_the_dead_is_called() -> None:
    told: list[str] = []
    app = app_with(lambda value: None)

    @app.on_assigned
    def crash_once(partitions: list[Any]) -> None:
        told.append("first")
        if len(told) == 1:
            world.crash()

    app.on_assigned(lambda partitions: told.append("second"))
    world = World(app)
    with world:
        assert told == ["first", "first", "second"]
        world.produce("t", 1)
        world.run()
        assert [call.process for call in world.calls] == [2]
        world.crash()
        assert told == ["first", "first", "second", "first", "second"], "nobody is revoked by a crash"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_crash_in_the_hook_of_an_open_breaker_ends_its_process(is_async: bool) -> None:
    died: list[bool] = []

    def handle(value: int, record: Record) -> None:
        if not died:
            raise ConnectionError("down")
        record.send("out", value)

    async def handle_async(value: int, record: Record) -> None:
        handle(value, record)

    breaker = CircuitBreaker(minimum_calls=2, window=2, failure_rate=1.0, open_for=30.0)
    app = app_with(handle_async if is_async else handle, ordering="none", breaker=breaker, concurrency=3)

    @app.on_breaker_open
    def crash(opened: object) -> None:
        died.append(True)
        world.crash()

    with World(app) as world:
        world.topic("out", 1)
        for value in range(4):
            world.produce("t", value)
        world.finish()
        assert len(died) == 1
        assert sorted(record.value or b"" for record in world.records("out")) == [b"0", b"1", b"2", b"3"]
        assert {call.process for call in world.calls if call.error is None and call.ended is not None} == {2}


def test_a_process_that_dies_while_it_drains_holds_the_rebalance_up_no_longer() -> None:
    revoked: list[object] = []

    async def handle(value: int) -> None:
        if len(world.calls) == 1:
            await asyncio.sleep(1)
            world.crash()

    app = app_with(handle)
    app.on_revoked(revoked.append)
    with World(app, partitions=2) as world:
        world.produce("t", 1, partition=1)
        world.run()
        world.rebalance(2)
        assert world.now == 1.0
        world.finish()
        assert revoked == []
        assert [call.process for call in world.calls] in ([1, 2], [1, 3])
        assert world.lag("t") == 0


@pytest.mark.parametrize(("handoff", "found"), [("acknowledged", 2), ("transactional", 1)])
def test_a_crash_after_a_hand_off_repeats_it_unless_it_is_transactional(handoff: str, found: int) -> None:
    def handle(value: int, record: Record) -> None:
        record.send("out", value)

    with World(app_with(handle, handoff=handoff)) as world:
        world.topic("out", 1)
        world.produce("t", 1)
        world.run(commit=False)
        world.crash()
        world.finish()
        assert len(world.records("out")) == found


def test_a_sync_wrapper_that_returns_nothing_to_await_fails_as_on_kafka() -> None:
    async def really(value: int) -> None:
        """Called by nobody."""

    @functools.wraps(really)
    def wrapper(value: int) -> None:
        """Forgets to call it."""

    with World(app_with(wrapper)) as world:
        world.produce("t", 1)
        with pytest.raises(Fatal, match="nothing to await"):
            world.run()


def test_a_sync_handler_that_returns_what_is_to_be_awaited_fails_as_on_kafka() -> None:
    async def really(value: int) -> None:
        """Never awaited."""

    def handle(value: int) -> Any:
        return really(value)

    with World(app_with(handle)) as world:
        world.produce("t", 1)
        with pytest.raises(Fatal, match="has to be awaited"):
            world.run()


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_crash_from_within_a_handler_that_a_rebalance_waits_for_ends_its_process(processes: int) -> None:
    worlds: list[World] = []

    async def handle(value: int) -> None:
        await asyncio.sleep(2)
        if len(worlds[0].calls) == 4:
            worlds[0].crash()

    with World(app_with(handle, concurrency=4), partitions=4, processes=2) as world:
        worlds.append(world)
        for partition in range(4):
            world.produce("t", 1, partition=partition)
        world.run()
        world.rebalance(processes)
        world.finish()
        assert world.lag("t") == 0
        assert len(world.calls) > 4, "what had died is handled again"
        assert all(call.ended is not None for call in world.calls[4:])
        owned = [tp for node in world._nodes() for tp in node.runtime.owned()]
        assert sorted(owned) == world.topics.partitions("t")
        world.assert_no_commit_past_unfinished()


def test_a_lost_partition_is_handled_again_by_its_next_owner() -> None:
    async def handle(value: int) -> None:
        await asyncio.sleep(10)

    with World(app_with(handle), processes=2) as world:
        world.produce("t", 1)
        world.jump(1)
        world.lose("t")
        world.finish()
        assert len(world.calls) == 2
        assert world.committed("t") == 1


def test_a_handler_cannot_move_the_world() -> None:
    worlds: list[World] = []

    def handle(value: int) -> None:
        with pytest.raises(RelanceError, match="for the test, not for a handler"):
            worlds[0].run()

    with World(app_with(handle)) as world:
        worlds.append(world)
        world.produce("t", 1)
        assert world.run() == 1
        assert world.calls[0].error is None


# -- what may run at once ----------------------------------------------------------------------------


def most_at_once(records: list[tuple[str, str | None, int]], *, ordering: str, partitions: int = 1) -> int:
    """`records`: topic, key, partition of each. How many calls were out at the same time."""
    out, most = 0, 0
    app = App("g", bootstrap_servers="localhost:1")

    @app.consumer("orders", "payments", ordering=ordering, concurrency=16)  # type: ignore[arg-type]
    async def handle(value: int) -> None:
        nonlocal out, most
        out += 1
        most = max(most, out)
        await asyncio.sleep(1)
        out -= 1

    with World(app, partitions=partitions) as world:
        for value, (topic, key, partition) in enumerate(records):
            world.produce(topic, value, key=key, partition=partition)
        world.finish()
        assert world.lag("orders") + world.lag("payments") == 0
    return most


def test_order_is_kept_within_a_partition_and_not_between_topics() -> None:
    one_topic = [("orders", "k", 0), ("orders", "k", 0)]
    two_topics = [("orders", "k", 0), ("payments", "k", 0)]
    two_partitions = [("orders", "k", 0), ("orders", "k", 1)]
    for ordering in ("key", "partition"):
        assert most_at_once(one_topic, ordering=ordering) == 1
        assert most_at_once(two_topics, ordering=ordering) == 2
        assert most_at_once(two_partitions, ordering=ordering, partitions=2) == 2


def test_records_without_a_key_stand_in_no_order_and_an_empty_key_is_one() -> None:
    assert most_at_once([("orders", None, 0)] * 3, ordering="key") == 3
    assert most_at_once([("orders", "", 0)] * 3, ordering="key") == 1
    assert most_at_once([("orders", None, 0)] * 3, ordering="partition") == 1


def test_a_record_without_a_key_is_a_batch_by_itself_where_keys_are_ordered() -> None:
    sizes: list[int] = []

    def handle(values: list[int]) -> None:
        sizes.append(len(values))

    with World(app_with(handle, ordering="key", batch=10)) as world:
        for value in range(4):
            world.produce("t", value, key=None if value < 2 else "k")
        world.run()
        assert sorted(sizes) == [1, 1, 2]


# -- the checker -------------------------------------------------------------------------------------


def test_a_commit_past_an_unfinished_record_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from relance.engine.assignment import Assignment, Commit
    from relance.engine.crashes import Mark

    def handle(value: int) -> None:
        if value == 1:
            raise TimeoutError("again")

    monkeypatch.setattr(
        Assignment, "commit", lambda self, **_: Commit(self, self.frontier.position, "", Mark(True))
    )
    with World(app_with(handle, ordering="none")) as world:
        for value in range(3):
            world.produce("t", value)
        world.run()
        with pytest.raises(AssertionError, match="t-0: 3 is committed, 1 is not finished"):
            world.assert_no_commit_past_unfinished()


def test_the_same_seed_gives_the_same_jitter_and_another_one_another() -> None:
    def handle(value: int) -> None:
        raise TimeoutError("again")

    def times(seed: int) -> list[float]:
        with World(app_with(handle, retry=RetryPolicy.exponential(max_attempts=4)), seed=seed) as world:
            world.produce("t", 1)
            world.finish()
            return [call.at for call in world.calls]

    assert times(1) == times(1)
    assert times(1) != times(2)


def test_an_error_says_which_world_it_was() -> None:
    def fail_at_3() -> None:
        with World(app_with(lambda value: None), seed=7) as world:
            world.jump(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as raised:
        fail_at_3()
    assert raised.value.__notes__ == ["(a World with seed=7, at 3 s)"]


def test_the_fixture_makes_worlds_and_leaves_them(relance_world: Callable[..., World]) -> None:
    world = relance_world(app_with(lambda value: None), partitions=2)
    world.produce("t", 1)
    assert world.run() == 1


def test_import_relance_does_not_import_the_kit_nor_pytest() -> None:
    code = "import relance, sys; print([m for m in sys.modules if m in ('pytest', 'relance.testing')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# -- what ends a process -----------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
def test_a_handler_that_exits_stops_the_application_with_its_record_named(is_async: bool) -> None:
    def handle(value: int) -> None:
        if value == 1:
            sys.exit(0)

    async def handle_async(value: int) -> None:
        handle(value)

    with World(app_with(handle_async if is_async else handle)) as world:
        world.produce("t", 0)
        world.produce("t", 1)
        with pytest.raises(HandlerExitError, match="t-0 at offset 1: SystemExit: 0"):
            world.run()


def test_what_a_test_raises_in_a_handler_comes_out_of_the_world() -> None:
    def handle(value: int) -> None:
        pytest.fail("the handler must not be called")

    with World(app_with(handle)) as world:
        world.produce("t", 0)
        with pytest.raises(pytest.fail.Exception, match="must not be called"):
            world.run()


def test_a_hook_that_exits_ends_nothing() -> None:
    app = app_with(lambda value: None)
    app.on_assigned(lambda tps: sys.exit(0))
    with World(app) as world:
        world.produce("t", 0)
        world.finish()
        assert offsets(world) == [0]


def test_what_a_failed_batch_sent_does_not_go_out_with_what_its_records_send_alone() -> None:
    def handle(values: list[int], records: list[Record]) -> None:
        for value, record in zip(values, records, strict=True):
            record.send("out", {"value": value, "of": len(values)})
        if len(values) > 1:
            raise ValueError("one of them")

    with World(app_with(handle, batch=3, ordering="none")) as world:
        world.topic("out")
        for value in range(3):
            world.produce("t", value, key="k")
        world.finish()
        assert sorted(r.value for r in world.records("out")) == [
            b'{"value":%d,"of":1}' % value for value in range(3)
        ]

"""The async worker on a loop of its own, against a real runtime: concurrency, cancellation, wakeups."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from relance.decoding import decoder_for, handler_shape
from relance.engine.lanes import Run
from relance.engine.offset_map import mark_text
from relance.errors import Fatal, HandlerExitError, Reject, Retry, SendError, TransientError
from relance.policies.retry import RetryPolicy
from relance.record import Record, TopicPartition
from relance.workers import coroutine
from relance.workers.coroutine import CoroutineBatchCall, CoroutineCall
from relance.workers.loop import LoopWorker
from waiting import wait_until
from world import ORDERS, TOPIC_ID, Member, record

OTHER = TopicPartition("orders", 1)
Handler = Callable[..., Coroutine[Any, Any, None]]


class Bench:
    """A member with the machine's clock, and a worker on a loop that runs in a thread."""

    new_loop: Callable[[], asyncio.AbstractEventLoop]

    def __init__(self, handler: Handler, concurrency: int = 1, **plan: Any) -> None:
        self.member = Member.in_real_time(**plan)
        self.runtime = self.member.runtime
        shape = handler_shape(handler)
        call = CoroutineCall(self.runtime, handler, shape, decoder_for(shape.annotation))
        self.worker = LoopWorker(self.runtime, call, concurrency)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self.new_loop) as runner:
                runner.run(self._main())
        except BaseException as error:
            self.error = error

    async def _main(self) -> None:
        self.task = asyncio.ensure_future(self.worker.run())
        await self.task

    def __enter__(self) -> Bench:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.runtime.drain(0.0)
        self.thread.join(5)
        assert not self.thread.is_alive()

    def give(self, *records: Record, tp: TopicPartition = ORDERS) -> None:
        self.runtime.received("source", tp, list(records))

    def all_idle(self) -> bool:
        return len(self.worker._idle) == self.worker._concurrency

    def base(self, tp: TopicPartition = ORDERS) -> int:
        with self.runtime._lock:
            assignment = self.runtime.engine.assignments[tp]
            for run in assignment.running:
                self.runtime.engine.report(run)
            return assignment.frontier.base


@pytest.fixture(
    params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"], autouse=True
)
def new_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bench, "new_loop", staticmethod(request.param), raising=False)


def records(count: int, start: int = 0, tp: TopicPartition = ORDERS) -> list[Record]:
    return [record(start + i, str(start + i).encode(), str(start + i).encode(), tp) for i in range(count)]


class Gate:
    """Handlers that wait until the test lets them go; works from any thread."""

    def __init__(self) -> None:
        self.inside: list[int] = []
        self.most = 0
        self.cancelled: list[int] = []
        self.done: list[int] = []
        self.open = threading.Event()

    async def handler(self, value: int) -> None:
        self.inside.append(value)
        self.most = max(self.most, len(self.inside))
        try:
            while not self.open.is_set():
                await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            self.cancelled.append(value)
            raise
        finally:
            self.inside.remove(value)
        self.done.append(value)


# -- handling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_as_many_handlers_run_at_once_as_were_asked_for_and_no_more(concurrency: int) -> None:
    gate = Gate()
    with Bench(gate.handler, concurrency, ordering="key") as bench:
        bench.give(*records(60))
        wait_until(lambda: len(gate.inside) == concurrency)
        gate.open.set()
        wait_until(lambda: bench.base() == 60)
    assert gate.most == concurrency
    assert sorted(gate.done) == list(range(60))
    assert bench.runtime.counters.handled == 60
    assert bench.member.at_rest()


def test_one_partition_in_order_uses_one_task_however_many_there_are() -> None:
    gate = Gate()
    with Bench(gate.handler, 5, ordering="partition") as bench:
        bench.give(*records(20))
        wait_until(lambda: gate.inside)
        gate.open.set()
        wait_until(lambda: bench.base() == 20)
    assert gate.most == 1
    assert gate.done == list(range(20))


def test_a_handler_that_never_suspends_leaves_the_loop_its_turn() -> None:
    ticks: list[int] = []

    async def handler(value: int) -> None:
        if value == 0:
            asyncio.get_running_loop().call_soon(ticks.append, 1)
        while not ticks and value > 400:
            await asyncio.sleep(0)
        threading.Event().wait(0.0001)

    with Bench(handler) as bench:
        bench.give(*records(500))
        wait_until(lambda: bench.base() == 500)
    assert ticks == [1]


@pytest.mark.parametrize("seconds", [0.003, 0.01], ids=["some", "one"])
def test_a_handler_that_has_let_others_have_their_turn_is_given_the_next_record_at_once(
    seconds: float,
) -> None:
    async def handler(value: int) -> None:
        await asyncio.sleep(seconds)  # some records, or one, take longer than a task may keep the loop

    bench = Bench(handler, 2, ordering="key")
    alone: list[Run] = []
    give_back = bench.runtime.give_back

    def counted(run: Run) -> None:
        alone.append(run)
        give_back(run)

    bench.runtime.give_back = counted  # type: ignore[method-assign]
    bench.give(*records(20))
    with bench:
        wait_until(lambda: bench.base() == 20)
    assert not alone, "given back without asking for the next"


def what_each_found(suspends: int | None = None) -> list[int]:
    """Of how many before it the loop had run a callback, for 12 that block long; one may suspend first."""
    seen: list[int] = []
    ticks: list[int] = []

    async def handler(value: int) -> None:
        if value == suspends:
            await asyncio.sleep(0)
        seen.append(len(ticks))
        asyncio.get_running_loop().call_soon(ticks.append, value)
        threading.Event().wait(0.025)

    with Bench(handler) as bench:
        bench.give(*records(12))
        wait_until(lambda: bench.base() == 12)
    return seen


def test_a_suspension_excuses_the_record_that_made_it_and_none_that_blocks_after_it() -> None:
    seen = what_each_found(suspends=3)  # runs have one record, two, four: it is the first of four
    assert seen[:4] + seen[5:] == [0, 1, 2, 3, *range(5, 12)], "each found that all before it had their turn"


def test_what_does_not_decode_is_dead_lettered_and_no_handler_sees_it() -> None:
    seen: list[int] = []

    async def handler(value: int) -> None:
        seen.append(value)

    with Bench(handler) as bench:
        bench.give(record(0, value=b"not a number"), record(1, value=b"1"))
        wait_until(lambda: bench.member.writes)
        bench.member.ack()
        wait_until(lambda: bench.base() == 2)
    assert seen == [1]


def test_a_handler_that_asks_for_the_record_gets_it() -> None:
    seen: list[tuple[int, int]] = []

    async def handler(value: int, found: Record) -> None:
        seen.append((value, found.offset))

    with Bench(handler) as bench:
        bench.give(record(3, value=b"7"))
        wait_until(lambda: seen)
    assert seen == [(7, 3)]


def test_a_slow_handler_gives_other_lanes_their_turn_between_two_records_of_a_lane() -> None:
    seen: list[bytes | None] = []

    async def handler(value: int, found: Record) -> None:
        seen.append(found.key)
        await asyncio.sleep(0.03)

    bench = Bench(handler, 1, ordering="key")
    bench.give(*(record(i, b"a", b"1") for i in range(5)), record(5, b"b", b"1"))
    with bench:
        wait_until(lambda: bench.base() == 6)
    assert seen[:3] == [b"a", b"b", b"a"]


def test_a_slow_handler_goes_on_with_its_lane_while_no_other_waits() -> None:
    async def handler(value: int) -> None:
        await asyncio.sleep(0.025)

    bench = Bench(handler, 2, ordering="key")
    runs: list[int] = []
    take = bench.runtime.engine.take

    def counted(most: int) -> Run | None:
        run = take(most)
        if run is not None:
            runs.append(len(run.records))
        return run

    bench.runtime.engine.take = counted  # type: ignore[method-assign]
    bench.give(*(record(i, b"a", b"1") for i in range(10)))
    with bench:
        wait_until(lambda: bench.base() == 10)
    assert runs[:3] == [1, 2, 4], "each run was ended, and none given back before"


def test_a_run_of_a_slow_handler_has_an_end_although_no_other_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coroutine, "_LONGEST", 0.06)

    async def handler(value: int) -> None:
        await asyncio.sleep(0.025)

    bench = Bench(handler, 1, ordering="key")
    done: list[int] = []
    finish = bench.runtime.engine.finish

    def counted(run: Run) -> None:
        done.append(run.done)
        finish(run)

    bench.runtime.engine.finish = counted  # type: ignore[method-assign]
    bench.give(*(record(i, b"a", b"1") for i in range(20)))
    with bench:
        wait_until(lambda: bench.base() == 20)
    assert max(done) <= 4, "three take longer than it may"


def test_a_retry_that_falls_due_has_its_turn_although_a_slow_lane_could_go_on() -> None:
    seen: list[bytes | None] = []

    async def handler(value: int, found: Record) -> None:
        seen.append(found.key)
        if found.key == b"b" and found.attempt == 1:
            raise TransientError("again")
        await asyncio.sleep(0.025)

    bench = Bench(handler, 1, ordering="key", retry=RetryPolicy.fixed(0.2))
    bench.give(record(0, b"b", b"1"), *(record(i, b"a", b"1") for i in range(1, 21)))
    with bench:
        wait_until(lambda: bench.base() == 21)
    assert seen.index(b"b", 1) < 13


def test_a_slow_handler_that_never_suspends_leaves_the_loop_its_turn_within_a_run() -> None:
    assert what_each_found() == list(range(12)), "each found that all who came before it had had their turn"


# -- waking ----------------------------------------------------------------------------------------


def test_a_retry_that_falls_due_while_all_is_idle_is_made() -> None:
    seen: list[int] = []

    async def handler(value: int, found: Record) -> None:
        seen.append(found.attempt)
        if found.attempt < 3:
            raise TransientError("again")

    with Bench(handler, 3, retry=RetryPolicy.fixed(0.01)) as bench:
        bench.give(*records(1))
        wait_until(lambda: bench.base() == 1)
    assert seen == [1, 2, 3]


def test_a_retry_is_made_although_the_task_that_failed_is_busy_with_something_long() -> None:
    gate = Gate()

    async def handler(value: int, found: Record) -> None:
        if value == 0 and found.attempt == 1:
            raise TransientError("again")
        if value == 1:
            await gate.handler(value)

    with Bench(handler, 2, ordering="key", retry=RetryPolicy.fixed(0.02)) as bench:
        wait_until(bench.all_idle)
        bench.give(*records(2))
        wait_until(lambda: gate.inside)
        wait_until(lambda: bench.base() == 1)
        gate.open.set()
        wait_until(lambda: bench.base() == 2)


def test_an_earlier_retry_is_not_late_because_a_later_one_was_waited_for() -> None:
    seen: list[int] = []

    async def handler(value: int, found: Record) -> None:
        if found.attempt == 1:
            raise Retry(after=30.0 if value == 0 else 0.02)
        seen.append(value)

    with Bench(handler, 1, ordering="key") as bench:
        bench.give(*records(1))
        wait_until(lambda: bench.runtime.look().waiting == 1)
        wait_until(bench.all_idle)
        bench.give(*records(1, 1))
        wait_until(lambda: seen == [1])


def test_an_acknowledgement_wakes_what_it_lets_go_on() -> None:
    seen: list[int] = []

    async def handler(value: int) -> None:
        if value == 0:
            raise Reject("no")
        seen.append(value)

    with Bench(handler, 2, ordering="partition") as bench:
        bench.member.refuse_at_once = True
        bench.give(*records(3))
        wait_until(lambda: bench.runtime.pauses("source"))
        wait_until(bench.all_idle)
        assert seen == []
        bench.member.ack()
        wait_until(lambda: bench.base() == 3)
    assert seen == [1, 2]


def test_work_that_was_there_before_the_worker_ran_is_found() -> None:
    seen: list[int] = []

    async def handler(value: int) -> None:
        seen.append(value)

    bench = Bench(handler, 2)
    bench.give(*records(1))
    with bench:
        wait_until(lambda: seen)


def test_a_stop_before_it_runs_and_a_stop_while_all_are_idle_end_it() -> None:
    async def handler(value: int) -> None:
        pass

    stopped = Bench(handler, 3)
    stopped.runtime.drain(0.0)
    with stopped:
        stopped.thread.join(5)
    assert stopped.error is None
    with Bench(handler, 3) as bench:
        wait_until(bench.all_idle)
    assert bench.error is None


def test_calls_from_threads_after_the_loop_is_gone_hurt_nobody() -> None:
    async def handler(value: int) -> None:
        pass

    with Bench(handler) as bench:
        wait_until(bench.all_idle)
        told, abandon = bench.runtime.on_work, bench.runtime.on_abandon
    bench.give(*records(1))
    told()
    run = bench.runtime.engine.take(1)
    assert run is None
    abandon(run)  # type: ignore[arg-type]


@pytest.mark.parametrize("concurrency", [1, 7])
def test_many_threads_that_feed_and_acknowledge_lose_no_wakeup(concurrency: int) -> None:
    tps = [TopicPartition("orders", i) for i in range(4)]
    count = 300
    handled: list[tuple[int, int]] = []

    async def handler(value: int, found: Record) -> None:
        if value % 10 == 3:
            raise Reject("no")
        if value % 10 == 7 and found.attempt == 1:
            raise TransientError("again")
        if value % 5 == 0:
            await asyncio.sleep(0)
        handled.append((found.partition, found.offset))

    def feed(bench: Bench, tp: TopicPartition) -> None:
        for i in range(count):
            bench.give(record(i, str(i % 7).encode(), str(i).encode(), tp), tp=tp)
            if i % 50 == 0:  # let the workers run dry, so that they have to be woken
                wait_until(bench.all_idle)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with Bench(handler, concurrency, ordering="key", retry=RetryPolicy.fixed(0.001)) as bench:
            bench.member.assign(*tps)
            bench.member.ack_from_elsewhere()
            feeders = [threading.Thread(target=feed, args=(bench, tp)) for tp in tps]
            for feeder in feeders:
                feeder.start()
            for feeder in feeders:
                feeder.join()
            wait_until(
                lambda: all(bench.base(tp) == count for tp in tps), message=lambda: f"{bench.runtime.look()}"
            )
            wait_until(bench.member.at_rest)
    finally:
        sys.setswitchinterval(interval)
    assert len(handled) == len(set(handled)) == 4 * count * 9 // 10
    for tp in tps:
        for key in range(7):
            mine = [o for p, o in handled if p == tp.partition and o % 7 == key]
            assert mine == sorted(mine)


# -- cancellation ----------------------------------------------------------------------------------


def revoke(bench: Bench) -> None:
    bench.runtime.revoking("source", [ORDERS])
    bench.member.commit()
    bench.runtime.revoked("source", [ORDERS], lost=False)


def test_what_still_runs_at_the_drain_deadline_is_cancelled_and_not_committed() -> None:
    gate = Gate()
    with Bench(gate.handler, 2, ordering="key", drain_timeout=0.02) as bench:
        bench.member.assign(OTHER)
        bench.give(*records(2))
        wait_until(lambda: len(gate.inside) == 2)
        revoke(bench)
        wait_until(lambda: sorted(gate.cancelled) == [0, 1])
        assert bench.member.broker.commits[ORDERS][0] == 0
        gate.open.set()
        bench.give(*records(5, tp=OTHER), tp=OTHER)  # both tasks are still at work
        wait_until(lambda: bench.base(OTHER) == 5)
    assert bench.error is None
    assert bench.runtime.counters.handled == 5


def test_lost_partitions_cancel_what_runs_at_once() -> None:
    gate = Gate()
    with Bench(gate.handler, 1) as bench:
        bench.give(*records(3))
        wait_until(lambda: gate.inside)
        bench.runtime.revoked("source", [ORDERS], lost=True)
        wait_until(lambda: gate.cancelled == [0])
        wait_until(bench.all_idle)
    assert gate.done == []


def test_a_handler_that_swallows_the_cancellation_counts_for_nothing_and_its_task_works_on() -> None:
    swallowed: list[int] = []
    let_go = threading.Event()

    async def handler(value: int) -> None:
        if value:
            return
        while not let_go.is_set():
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                swallowed.append(value)

    with Bench(handler, 1, drain_timeout=0.02) as bench:
        bench.member.assign(OTHER)
        bench.give(*records(1))
        wait_until(lambda: bench.runtime.look().in_flight)
        revoke(bench)
        wait_until(lambda: swallowed)
        let_go.set()
        bench.give(*records(3, 1, OTHER), tp=OTHER)
        wait_until(lambda: bench.base(OTHER) == 4)
    assert bench.member.broker.commits[ORDERS][0] == 0
    assert bench.runtime.counters.handled == 3
    assert bench.error is None


def test_a_handler_that_turns_the_cancellation_into_an_error_writes_nothing_for_a_fenced_record() -> None:
    async def handler(value: int) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("cancelled, it says") from None

    with Bench(handler, 1) as bench:
        bench.give(*records(1))
        wait_until(lambda: bench.runtime.look().in_flight)
        bench.runtime.revoked("source", [ORDERS], lost=True)
        wait_until(bench.all_idle)
    assert bench.member.writes == []


def test_a_handler_that_turns_the_cancellation_at_the_drain_deadline_into_an_error_has_not_failed() -> None:
    async def handler(value: int) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("cancelled, it says") from None

    with Bench(handler, 1, drain_timeout=0.02) as bench:
        bench.give(*records(1))
        wait_until(lambda: bench.runtime.look().in_flight)
        bench.runtime.revoking("source", [ORDERS])
        wait_until(bench.all_idle)
    assert bench.member.writes == []
    assert bench.runtime.counters.failed == 0
    assert bench.error is None


def test_a_handler_whose_own_subtask_was_cancelled_has_failed_and_its_task_works_on() -> None:
    seen: list[int] = []

    async def handler(value: int) -> None:
        if value < 5:
            subtask = asyncio.ensure_future(asyncio.sleep(60))
            subtask.cancel()
            await subtask
        seen.append(value)

    with Bench(handler, 2, ordering="key") as bench:
        bench.give(*records(8))
        wait_until(lambda: len(bench.member.writes) == 5)
        wait_until(lambda: sorted(seen) == [5, 6, 7])
        assert bench.thread.is_alive()
        assert b"the handler was cancelled, and not by relance" in (
            bench.member.writes[0].outgoing.value or b""
        )
    assert bench.error is None


def test_cancelling_the_worker_from_outside_gives_all_runs_back_and_ends_it() -> None:
    gate = Gate()
    with Bench(gate.handler, 3, ordering="key") as bench:
        bench.give(*records(5))
        wait_until(lambda: len(gate.inside) == 3)
        bench.worker._loop.call_soon_threadsafe(bench.task.cancel)  # type: ignore[union-attr]
        bench.thread.join(5)
        assert isinstance(bench.error, asyncio.CancelledError)
        look = bench.runtime.look()
        assert (look.in_flight, look.queued) == (0, 5)
    assert gate.done == []


def test_a_cancellation_from_outside_is_not_taken_for_our_own_that_came_with_it() -> None:
    gate = Gate()
    with Bench(gate.handler, 1) as bench:
        bench.give(*records(1))
        wait_until(lambda: gate.inside)
        run = next(iter(bench.worker._tasks))

        def both() -> None:  # as when a partition is lost while another task's error ends the group
            task = bench.worker._tasks[run]
            bench.worker._cancel(run)
            task.cancel()

        bench.worker._loop.call_soon_threadsafe(both)  # type: ignore[union-attr]
        bench.thread.join(5)
        assert not bench.thread.is_alive()


def test_a_task_that_is_cancelled_behind_our_back_is_not_a_clean_end() -> None:
    async def handler(value: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    with Bench(handler, 1) as bench:
        bench.give(*records(1))
        bench.thread.join(5)
        assert isinstance(bench.error, RuntimeError)
        assert bench.runtime.look().in_flight == 0


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseExceptionGroup("g", [SystemExit(0)])]
)
def test_what_would_end_the_program_stops_all_and_counts_as_a_death_of_its_record(
    end: BaseException,
) -> None:
    gate = Gate()

    async def handler(value: int) -> None:
        if value == 2:
            while len(gate.inside) < 2:
                await asyncio.sleep(0)
            raise end
        await gate.handler(value)

    with Bench(handler, 3, ordering="key") as bench:
        bench.give(*records(3))
        [failure] = wait_until(lambda: bench.member.failures)
        assert isinstance(failure, HandlerExitError)
        assert failure.__cause__ is end
        assert "orders-0 at offset 2" in str(failure)
        assert bench.runtime.look().in_flight == 2
    assert bench.error is None
    assert sorted(gate.cancelled) == [0, 1]
    bench.member.revoke(ORDERS)
    assert mark_text(bench.member.broker.commits[ORDERS][1], TOPIC_ID) == "o2.3~2x1"


def test_what_a_handler_makes_of_its_cancellation_at_the_drain_deadline_is_no_death() -> None:
    inside = threading.Event()

    async def handler(value: int) -> None:
        try:
            inside.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise SystemExit(0) from None

    with Bench(handler) as bench:
        bench.give(*records(1))
        assert inside.wait(5)
    assert bench.error is None
    assert bench.member.failures == []
    bench.member.revoke(ORDERS)
    assert mark_text(bench.member.broker.commits[ORDERS][1], TOPIC_ID) == "c"


def test_a_fatal_error_starts_nothing_more_and_is_told() -> None:
    calls: list[int] = []

    async def handler(value: int) -> None:
        calls.append(value)
        raise Fatal("wrong database")

    with Bench(handler, 1, ordering="key") as bench:
        bench.give(*records(5))
        wait_until(lambda: bench.member.failures)
        wait_until(bench.all_idle)
        assert bench.base() == 0
    assert calls == [0]
    assert bench.error is None


def test_a_sync_wrapper_that_calls_itself_async_is_awaited_and_if_it_cannot_be_that_is_told() -> None:
    seen: list[int] = []

    async def handler(value: int) -> None:
        await asyncio.sleep(0)
        seen.append(value)

    @functools.wraps(handler)
    def passing_on(value: int) -> Coroutine[Any, Any, None]:
        return handler(value)

    @functools.wraps(handler)
    def forgetful(value: int) -> Any:
        handler(value).close()

    with Bench(passing_on, 1) as bench:
        bench.give(*records(3))
        wait_until(lambda: bench.base() == 3)
    assert seen == [0, 1, 2]
    with Bench(forgetful, 1) as bench:
        bench.give(*records(3))
        wait_until(lambda: bench.member.failures)
        assert bench.base() == 0
        assert not bench.member.writes
    assert "wrapped by a function that is not async and returned NoneType" in str(bench.member.failures[0])


def test_a_defect_of_the_runtime_ends_the_worker_with_it_and_leaves_no_run_out() -> None:
    gate = Gate()

    async def handler(value: int) -> None:
        if value == 1:
            raise Reject("no")
        await gate.handler(value)

    with Bench(handler, 2, ordering="key") as bench:
        bench.runtime.writer = None
        bench.give(*records(2))
        bench.thread.join(5)
        assert isinstance(bench.error, ExceptionGroup)
        assert bench.runtime.look().in_flight == 0


def test_what_a_task_sends_after_its_handler_has_returned_is_refused_where_it_is_sent() -> None:
    refused: list[SendError] = []
    tasks: list[asyncio.Task[None]] = []
    returned = threading.Event()

    async def later(found: Record) -> None:
        await asyncio.to_thread(returned.wait)
        try:
            found.send("out", b"late")
        except SendError as error:
            refused.append(error)

    async def handler(value: int, found: Record) -> None:
        tasks.append(asyncio.ensure_future(later(found)))

    with Bench(handler) as bench:
        bench.give(*records(3))
        wait_until(lambda: bench.runtime.counters.handled == 3)
        returned.set()
        wait_until(lambda: len(refused) == 3)
    assert bench.member.writes == []


def test_what_is_sent_after_a_handler_was_given_up_at_the_drain_deadline_is_refused() -> None:
    kept: list[Record] = []

    async def handler(value: int, found: Record) -> None:
        kept.append(found)
        await asyncio.sleep(60)

    with Bench(handler) as bench:
        bench.give(*records(1))
        wait_until(lambda: kept)
    with pytest.raises(SendError, match="has ended"):
        kept[0].send("out", b"late")


@pytest.mark.parametrize("word", [Reject("mine"), Fatal("mine"), Retry(after=0.0)], ids=repr)
def test_a_word_of_the_handler_s_own_stands_though_its_deadline_was_over(
    word: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(value: object) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise word from None

    within = coroutine._within(0.0, handler, "handler")
    with pytest.raises(type(word)) as caught:
        asyncio.run(within(1))
    assert caught.value is word


def test_an_async_batch_that_would_end_the_program_names_the_record_that_does_it_alone() -> None:
    calls: list[list[int]] = []

    async def handler(values: list[int]) -> None:
        calls.append(values)
        if 2 in values:
            raise KeyboardInterrupt

    async def one(value: int) -> None:
        raise AssertionError("it takes batches")

    bench = Bench(one, batch=4)
    shape = handler_shape(handler, batch=True)
    call = CoroutineBatchCall(bench.runtime, handler, shape, decoder_for(shape.annotation))
    bench.worker = LoopWorker(bench.runtime, call, 1, fixed=4)
    with bench:
        bench.give(*records(4))
        [failure] = wait_until(lambda: bench.member.failures)
        assert "orders-0 at offset 2" in str(failure)
    assert calls[-3:] == [[0], [1], [2]]
    bench.member.revoke(ORDERS)
    assert mark_text(bench.member.broker.commits[ORDERS][1], TOPIC_ID) == "o2.3~2x1"

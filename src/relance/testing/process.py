"""One process of a world: what `relance.consumer` and its threads are on Kafka, in steps that a test makes.

Promise: the engine, its runtime, the judging, the handlers' calls and the loop's worker are those that run on
Kafka; only what polls, writes and waits is other.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import logging
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from relance.circuit import Circuit, make_circuits
from relance.contracts import Told
from relance.decoding import decoder_for
from relance.engine.assignment import Assignment
from relance.engine.lanes import Run
from relance.errors import RelanceError
from relance.hooks import Hooks
from relance.kafka.cluster import Committed, Watermarks
from relance.kafka.starts import Feed, Start, Telling, starts_of
from relance.message import Kept
from relance.record import Outgoing, Record, TopicPartition
from relance.runtime import Runtime
from relance.spec import ConsumerSpec, feeds_of, plan_of
from relance.stats import CircuitBreakerOpen
from relance.testing.clock import VirtualCondition
from relance.testing.tasks import PROCESS, Crash, no_loop_runs
from relance.testing.topics import StoredRecord
from relance.text import name_of
from relance.workers.batch import BatchCall
from relance.workers.coroutine import really_async
from relance.workers.inline import Call as SyncCall
from relance.workers.loop import LoopWorker
from relance.workers.make import make_worker
from relance.workers.single import SingleCall

if TYPE_CHECKING:
    from relance.testing.world import World

__all__ = ["Node", "Process"]

_log = logging.getLogger("relance.testing")

_READ = 500  # records at a time
_RUN = 64
_ENDS = (SystemExit, KeyboardInterrupt, GeneratorExit, BaseExceptionGroup)  # would end a process, too


class Process:
    """All consumers of an application, as one process has them."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.dead = False
        """Whether it has crashed. Then nothing that its code still does has an effect."""
        specs = world.app._specs
        self._hooks = _InlineHooks(self, world.app._hooks)
        wanted = [(spec.breaker, spec.shape.name) for spec in specs]
        circuits = make_circuits(wanted, clock=world.clock, on_open=self._hooks.breaker_opened)
        self.circuits = list(dict.fromkeys(c for c in circuits if c is not None))
        self.nodes = [
            Node(world, self, spec, circuit, self._hooks)
            for spec, circuit in zip(specs, circuits, strict=True)
        ]


class Node:
    """One consumer in one process."""

    def __init__(
        self, world: World, process: Process, spec: ConsumerSpec, circuit: Circuit | None, hooks: _InlineHooks
    ) -> None:
        self.world, self.process, self.spec = world, process, spec
        settings = world.app.settings
        group = settings.group or ""
        self.feeds = feeds_of(spec, group)
        self.runtime = Runtime(
            plan_of(spec, settings),
            clock=world.clock,
            random=world.random.random,
            hooks=hooks,
            on_failure=self._on_failure,
            circuit=circuit,
            condition=lambda lock: VirtualCondition(lock, self._go_on),
        )
        self.runtime.writer = self
        # What else is no Exception is for the test: a crash of this world, or pytest.fail in a handler.
        self.runtime.of_the_handler = lambda error: isinstance(error, _ENDS) and not self.process.dead
        self.positions: dict[TopicPartition, int] = {}
        self.writes: list[tuple[Assignment, int, tuple[Outgoing, ...]]] = []
        observed = _observed(self, spec)
        self._call: SyncCall | None = None
        self._task: asyncio.Task[None] | None = None
        self._worker: LoopWorker | None = None
        if spec.workers == "loop":
            worker = make_worker(observed, self.runtime)
            assert isinstance(worker, LoopWorker)
            self._worker = worker
        else:
            kind = SingleCall if spec.batch is None else BatchCall
            decoding = decoder_for(spec.shape.annotation)
            self._call = kind(self.runtime, observed.handler, observed.shape, decoding)
        self._most = spec.batch or (_RUN if spec.timeout is None else 1)

    # -- partitions --------------------------------------------------------------------------------

    def feed_of(self, tp: TopicPartition) -> Feed:
        """Which of its feeds reads `tp`."""
        return next(feed for feed in self.feeds if tp.topic in feed.topics)

    def assign(self, tps: Sequence[TopicPartition]) -> None:
        """Own `tps` from what was committed last."""
        for feed in self.feeds:
            mine = [tp for tp in tps if tp.topic in feed.topics]
            starts = self._starts(feed, mine)
            for start in starts:
                self.positions[start.tp] = start.offset
                self.world._starts_at(start.tp, start.offset)
            if mine:
                self.runtime.assigned(feed.name, starts)
                self.commit(feed)  # the mark that somebody works here

    def _starts(self, feed: Feed, tps: Sequence[TopicPartition]) -> list[Start]:
        topics = self.world.topics
        committed = {
            tp: Committed(*topics.commits.get(tp, (-1, "")))
            for topic in {tp.topic for tp in tps}
            for tp in topics.partitions(topic)
        }
        ends = {tp: Watermarks(0, len(topics.logs[tp])) for tp in tps}
        telling = Telling()
        found = starts_of(tps, committed, ends, self.world._seen(), feed, telling)
        telling.log()
        return found

    def revoke(self, tps: Sequence[TopicPartition]) -> None:
        """Give `tps` up as a rebalance asks for it: drain, commit, fence."""
        for feed in self.feeds:
            mine = [tp for tp in tps if tp.topic in feed.topics]
            if mine:
                try:
                    self.runtime.revoking(feed.name, mine)
                except Crash:  # while it drained
                    return
                self.commit(feed, mine)
                self.runtime.revoked(feed.name, mine, lost=False)
        self._forget(tps)

    def lose(self, tps: Sequence[TopicPartition]) -> None:
        """`tps` are another's already."""
        for feed in self.feeds:
            mine = [tp for tp in tps if tp.topic in feed.topics]
            if mine:
                self.runtime.revoked(feed.name, mine, lost=True)
        self._forget(tps)

    def _forget(self, tps: Sequence[TopicPartition]) -> None:
        for tp in tps:
            self.positions.pop(tp, None)

    def commit(self, feed: Feed, only: Sequence[TopicPartition] | None = None) -> None:
        """Commit what may be."""
        if self.process.dead:
            return
        for commit in self.runtime.commits(feed.name, only):
            self.world._on_commit(commit)
            self.runtime.committed(commit)

    def commit_if_urgent(self) -> bool:
        """After a crash what may start waits for commits; whether there was one."""
        urgent = [feed for feed in self.feeds if self.runtime.urgent(feed.name)]
        for feed in urgent:
            self.commit(feed)
        return bool(urgent)

    def held_up(self) -> bool:
        """Whether records wait for nothing but that carefulness ends."""
        careful = any(self.runtime.careful(feed.name) for feed in self.feeds)
        return careful and self.runtime.look().queued > 0

    # -- steps -------------------------------------------------------------------------------------

    def read(self) -> bool:
        """Read what there is room for; whether there was anything."""
        anything = False
        for feed in self.feeds:
            if self.runtime.full(feed.name):
                continue
            paused = self.runtime.pauses(feed.name)
            for tp, position in list(self.positions.items()):
                if tp.topic not in feed.topics or tp in paused:
                    continue
                found = self.world.topics.logs[tp][position : position + _READ]
                if found:
                    anything = True
                    self.positions[tp] = found[-1].offset + 1
                    self.runtime.received(feed.name, tp, [stored.as_record() for stored in found])
        return anything

    def work(self) -> bool:
        """Handle what may be handled now; whether there was anything. Async handlers run on the loop."""
        if self._call is None:
            self._see_to_the_task()
            return False
        anything = False
        done: Run | None = None
        while (run := self.runtime.next(done, self._most, wait=False)) is not None:
            if self.process.dead:  # in a hook
                return True
            anything = True
            try:
                done = run if self._call.handle(run, math.inf) else None
            except BaseException as error:
                if not self.runtime.of_the_handler(error):
                    self.runtime.give_back(run)
                    if self.process.dead:
                        return True
                    raise
                self.runtime.ended_by(run, error)
                done = None
            if self.process.dead:  # and the handler has caught that
                return True
        return anything

    def _see_to_the_task(self) -> None:
        if self._task is None:
            assert self._worker is not None
            context = contextvars.copy_context()
            context.run(PROCESS.set, self.process)
            self._task = self.world.loop.create_task(self._worker.run(), context=context)
            # Its error is raised here, or told by the world already.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        if self._task.done() and not self.runtime.stopping:
            error = self._task.exception()
            raise _first(error) if error is not None else RelanceError("the worker has ended")

    def flush(self) -> bool:
        """Write the hand-offs; whether any is written now."""
        anything = False
        again: list[tuple[Assignment, int, tuple[Outgoing, ...]]] = []
        writes, self.writes = self.writes, []
        for assignment, offset, outgoing in writes:
            problem = self.world._write(outgoing)
            if problem is not None:
                again.append((assignment, offset, outgoing))
                self.runtime.not_settled(assignment, offset, problem)
                continue
            anything = True
            self.world._finished.add((assignment.tp, offset))
            self.runtime.settled(assignment, offset)
        self.writes += [write for write in again if not write[0].closed]
        if anything and self.spec.handoff == "transactional":
            for feed in self.feeds:  # in the same transaction: no crash comes in between
                self.commit(feed)
        return anything

    def write(self, assignment: Assignment, offset: int, outgoing: Sequence[Outgoing]) -> None:
        """What the runtime hands off; written by `flush`."""
        if not self.process.dead:
            self.writes.append((assignment, offset, tuple(outgoing)))

    def hurry(self, assignments: Collection[Assignment]) -> None:
        """`flush` tries all again each time, so it need only be waited for."""
        for assignment, offset, _ in self.writes:
            if assignment in assignments:
                self.runtime.tried_again(assignment, offset)

    def die(self) -> None:
        """Its process has died: what it has not written or committed is lost."""
        self.writes.clear()
        self.positions.clear()
        for feed in self.feeds:
            self.runtime.revoked(feed.name, self.runtime.owned(), lost=False)
        self.runtime.drain(0.0)

    def end(self) -> None:
        """Nothing of it runs any more."""
        self.runtime.drain(0.0)
        if self._task is not None and not self._task.done():
            self._task.cancel()
        self.writes.clear()

    def _go_on(self, seconds: float) -> None:
        """Let the world run for up to `seconds`, while a rebalance waits for what runs here."""
        self.world._go_on(seconds)
        if self.process.dead:
            raise Crash

    def _on_failure(self, error: Exception, told: Told | None = None) -> None:
        if not self.process.dead:
            self.world._on_failure(error, told)

    # -- as an App sees a consumer -----------------------------------------------------------------

    def stuck(self, seconds: float) -> Iterable[str]:
        """Nothing gets stuck here."""
        return ()


def _observed(node: Node, spec: ConsumerSpec) -> ConsumerSpec:
    """The same consumer, with a handler that tells the world of each call."""
    handler, shape, world = spec.handler, spec.shape, node.world
    always = dataclasses.replace(shape, takes_record=True)
    if shape.is_async:
        awaited = really_async(handler, shape.name)

        async def observe(value: Any, given: Any) -> Any:
            with world._calling(node, _list_of(given)), world._call_out(node, _list_of(given)):
                return await (awaited(value, given) if shape.takes_record else awaited(value))

        return dataclasses.replace(spec, handler=observe, shape=always)

    def observe_sync(value: Any, given: Any) -> Any:
        token = PROCESS.set(node.process)
        try:
            with world._calling(node, _list_of(given)), no_loop_runs():
                return handler(value, given) if shape.takes_record else handler(value)
        finally:
            PROCESS.reset(token)

    return dataclasses.replace(spec, handler=observe_sync, shape=always)


def _list_of(given: Record | list[Record]) -> list[Record]:
    return [given] if isinstance(given, Record) else given


def stored_of(record: Record) -> StoredRecord:
    """The record as it lies in its topic, which for a retry is the retry topic."""
    assert isinstance(record.message, Kept)
    assert isinstance(record.message.extras, StoredRecord)
    return record.message.extras


def _first(error: BaseException) -> BaseException:
    """The first that a group of tasks has ended with."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _InlineHooks:
    """The application's hooks, called where they are due."""

    def __init__(self, process: Process, hooks: Hooks) -> None:
        self._process = process
        self._hooks = hooks

    def assigned(self, tps: list[TopicPartition]) -> None:
        self._tell(self._hooks.on_assigned, sorted(tps))

    def revoked(self, tps: list[TopicPartition], timeout: float) -> None:
        self._tell(self._hooks.on_revoked, sorted(tps))

    def lost(self, tps: list[TopicPartition]) -> None:
        self._tell(self._hooks.on_lost, sorted(tps))

    def breaker_opened(self, opened: CircuitBreakerOpen) -> None:
        self._tell(self._hooks.on_breaker_open, opened)

    def _tell(self, hooks: Sequence[Callable[[Any], None]], given: Any) -> None:
        token = PROCESS.set(self._process)
        try:
            for hook in hooks:
                if self._process.dead:
                    return
                try:
                    with no_loop_runs():
                        hook(given)
                except Crash:
                    return
                except (Exception, *_ENDS):  # noqa: BLE001  as on Kafka: a hook decides over no partition
                    self._hooks.failures += 1
                    _log.exception("hook %s raised", name_of(hook))
        finally:
            PROCESS.reset(token)

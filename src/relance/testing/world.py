"""The world of a test: topics, processes and time, all in memory and in one thread.

Promises: nothing waits in real time, unless handlers may do real I/O; the same test with the same seed goes
the same way; what `run` does is done when it returns. Hand-offs are acknowledged in it, and offsets committed
at its end. What cannot be done here (I/O, a wait that nothing ends) is an error, never a test that passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import numbers
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from relance.app import App
from relance.contracts import Told
from relance.dead_letters.envelope import DeadLetter, decode
from relance.dead_letters.errortext import failure
from relance.delivery import Sent
from relance.encoding import checked_headers, checked_topic, encode, encode_key
from relance.engine.assignment import Commit
from relance.engine.deferral import PREFIX
from relance.errors import BatchError, RelanceError, SettingsError
from relance.kafka.cluster import Identity
from relance.kafka.starts import Seen
from relance.record import Outgoing, Record, TopicPartition
from relance.testing.clock import VirtualClock
from relance.testing.front import WorldRunner
from relance.testing.limit import Blocked
from relance.testing.loop import VirtualLoop
from relance.testing.outside import CallOut, Outside
from relance.testing.process import Node, Process, stored_of
from relance.testing.spread import moves
from relance.testing.tasks import CALL, PROCESS, Crash
from relance.testing.topics import StoredRecord, Topics
from relance.text import one_line

__all__ = ["Call", "StoredRecord", "World"]

_IN_MEMORY = "in-memory"  # what its cluster and its topics have for ids

_LONGEST = 30 * 86_400.0  # seconds of virtual time that `finish` goes through


@dataclass(slots=True)
class Call:
    """One call of a handler with one record."""

    at: float
    """Seconds since the world began."""
    topic: str
    partition: int
    offset: int
    key: bytes | None
    attempt: int
    process: int
    ended: float | None = None
    """None while it runs, and for ever if its process died."""
    error: BaseException | None = None


class World:
    """An application in memory. Use it as a context manager.

    `app` is not changed and not started; `partitions` is how many its topics get; `processes` how many of it
    run; `seed` decides jitter. `real_io`: whether async handlers may use threads, sockets and programs. Then
    the world waits for these in real time, and virtual time stands still meanwhile; without it a handler that
    does so is an error. `real_time_limit`: seconds of real time for each such wait, and for a handler that
    blocks. Raises RelanceError for an application that needs what only Kafka has, and SettingsError for an
    argument of a wrong type.
    """

    def __init__(
        self,
        app: App,
        *,
        partitions: int = 1,
        processes: int = 1,
        seed: int = 0,
        real_io: bool = False,
        real_time_limit: float = 30.0,
    ) -> None:
        if not isinstance(app, App):
            raise SettingsError("app", f"{app!r:.60} is no App: World(App('orders'))")
        for name, count in (("partitions", partitions), ("processes", processes)):
            _check_count(name, count)
        _check_seconds("real_time_limit", real_time_limit)
        if app._tables:
            raise RelanceError(
                f"tables ({', '.join(app._tables)}) are read from Kafka, not from a world in memory"
            )
        if not app._specs:
            raise RelanceError("the application has no consumer")
        if processes < 1 or partitions < 1:
            raise RelanceError("a world has at least one process, and topics at least one partition")
        if not real_time_limit > 0:
            raise RelanceError(f"real_time_limit is seconds of real time, above 0: {real_time_limit!r}")
        self.app = app
        self.seed = seed
        self.random = random.Random(seed)
        self.clock = VirtualClock()
        self.topics = Topics()
        self.calls: list[Call] = []
        """Each call of a handler with a record, in the order in which they began."""
        self.failure: Exception | None = None
        """What has ended the application, if something has."""
        self.reason = ""
        """The words for that, in one line."""
        self._began = self.clock.now
        self._partitions = partitions
        self._wanted = processes
        self._processes: list[Process] = []
        self._numbers = 0
        self._owners: dict[TopicPartition, Node] = {}
        self._first: dict[TopicPartition, int] = {}
        self._finished: set[tuple[TopicPartition, int]] = set()
        self._problems: list[str] = []
        self._outside = Outside(real_io=real_io, limit=real_time_limit)
        self._ended = 0  # calls
        self._stepping = False
        self._entered = False
        self._moving = False

    # -- entering and leaving ----------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self.app._runner is not None:
            raise RelanceError("the application runs already: a world needs one of its own")
        self.loop = VirtualLoop(self.clock, self._outside)
        self.app._runner = WorldRunner(self)  # type: ignore[assignment]  # what App asks of one, and no more
        for spec in self.app._specs:
            for topic in spec.all_topics:
                if topic not in self.topics.counts:
                    self.topics.make(topic, self._partitions)
        self._entered = True
        self._start_processes()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        self._outside.close()
        for process in self._processes:
            self._end(process)
        self._processes.clear()
        self._owners.clear()
        self.loop.end()
        self.app._runner = None
        if error is not None:
            error.add_note(f"(a World with seed={self.seed}, at {self.now:g} s)")

    # -- topics ------------------------------------------------------------------------------------

    def topic(self, name: str, partitions: int = 1) -> None:
        """Make one more topic. Raises RelanceError if it is there already, SendError for a wrong name."""
        self.topics.make(checked_topic(name), partitions)

    def produce(
        self,
        topic: str,
        value: Any = None,
        *,
        key: str | bytes | None = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        partition: int | None = None,
    ) -> Sent:
        """Write a record; where it lies. `value` as for `App.send`; keys are placed as Kafka's producers do.

        Raises RelanceError for a topic or partition that isn't there, SendError for what can't be encoded.
        """
        self._need_entered()
        process = PROCESS.get()
        if process is not None and process.dead:  # also `app.send`
            raise Crash
        raw_key, raw = encode_key(key), encode(value)
        ms = round(self.clock.wall * 1000)
        return self.topics.append(topic, raw_key, raw, checked_headers(headers), ms, partition)

    def records(self, topic: str) -> list[StoredRecord]:
        """All records of a topic, by partition and offset. Raises RelanceError if there is no such topic."""
        self._need_topics()
        return [stored for tp in self.topics.partitions(topic) for stored in self.topics.logs[tp]]

    def dead_letters(self, topic: str | None = None) -> list[DeadLetter]:
        """All dead letters of `topic`, or of all dead-letter topics of the application, oldest first."""
        known = dict.fromkeys(spec.paths.dead_letter_topic for spec in self.app._specs)
        topics = [topic] if topic is not None else [name for name in known if name is not None]
        stored = [record for name in topics for record in self.records(name)]
        return [decode(record.value) for record in sorted(stored, key=lambda record: record.sent_at_ms)]

    def committed(self, topic: str, partition: int = 0) -> int:
        """The offset committed for a partition; -1 without one."""
        return self.topics.commits.get(TopicPartition(topic, partition), (-1, ""))[0]

    def lag(self, topic: str) -> int:
        """How many records lie behind what is committed."""
        self._need_topics()
        tps = self.topics.partitions(topic)
        return sum(len(self.topics.logs[tp]) - max(0, self.committed(*tp)) for tp in tps)

    # -- time --------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds since the world began."""
        return self.clock.now - self._began

    def run(self, *, commit: bool = True) -> int:
        """Do all that can be done at this instant; how many calls of handlers began.

        Then offsets are committed, unless `commit` is False. Raises what has ended the application.
        """
        before = len(self.calls)
        self._step_until_idle()
        if commit:
            self.commit()
        if self.failure is not None:
            raise self.failure
        return len(self.calls) - before

    def commit(self) -> None:
        """Commit what may be committed now."""
        for node in self._nodes():
            for feed in node.feeds:
                node.commit(feed)

    def jump(self, seconds: float) -> int:
        """Let time pass; what falls due on the way is done when it does. How many calls of handlers began.

        Raises SettingsError for what is no number, RelanceError for a negative one, and AssertionError if in
        `real_time_limit` seconds of processor time no call begins or ends.
        """
        _check_seconds("seconds", seconds)
        if seconds < 0:
            raise RelanceError(f"time goes forward only, not by {seconds:g} s")
        end = self.clock.now + seconds
        began = self.run()
        while (due := self._due_in()) is not None and self.clock.now + due <= end:
            self.clock.advance(max(due, 1e-6))
            began += self.run()
            self._outside.check_progress(self._beats())
        self.clock.advance(max(0.0, end - self.clock.now))
        return began + self.run()

    def finish(self) -> int:
        """Let time pass until nothing waits any more.

        Raises AssertionError if that takes a month, or if a handler waits for what nothing here will end, or
        looks for it again and again.
        """
        until = self.clock.now + _LONGEST
        began = self.run()
        while True:
            while (due := self._due_in()) is not None:
                if self.clock.now + due > until:
                    raise AssertionError(f"something still waits after {_LONGEST:g} s: {self.app.stats()}")
                began += self.jump(due)
            before = self._beats()
            self._outside.patient = True
            try:
                began += self.run()
            finally:
                self._outside.patient = False
            if self._due_in() is None and before == self._beats():
                break
        self._outside.check_all_ended()
        return began

    def next_due(self) -> float | None:
        """In how many seconds something falls due: a retry, a handler's sleep; None if nothing waits."""
        self._need_entered()
        return self._due_in()

    # -- processes that come, go and die -----------------------------------------------------------

    def rebalance(self, processes: int) -> None:
        """From now on so many processes share the partitions; those that move are drained and committed.

        Draining lets time pass, up to `drain_timeout`.
        """
        self._not_from_within("rebalance")
        _check_count("processes", processes)
        if processes < 1:
            raise RelanceError("a group without members handles nothing: at least one process")
        self._wanted = processes
        while len(self._processes) > processes:
            leaving = self._processes[-1]
            with self._partitions_move():
                for node in leaving.nodes:
                    node.revoke(self._owned(node))
                self._end(leaving)
                self._processes.remove(leaving)
        self._start_processes()

    def lose(self, topic: str, partition: int = 0) -> None:
        """The owner of a partition loses it without a chance to commit, and it is given out again."""
        self._not_from_within("lose")
        tp = TopicPartition(topic, partition)
        node = self._owners.pop(tp, None)
        if node is None:
            raise RelanceError(f"nobody owns {tp}")
        node.lose([tp])
        self._balance()

    def crash(self, process: int = 0) -> None:
        """A process dies: what it did since its last commit is done again by whoever gets its partitions.

        `process` counts those that are alive. Another one starts in its place. Called from within a handler,
        the handler's own process dies there.
        """
        own = PROCESS.get()
        if own is not None and own.world is self:
            own.dead = True
            raise Crash
        self._not_from_within("crash")
        if not 0 <= process < len(self._processes):
            raise RelanceError(f"there is no process {process}: {len(self._processes)} run, counted from 0")
        self._processes[process].dead = True
        self._bury_the_dead()

    def assert_no_commit_past_unfinished(self) -> None:
        """Raise AssertionError if ever an offset was committed past a record that was not finished."""
        if self._problems:
            raise AssertionError(f"{'; '.join(self._problems[:5])} (seed {self.seed})")

    @property
    def hangs(self) -> bool:
        """Whether a handler has blocked the test for too long: then nothing goes on."""
        return self._outside.alarm.problem is not None

    # -- inside ------------------------------------------------------------------------------------

    def _nodes(self) -> list[Node]:
        return [node for process in self._processes for node in process.nodes]

    def _living(self) -> list[Node]:
        return [node for node in self._nodes() if not node.process.dead]

    def _owned(self, node: Node) -> list[TopicPartition]:
        return [tp for tp, owner in self._owners.items() if owner is node]

    def _start_processes(self) -> None:
        while len(self._processes) < self._wanted:
            self._numbers += 1
            self._processes.append(Process(self, self._numbers))
        self._balance()

    def _balance(self) -> None:
        """Spread each consumer's partitions evenly; as few as possible move."""
        with self._partitions_move():
            self._spread()

    @contextlib.contextmanager
    def _partitions_move(self) -> Iterator[None]:
        """While they do, handlers and hooks run, and a process that dies in one is buried at the end."""
        self._moving = True
        try:
            yield
        finally:
            self._moving = False
        self._bury_the_dead()

    def _spread(self) -> None:
        alive = set(self._nodes())
        self._owners = {tp: node for tp, node in self._owners.items() if node in alive}
        moving: dict[TopicPartition, Node] = {}
        for i, spec in enumerate(self.app._specs):
            nodes = [process.nodes[i] for process in self._processes]
            for topics in (spec.topics, *([(spec.paths.retry_topic,)] if spec.paths.retry_topic else [])):
                tps = [tp for topic in topics for tp in self.topics.partitions(topic)]
                moving |= moves(tps, nodes, self._owners)
        for node in alive:
            if going := [tp for tp in moving if self._owners.get(tp) is node]:
                node.revoke(going)
        self._owners |= moving
        for node in self._nodes():
            if coming := [tp for tp, owner in moving.items() if owner is node]:
                node.assign(coming)

    def _end(self, process: Process) -> None:
        for node in process.nodes:
            node.end()
        self.loop.run_ready()

    def _bury_the_dead(self) -> bool:
        """Have another process start for each that has died; whether one had."""
        dead = [process for process in self._processes if process.dead]
        if not dead or self._moving:
            return False
        for process in dead:
            self._processes.remove(process)
            for node in process.nodes:
                node.die()
            self.loop.kill(process)
        self._start_processes()
        return True

    def _need_entered(self) -> None:
        if not self._entered:
            raise RelanceError("the application runs only within the world: `with World(app) as world:`")

    def _need_topics(self) -> None:
        if not self.topics.counts:  # entering makes those of the application
            self._need_entered()

    def _not_from_within(self, what: str) -> None:
        self._need_entered()
        if self._stepping:
            raise RelanceError(f"{what} is for the test, not for a handler")

    def _step_until_idle(self) -> None:
        self._not_from_within("run")
        self._stepping = True
        for node in self._nodes():
            node.runtime.on_work()  # time may have passed
        try:
            while self._step() and self.failure is None:
                pass
        finally:
            self._stepping = False

    def _step(self) -> bool:
        """Whether anything has happened."""
        with self._outside.alarm.watching():
            try:
                return self._one_step()
            except Blocked:
                self._outside.check()
                raise

    def _one_step(self) -> bool:
        anything = False
        for node in self._living():
            anything |= node.read()
        for node in self._living():
            if not node.process.dead:  # by what another of its consumers has done
                anything |= node.work()
        self._outside.check()
        before = self._beats()
        self._run_loop()
        for node in self._living():
            anything |= node.flush()
            node.commit_if_urgent()
        return self._bury_the_dead() or anything or before != self._beats()

    def _run_loop(self) -> float | None:
        timer = self.loop.run_ready()
        self._outside.check()
        return timer

    def _beats(self) -> tuple[int, int, int]:
        return len(self.calls), self._ended, sum(len(node.writes) for node in self._nodes())

    def _go_on(self, seconds: float) -> None:
        """Somebody waits for the end of what runs, for at most so long."""
        before, self._stepping = self._stepping, True
        try:
            if self._step():
                return
            due = self._due_in()
            self.clock.advance(seconds if due is None else min(seconds, max(due, 1e-6)))
            self._step()
        finally:
            self._stepping = before

    def _due_in(self) -> float | None:
        # What is due already waits for a worker that is busy, and that one is among the loop's timers.
        times = [due for node in self._nodes() if (due := node.runtime.due_in())]
        times += [1.0 for node in self._nodes() if node.held_up()]
        timer = self._run_loop()
        return min(times, default=None) if timer is None else min([timer, *times])

    @contextlib.contextmanager
    def _calling(self, node: Node, records: Sequence[Record]) -> Iterator[None]:
        process = node.process
        if process.dead:
            raise Crash
        if self.hangs:
            raise Blocked
        self._outside.alarm.again()
        number = process.number
        calls = [Call(self.now, r.topic, r.partition, r.offset, r.key, r.attempt, number) for r in records]
        self.calls += calls
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            if process.dead:
                raise Crash from error  # whatever the handler has made of it
            if process in self._processes:
                self._ended += len(calls)
                failed = _errors(error, len(records), node.spec.batch is not None)
                for i, (call, record) in enumerate(zip(calls, records, strict=True)):
                    call.ended, call.error = self.now, failed.get(i)
                    if i not in failed and record.outbox is None:
                        stored = stored_of(record)
                        self._finished.add((TopicPartition(stored.topic, stored.partition), stored.offset))

    @contextlib.contextmanager
    def _call_out(self, node: Node, records: Sequence[Record]) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        module = str(getattr(node.spec.handler, "__module__", ""))
        stepped, package = self.loop.stepped[task], module.partition(".")[0]
        call = CallOut(node.spec.shape.name, package, records, stepped)
        self._outside.calls.append(call)
        token = CALL.set(call)
        try:
            yield
        finally:
            self._outside.calls.remove(call)
            CALL.reset(token)

    def _write(self, outgoing: Sequence[Outgoing]) -> str | None:
        """Write all of it, or say why not."""
        ms = round(self.clock.wall * 1000)
        for one in outgoing:
            if one.topic not in self.topics.counts:
                return f"there is no topic {one.topic} in this world"
        for one in outgoing:
            self.topics.append(one.topic, one.key, one.value, one.headers, ms)
        return None

    def _seen(self) -> Seen:
        topics = {topic: Identity(_IN_MEMORY, count) for topic, count in self.topics.counts.items()}
        return Seen(_IN_MEMORY, topics, topics)

    def _starts_at(self, tp: TopicPartition, offset: int) -> None:
        self._first.setdefault(tp, offset)

    def _on_commit(self, commit: Commit) -> None:
        tp = commit.assignment.tp
        before = max(self._first[tp], self.topics.commits.get(tp, (0, ""))[0])
        for stored in self.topics.logs[tp][before : commit.offset]:
            if (tp, stored.offset) not in self._finished and not self._is_anothers(stored):
                self._problems.append(f"{tp}: {commit.offset} is committed, {stored.offset} is not finished")
        self.topics.commits[tp] = commit.offset, commit.metadata

    def _is_anothers(self, stored: StoredRecord) -> bool:
        whose = dict(stored.sent_headers).get(f"{PREFIX}group")
        return whose is not None and whose.decode(errors="replace") != self.app.settings.group

    def _on_failure(self, error: Exception, told: Told | None = None) -> None:
        if self.failure is None:
            self.failure = error
            self.reason = one_line(told.reason if told else failure(error))


def _check_count(name: str, count: object) -> None:
    if not isinstance(count, numbers.Integral):
        raise SettingsError(name, f"{count!r:.60} is no whole number")


def _check_seconds(name: str, seconds: object) -> None:
    if not isinstance(seconds, numbers.Real):
        raise SettingsError(name, f"{seconds!r:.60} is no number of seconds")


def _errors(error: BaseException | None, count: int, batch: bool) -> dict[int, BaseException]:
    """By its place among the `count` records of a call, what each that has failed failed with."""
    if error is None:
        return {}
    if batch and isinstance(error, BatchError) and error.errors.keys() <= set(range(count)):
        return dict(error.errors)
    return dict.fromkeys(range(count), error)

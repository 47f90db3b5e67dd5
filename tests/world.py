"""A world in memory around `Runtime`: logs, committed offsets, members, and a clock that only tests move.

One thread, and nothing waits in real time (but see `in_real_time`). A `Member` is one process with one
consumer. The test says what is read, which handler ends how, which write is acknowledged, who owns what, who
crashes. What a `Runtime` would wait for happens in `Member.while_waiting`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from relance.circuit import Circuit
from relance.clock import SystemClock
from relance.contracts import Plan, Told
from relance.engine.assignment import Assignment, Commit
from relance.engine.lanes import Run
from relance.engine.outcome import Paths
from relance.policies.breaker import CircuitBreaker
from relance.policies.retry import RetryPolicy
from relance.record import Outgoing, Record, TopicPartition, record_of
from relance.runtime import Runtime
from relance.testing.clock import VirtualClock, VirtualCondition

ORDERS = TopicPartition("orders", 0)
RETRY = "orders.retry"
DLT = "orders.DLT"
TOPIC_ID = "id-of-orders"


FakeClock = VirtualClock


@dataclass(slots=True)
class Message:
    """A record as it lies in a log; also what a `Record` asks for headers and timestamp."""

    offset: int
    key: bytes | None
    value: bytes | None
    own_headers: list[tuple[str, bytes | None]] = field(default_factory=list)
    ms: int = 1_600_000_000_000

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return list(self.own_headers) or None

    def timestamp(self) -> tuple[int, int]:
        return 1, self.ms

    def as_record(self, tp: TopicPartition) -> Record:
        return record_of(tp.topic, tp.partition, self.offset, self.key, self.value, self)


def record(
    offset: int = 0, key: bytes | None = b"k", value: bytes | None = b"{}", tp: TopicPartition = ORDERS
) -> Record:
    return Message(offset, key, value).as_record(tp)


class Log:
    """One partition: messages with offsets that may have gaps, and an end."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.end = 0

    def append(
        self,
        key: bytes | None = b"k",
        value: bytes | None = b"{}",
        headers: Sequence[tuple[str, bytes | None]] = (),
        gap: int = 0,
    ) -> int:
        """The new record's offset; `gap` offsets before it are markers, or compacted away."""
        offset = self.end + gap
        self.messages.append(Message(offset, key, value, list(headers)))
        self.end = offset + 1
        return offset

    def markers(self, count: int) -> None:
        self.end += count

    def after(self, offset: int, count: int) -> list[Message]:
        return [m for m in self.messages if m.offset >= offset][:count]


@dataclass(slots=True)
class Start:
    """As `relance.kafka.poller.Start`."""

    tp: TopicPartition
    offset: int = 0
    metadata: str = ""
    topic_id: str = TOPIC_ID
    problem: str | None = None
    home: str = ""
    unbegun: bool = False


@dataclass(eq=False, slots=True)
class Write:
    """A hand-off on its way."""

    assignment: Assignment
    offset: int
    all_outgoing: tuple[Outgoing, ...]

    @property
    def outgoing(self) -> Outgoing:
        """The only one."""
        [only] = self.all_outgoing
        return only


class Hooks:
    """Notes what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[TopicPartition]]] = []

    def assigned(self, tps: list[TopicPartition]) -> None:
        self.calls.append(("assigned", tps))

    def revoked(self, tps: list[TopicPartition], timeout: float) -> None:
        self.calls.append(("revoked", tps))

    def lost(self, tps: list[TopicPartition]) -> None:
        self.calls.append(("lost", tps))


class Broker:
    """Logs by partition, and what was committed last: offset and metadata."""

    def __init__(self) -> None:
        self.logs: dict[TopicPartition, Log] = {}
        self.commits: dict[TopicPartition, tuple[int, str]] = {}

    def log(self, tp: TopicPartition) -> Log:
        return self.logs.setdefault(tp, Log())

    def write(self, outgoing: Outgoing) -> None:
        self.log(TopicPartition(outgoing.topic, 0)).append(outgoing.key, outgoing.value, outgoing.headers)


@dataclass(eq=False, slots=True)
class Out:
    """A run with a worker that the test moves: `started` is the record whose handler runs now."""

    run: Run
    started: Record | None = None


class Member:
    """A process: a `Runtime` with a worker, a writer and a poller that do one step when told to."""

    def __init__(
        self, broker: Broker, clock: Any, plan: Plan | None = None, circuit: Circuit | None = None
    ) -> None:
        self.broker, self.clock, self.circuit = broker, clock, circuit
        self.plan = plan or a_plan()
        self.refuse_at_once = False
        self._elsewhere: queue.SimpleQueue[Write] | None = None
        self.restart()

    @classmethod
    def in_real_time(cls, **given: Any) -> Member:
        """With the machine's clock and real conditions, for workers on threads and loops; owns `ORDERS`."""
        clock = SystemClock()
        circuit = a_circuit(given.pop("breaker", None), clock)
        member = cls(Broker(), clock, a_plan(**given), circuit)
        member.assign(ORDERS)
        return member

    def restart(self) -> None:
        """A new process: what the old one had in memory is gone."""
        self.hooks = Hooks()
        self.failures: list[Exception] = []
        self.told: list[Told | None] = []
        self.abandoned: list[Run] = []
        self.writes: list[Write] = []
        self.hurried: list[Write] = []
        self.outs: list[Out] = []
        self.position: dict[TopicPartition, int] = {}
        self.runtime = Runtime(
            self.plan,
            clock=self.clock,
            random=lambda: 0.5,
            hooks=self.hooks,
            on_failure=self._failed,
            circuit=self.circuit,
            condition=self._condition,
        )
        self.runtime.writer = self
        self.runtime.on_abandon = self.abandoned.append

    def _failed(self, error: Exception, told: Told | None = None) -> None:
        self.failures.append(error)
        self.told.append(told)

    def _condition(self, lock: Any) -> threading.Condition:
        if not isinstance(self.clock, FakeClock):
            return threading.Condition(lock)
        self.while_waiting: Callable[[float], None] = self.clock.advance
        return VirtualCondition(lock, lambda timeout: self.while_waiting(timeout))

    @property
    def engine(self) -> Any:
        return self.runtime.engine

    def write(self, assignment: Assignment, offset: int, outgoing: Sequence[Outgoing]) -> None:
        write = Write(assignment, offset, tuple(outgoing))
        self.writes.append(write)
        if self.refuse_at_once:
            self.refuse(write)
        if self._elsewhere is not None:
            self._elsewhere.put(write)

    def hurry(self, assignments: Collection[Assignment]) -> None:
        """Noted; the test answers the writes."""
        for write in self.writes:
            if write.assignment in assignments:
                self.hurried.append(write)
                self.runtime.tried_again(write.assignment, write.offset)

    def ack_from_elsewhere(self) -> None:
        """From now on a thread acknowledges every write, as a producer's does."""
        writes = self._elsewhere = queue.SimpleQueue()

        def answer() -> None:
            while True:
                self.ack(writes.get())

        threading.Thread(target=answer, daemon=True).start()

    # -- partitions --------------------------------------------------------------------------------

    def feed_of(self, tp: TopicPartition) -> str:
        return "retry" if tp.topic == RETRY else "source"

    def assign(self, *tps: TopicPartition) -> Assignment:
        """Own them, from what was committed last; the (last) assignment."""
        for tp in tps:
            offset, metadata = self.broker.commits.get(tp, (0, ""))
            self.runtime.assigned(self.feed_of(tp), [Start(tp, offset, metadata)])
            self.position[tp] = offset
        found: Assignment = self.engine.assignments[tps[-1]]
        return found

    def read(self, tp: TopicPartition = ORDERS, count: int = 1_000) -> int:
        """The next records of the log, and its end if that is reached; how many records."""
        log = self.broker.log(tp)
        found = log.after(self.position[tp], count)
        if found:
            self.position[tp] = found[-1].offset + 1
            self.runtime.received(self.feed_of(tp), tp, [m.as_record(tp) for m in found])
        if len(found) < count:
            self.position[tp] = log.end
            self.runtime.end_reached(tp, log.end)
        return len(found)

    def make_commit(self, tp: TopicPartition = ORDERS) -> Commit | None:
        commits = self.runtime.commits(self.feed_of(tp), [tp])
        return commits[0] if commits else None

    def commit(self, tp: TopicPartition = ORDERS) -> int:
        """Commit what may be, successfully; the committed offset."""
        if (commit := self.make_commit(tp)) is not None:
            self.broker.commits[tp] = (commit.offset, commit.metadata)
            self.runtime.committed(commit)
        return self.broker.commits.get(tp, (0, ""))[0]

    def revoke(self, *tps: TopicPartition) -> None:
        """As the poller does it: drain, commit, let go."""
        for tp in tps:
            self.runtime.revoking(self.feed_of(tp), [tp])
            self.commit(tp)
            self.runtime.revoked(self.feed_of(tp), [tp], lost=False)

    def lose(self, *tps: TopicPartition) -> None:
        for tp in tps:
            self.runtime.revoked(self.feed_of(tp), [tp], lost=True)

    # -- work --------------------------------------------------------------------------------------

    def take(self, max_run: int = 512) -> Out | None:
        run = self.runtime.next(None, max_run, wait=False)
        if run is None:
            return None
        out = Out(run)
        self.outs.append(out)
        return out

    def begin(self, out: Out) -> Record | None:
        """Start the next record of the run; None where there is none any more: the run is given back."""
        run = out.run
        if run.done < len(run.records) and not run.cancelled:
            out.started = run.records[run.done]
            out.started.unseal()
            return out.started
        self.give_back(out)
        return None

    def give_back(self, out: Out) -> None:
        out.started = None
        self.outs.remove(out)
        self.runtime.give_back(out.run)

    def end(self, out: Out, error: Exception | None = None) -> bool:
        """The handler returns, or raises `error`. False: the run is gone."""
        assert out.started is not None
        found, out.started = out.started, None
        if error is not None and not self.runtime.failed(out.run, found, error):
            self.outs.remove(out)
            return False
        if error is None and found.outbox is not None:
            self.runtime.returned(out.run, found)
        out.run.done += 1
        return True

    def finish(self, out: Out, handler: Callable[[Record], None]) -> None:
        """Handle the run to its end."""
        while out.started is not None or self.begin(out) is not None:
            assert out.started is not None
            try:
                handler(out.started)
            except Exception as error:
                if not self.end(out, error):
                    return
            else:
                self.end(out)

    def work(self, handler: Callable[[Record], None] = lambda record: None, max_run: int = 512) -> None:
        """Handle what may be handled now, until nothing may."""
        while (out := self.take(max_run)) is not None:
            self.finish(out, handler)

    def ack(self, write: Write | None = None) -> None:
        """One write (the oldest) lies in its topic, and we know."""
        write = write or self.writes[0]
        self.writes.remove(write)
        for outgoing in write.all_outgoing:
            self.broker.write(outgoing)
        self.runtime.settled(write.assignment, write.offset)

    def refuse(self, write: Write | None = None, reason: str = "no leader") -> None:
        """One write (the oldest) failed; it will be tried again."""
        write = write or self.writes[0]
        self.runtime.not_settled(write.assignment, write.offset, reason)

    def at_rest(self) -> bool:
        look = self.runtime.look()
        return (look.in_flight, look.queued, look.settling, look.waiting) == (0, 0, 0, 0)


def a_plan(**given: Any) -> Plan:
    """Four attempts after 1, 2, 4 s without jitter; with `retry_topic` and `dead_letter_topic` or None."""
    paths = Paths(
        given.pop("retry_topic", None),
        given.pop("dead_letter_topic", DLT),
        given.pop("max_in_memory_wait", 10.0),
    )
    policy = RetryPolicy.exponential(max_attempts=4, jitter_factor=0)
    return Plan(group="g", retry=given.pop("retry", policy), paths=paths, **given)


def a_member(**given: Any) -> Member:
    """One member of a new world, owner of `ORDERS`; `given` as for `a_plan`, and `breaker`."""
    clock = FakeClock()
    circuit = a_circuit(given.pop("breaker", None), clock)
    member = Member(Broker(), clock, a_plan(**given), circuit)
    member.assign(ORDERS)
    return member


def a_circuit(breaker: CircuitBreaker | None, clock: Any) -> Circuit | None:
    """The breaker at work, if there is one; nobody else shares it."""
    return None if breaker is None else Circuit(breaker, "handle", clock=clock)

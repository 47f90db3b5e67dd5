"""The polling thread's loop with a scripted client, on the test's own thread and in virtual time.

The client is strict where the real one is: what it does not hold it will not give up.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as ClientPartition

from relance.engine.flow import RECORD_BYTES, Limits
from relance.engine.offset_map import LIMIT, mark_text
from relance.kafka import commits, intake, poller, start_finder
from relance.kafka.cluster import Identity, Watermarks
from relance.kafka.commits import read_committed_offsets
from relance.kafka.poller import Poller
from relance.kafka.starts import Feed, Seen
from relance.record import Record, TopicPartition
from world import TOPIC_ID, Broker, FakeClock, Member, Out, a_plan

ZERO, ONE = TopicPartition("orders", 0), TopicPartition("orders", 1)
MODES = pytest.mark.parametrize("cooperative", [True, False], ids=["cooperative", "eager"])


class Time(FakeClock):
    """Stands in for the module, too."""

    sleep = FakeClock.advance


def message(tp: TopicPartition, offset: int, error: KafkaError | None = None) -> Message:
    """A record, or the error of a partition."""
    return Message(
        topic=tp.topic,
        partition=tp.partition,
        offset=offset,
        key=b"%d" % offset,
        value=b"{}",
        error=error,
        timestamp=(1, 0),
    )


Step = Callable[[], Sequence[Message] | None]


class Client:
    """Each poll does the next step of `script`, after it has answered the commits that are out."""

    def __init__(self, config: dict[str, Any], logger: object) -> None:
        self.script: deque[Step] = deque()
        self.on_script_end: Callable[[], None] = lambda: None
        self.clock: FakeClock = FakeClock()
        self.logs: dict[TopicPartition, tuple[int, int]] = {}
        self.missing: set[str] = set()
        self.granted: set[TopicPartition] = set()  # by the group, which a revocation goes by
        self.held: dict[TopicPartition, int] = {}  # by the client, with the position in each
        self.paused: set[TopicPartition] = set()
        self.offsets: dict[TopicPartition, tuple[int, str]] = {}
        self.judge: Callable[[ClientPartition], int | None] = lambda offered: None
        self.offered: list[list[ClientPartition]] = []
        self.closed_at: float | None = None
        self._on_commit = config["on_commit"]
        self._unanswered: list[list[ClientPartition]] = []
        self._fetched: deque[Message] = deque()

    # -- the group ---------------------------------------------------------------------------------

    def subscribe(self, topics: list[str], *, on_assign: Any, on_revoke: Any, on_lost: Any) -> None:
        self.on_assign, self.on_revoke, self.on_lost = on_assign, on_revoke, on_lost

    def assign_now(self, *tps: TopicPartition) -> None:
        self.granted.update(tps)
        self.on_assign(self, [ClientPartition(*tp) for tp in tps])

    def revoke_now(self, *tps: TopicPartition) -> None:
        self.granted.difference_update(tps)
        self.on_revoke(self, [ClientPartition(*tp) for tp in tps])

    def lose_now(self, *tps: TopicPartition) -> None:
        self.granted.difference_update(tps)
        self.on_lost(self, [ClientPartition(*tp) for tp in tps])

    def unsubscribe(self) -> None:
        self.script.appendleft(lambda: self.revoke_now(*self.granted))

    def close(self) -> None:
        self.closed_at = self.clock.now
        if self.granted:
            self.revoke_now(*self.granted)

    # -- the assignment ----------------------------------------------------------------------------

    def assign(self, placed: list[ClientPartition]) -> None:
        self.held = {TopicPartition(p.topic, p.partition): p.offset for p in placed}
        self._fetched.clear()

    def unassign(self) -> None:
        self.assign([])

    def incremental_assign(self, placed: list[ClientPartition]) -> None:
        more = {TopicPartition(p.topic, p.partition): p.offset for p in placed}
        if more.keys() & self.held.keys():
            raise KafkaException(KafkaError(KafkaError._CONFLICT))
        self.held.update(more)

    def incremental_unassign(self, gone: list[ClientPartition]) -> None:
        less = {TopicPartition(p.topic, p.partition) for p in gone}
        if less - self.held.keys():
            raise KafkaException(KafkaError(KafkaError._INVALID_ARG))
        for tp in less:
            del self.held[tp]

    def pause(self, tps: list[ClientPartition]) -> None:
        self.paused |= {TopicPartition(p.topic, p.partition) for p in tps}

    def resume(self, tps: list[ClientPartition]) -> None:
        self.paused -= {TopicPartition(p.topic, p.partition) for p in tps}

    # -- records -----------------------------------------------------------------------------------

    def poll(self, timeout: float) -> Message | None:
        self.clock.advance(timeout)
        while self._unanswered:
            self._answer(self._unanswered.pop(0))
        if self.script:
            self._fetched.extend(self.script.popleft()() or ())
        else:
            self.on_script_end()
        return self._fetched.popleft() if self._fetched else None

    def consume(self, count: int, timeout: float) -> list[Message]:
        return [self._fetched.popleft() for _ in range(min(count, len(self._fetched)))]

    def fetch(self, tp: TopicPartition, count: int = 500) -> list[Message]:
        """The next records of a partition, as it was told where to read."""
        first = self.held[tp]
        self.held[tp] = min(first + count, self.logs[tp][1])
        return [message(tp, offset) for offset in range(first, self.held[tp])]

    # -- commits -----------------------------------------------------------------------------------

    def committed(self, tps: list[ClientPartition], timeout: float) -> list[ClientPartition]:
        if self.missing & {tp.topic for tp in tps}:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        none = (-1001, "")
        found = [(tp, self.offsets.get(TopicPartition(tp.topic, tp.partition), none)) for tp in tps]
        return [ClientPartition(tp.topic, tp.partition, at, text or "") for tp, (at, text) in found]

    def commit(self, *, offsets: list[ClientPartition], asynchronous: bool) -> list[ClientPartition] | None:
        self.offered.append(offsets)
        if asynchronous:
            self._unanswered.append(offsets)
            return None
        for offered in offsets:
            if (code := self._judged(offered)) is not None:
                raise KafkaException(KafkaError(code))
        return offsets

    def _judged(self, offered: ClientPartition) -> int | None:
        code = self.judge(offered)
        if code is None:
            self.offsets[TopicPartition(offered.topic, offered.partition)] = (
                offered.offset,
                offered.metadata,
            )
        return code

    def _answer(self, offsets: list[ClientPartition]) -> None:
        answers = []
        for offered in offsets:
            code = self._judged(offered)
            error = None if code is None else KafkaError(code)
            answers.append(SimpleNamespace(topic=offered.topic, partition=offered.partition, error=error))
        self._on_commit(None, answers)


@dataclass(slots=True)
class Logs:
    """What the cluster says of the logs that the client reads."""

    client: Client
    cluster: str = "here"
    ids: dict[str, str] = field(default_factory=dict)
    first: dict[str, Identity] = field(default_factory=dict)
    seconds: float = 0.0
    """That an answer takes."""
    leaderless: set[TopicPartition] = field(default_factory=set)
    asked_at: list[float] = field(default_factory=list)

    def seen(self, topics: Collection[str]) -> Seen:
        self._ask()
        counts = Counter(tp.topic for tp in self.client.logs)
        now = {topic: Identity(self.ids.get(topic, TOPIC_ID), counts[topic]) for topic in topics}
        for topic, found in now.items():
            self.first.setdefault(topic, found)
        return Seen(self.cluster, now, dict(self.first))

    def ends(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, Watermarks]:
        self._ask()
        return {tp: Watermarks(*self.client.logs[tp]) for tp in tps if tp not in self.leaderless}

    def _ask(self) -> None:
        self.asked_at.append(self.client.clock.now)
        self.client.clock.advance(self.seconds)


class Bench:
    """A poller, its scripted client, and a member whose runtime it serves."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        cooperative: bool = True,
        commit_interval: float = 3600.0,
        **plan: Any,
    ) -> None:
        self.clock = Time()
        for module in (poller, commits, intake, start_finder):
            monkeypatch.setattr(module, "time", self.clock)
        monkeypatch.setattr(poller, "Client", Client)
        self.member = Member(Broker(), self.clock, a_plan(**plan))
        self.runtime = self.member.runtime
        self.handled: list[tuple[TopicPartition, int]] = []
        self.poller = Poller(
            Feed("source", ("orders",), "g", "earliest", "earliest"),
            self.runtime,
            {"client.id": "c"},
            cooperative=cooperative,
            commit_interval=commit_interval,
            logs=self,
            others=lambda tps: read_committed_offsets(self.client, tps, 1.0),  # type: ignore[arg-type]
        )
        self.client: Client = self.poller._client  # type: ignore[assignment]
        self.logs = Logs(self.client)
        self.seen, self.ends = self.logs.seen, self.logs.ends
        self.client.clock = self.clock
        self.client.logs = {ZERO: (0, 200), ONE: (0, 200)}

    def run(self, *steps: Step, leave_within: float = 8.0) -> None:
        """One step a poll, then stop and leave; whatever failed is raised."""

        def stop() -> None:
            if not self.poller._stopping.is_set():
                self.poller.stop(self.clock.now + leave_within)

        self.client.script.extend(steps)
        self.client.on_script_end = stop
        self.poller._run()
        if self.member.failures:
            raise self.member.failures[0]

    def work(self) -> None:
        """Handle all that may be handled now."""
        self.member.work(self.note)

    def note(self, record: Record) -> None:
        self.handled.append((TopicPartition(record.topic, record.partition), record.offset))

    def offsets_of(self, tp: TopicPartition) -> list[int]:
        return [offset for found, offset in self.handled if found == tp]

    def out_of_range(self, tp: TopicPartition) -> Message:
        """What the client says once retention has passed the position; the log now begins at 50."""
        self.client.logs[tp] = (50, self.client.logs[tp][1])
        return message(tp, self.client.held[tp], KafkaError(KafkaError.OFFSET_OUT_OF_RANGE))


# -- a partition that starts anew ------------------------------------------------------------------


@MODES
def test_what_is_left_of_a_batch_is_not_counted_for_the_assignment_that_comes_after_it(
    monkeypatch: pytest.MonkeyPatch, cooperative: bool
) -> None:
    bench = Bench(monkeypatch, cooperative=cooperative)
    client = bench.client
    client.offsets[ZERO] = (10, "")

    def a_batch_with_an_error_in_front() -> list[Message]:
        stale = [message(ZERO, offset) for offset in range(100, 120)]
        return [bench.out_of_range(ZERO), *stale, *client.fetch(ONE, 20)]

    bench.run(
        lambda: client.assign_now(ZERO, ONE),
        lambda: client.fetch(ONE, 100),
        a_batch_with_an_error_in_front,
        lambda: client.fetch(ZERO),
        lambda: client.fetch(ONE),
        bench.work,
    )
    assert bench.offsets_of(ZERO) == list(range(50, 200))
    assert bench.offsets_of(ONE) == list(range(200))
    assert {tp: offset for tp, (offset, _) in client.offsets.items()} == {ZERO: 200, ONE: 200}


@MODES
def test_the_others_read_on_where_they_are_when_a_partition_starts_anew(
    monkeypatch: pytest.MonkeyPatch, cooperative: bool
) -> None:
    bench = Bench(monkeypatch, cooperative=cooperative)
    client, member = bench.client, bench.member
    client.offsets[ZERO] = (10, "")

    def a_handler_runs_while_the_other_partition_starts_anew() -> list[Message]:
        out = member.take(max_run=1)
        assert out is not None
        member.begin(out)
        return [bench.out_of_range(ZERO)]

    def the_handler_ends() -> None:
        assert client.held == {ZERO: 50, ONE: 120}
        (out,) = member.outs
        member.finish(out, bench.note)

    bench.run(
        lambda: client.assign_now(ZERO, ONE),
        lambda: client.fetch(ONE, 120),
        a_handler_runs_while_the_other_partition_starts_anew,
        the_handler_ends,
        lambda: client.fetch(ZERO),
        lambda: client.fetch(ONE),
        bench.work,
    )
    assert Counter(bench.offsets_of(ONE)) == Counter(range(200))
    assert Counter(bench.offsets_of(ZERO)) == Counter(range(50, 200))
    assert client.offsets[ONE][0] == 200
    assert [tps for event, tps in member.hooks.calls if event == "lost"] == [[ZERO]]


@MODES
def test_a_partition_whose_topic_is_gone_when_it_starts_anew_is_not_given_back_twice(
    monkeypatch: pytest.MonkeyPatch, cooperative: bool
) -> None:
    bench = Bench(monkeypatch, cooperative=cooperative)
    client = bench.client
    other = TopicPartition("others", 0)
    client.logs[other] = (0, 200)

    def the_topic_goes() -> None:
        client.missing = {"orders"}
        bench.poller.restart([ZERO])

    def both_come_back() -> None:
        client.missing = set()
        client.assign_now(ZERO, other)

    bench.run(
        lambda: client.assign_now(ZERO, other),
        the_topic_goes,
        lambda: None,  # the restart finds no topic, so it leaves the group, and then all is revoked
        both_come_back,
        lambda: client.fetch(ZERO),
        lambda: client.fetch(other),
        bench.work,
    )
    assert Counter(bench.handled) == Counter((tp, offset) for tp in (ZERO, other) for offset in range(200))
    assert bench.member.hooks.calls[:4] == [
        ("assigned", [ZERO, other]),
        ("lost", [ZERO]),
        ("revoked", [other]),
        ("assigned", [ZERO, other]),
    ]


@MODES
def test_where_to_start_is_asked_once_for_all_partitions_and_each_answer_is_a_turn_of_the_thread(
    monkeypatch: pytest.MonkeyPatch, cooperative: bool
) -> None:
    bench = Bench(monkeypatch, cooperative=cooperative)
    client, logs = bench.client, bench.logs
    tps = [TopicPartition("orders", n) for n in range(600)]
    client.logs = dict.fromkeys(tps, (0, 10))
    logs.seconds = 4.0
    late: list[float] = []

    def ends(asked: Collection[TopicPartition]) -> dict[TopicPartition, Watermarks]:
        late.append(bench.clock.now - bench.poller.last_tick)
        return logs.ends(asked)

    bench.poller._finder._logs = SimpleNamespace(seen=logs.seen, ends=ends)  # type: ignore[assignment]

    def all_anew() -> None:
        assert len(logs.asked_at) == 2
        bench.poller.restart(tps)

    bench.run(lambda: client.assign_now(*tps), all_anew, lambda: None)
    assert len(logs.asked_at) == 4
    assert late == [0.0, 0.0]


def test_a_partition_without_a_leader_begins_where_its_commit_says_and_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch)
    client, logs = bench.client, bench.logs
    client.offsets[ZERO] = (150, f"r1:{TOPIC_ID}:c@here+2:-")
    logs.leaderless = {ZERO}
    held: list[dict[TopicPartition, int]] = []
    bench.run(lambda: client.assign_now(ZERO, ONE), lambda: held.append(dict(client.held)))
    assert held == [{ZERO: 150, ONE: 0}]
    assert len(logs.asked_at) == 2


def test_a_partition_without_a_leader_and_a_commit_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    client, logs = bench.client, bench.logs
    logs.leaderless = {ZERO}

    def ends(tps: Collection[TopicPartition]) -> dict[TopicPartition, Watermarks]:
        if len(logs.asked_at) == 5:
            logs.leaderless = set()
        return logs.ends(tps)

    bench.poller._finder._logs = SimpleNamespace(seen=logs.seen, ends=ends)  # type: ignore[assignment]
    held: list[dict[TopicPartition, int]] = []
    bench.run(lambda: client.assign_now(ZERO, ONE), lambda: held.append(dict(client.held)))
    assert held == [{ZERO: 0, ONE: 0}]
    assert len(logs.asked_at) == 6


# -- what the group says of partitions -------------------------------------------------------------


def test_hooks_hear_only_of_partitions_that_were_owned(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    client = bench.client
    bench.run(
        lambda: client.assign_now(ZERO),
        lambda: client.revoke_now(ZERO, ONE),
        lambda: client.revoke_now(ONE),
        lambda: client.assign_now(ONE),
        lambda: client.lose_now(ZERO, ONE),
        lambda: client.lose_now(ZERO),
    )
    assert bench.member.hooks.calls == [
        ("assigned", [ZERO]),
        ("revoked", [ZERO]),
        ("assigned", [ONE]),
        ("lost", [ONE]),
    ]


# -- the last commit -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS, KafkaError.STALE_MEMBER_EPOCH],
)
def test_a_commit_that_a_rebalance_refuses_is_repeated_before_leaving(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    bench = Bench(monkeypatch)
    client = bench.client

    def handle_while_a_rebalance_is_under_way() -> None:
        new_generation = bench.clock.now + 5.0
        client.judge = lambda offered: code if bench.clock.now < new_generation else None
        bench.work()

    bench.run(
        lambda: client.assign_now(ZERO),
        lambda: client.fetch(ZERO),
        handle_while_a_rebalance_is_under_way,
        leave_within=8.0,
    )
    assert client.offsets[ZERO][0] == 200
    assert client.closed_at is not None


def test_a_commit_that_is_refused_again_and_again_holds_the_leaving_up_to_the_deadline_and_no_longer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(monkeypatch)
    client = bench.client
    stopped_at = 0.0

    def handle_while_no_generation_is_ours() -> None:
        nonlocal stopped_at
        client.judge = lambda offered: KafkaError.ILLEGAL_GENERATION
        bench.work()
        stopped_at = bench.clock.now + poller._POLL

    bench.run(
        lambda: client.assign_now(ZERO),
        lambda: client.fetch(ZERO),
        handle_while_no_generation_is_ours,
        leave_within=8.0,
    )
    assert client.closed_at is not None
    assert stopped_at + 8.0 <= client.closed_at <= stopped_at + 8.0 + 2 * poller._POLL
    assert "Offsets not committed, the next owner repeats them" in caplog.text


def test_one_who_has_committed_all_says_at_once_that_it_ends_and_commits_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch, commit_interval=0.0)
    client = bench.client
    bench.run(
        lambda: client.assign_now(ZERO), lambda: client.fetch(ZERO), bench.work, lambda: None, lambda: None
    )
    assert client.offsets[ZERO][0] == 200
    said = [offered.metadata for offers in client.offered for offered in offers if offered.offset == 200]
    assert [mark_text(text, "") for text in said] == ["o", "c"]
    assert client.closed_at == bench.clock.now


def test_a_rebalance_that_takes_the_partition_while_the_last_commit_is_repeated_does_not_hold_the_leaving(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch)
    client = bench.client

    def handle_while_a_rebalance_is_under_way() -> None:
        client.judge = lambda offered: KafkaError.ILLEGAL_GENERATION
        bench.work()
        client.on_script_end = the_new_generation_takes_it

    def the_new_generation_takes_it() -> None:
        if not bench.poller._stopping.is_set():
            bench.poller.stop(bench.clock.now + 8.0)
        elif client.held:
            client.judge = lambda offered: None
            client.revoke_now(ZERO)

    bench.run(
        lambda: client.assign_now(ZERO), lambda: client.fetch(ZERO), handle_while_a_rebalance_is_under_way
    )
    assert client.offsets[ZERO][0] == 200
    assert client.closed_at is not None
    assert client.closed_at < Time().now + 2.0


@pytest.mark.parametrize("most", [40, 100, 500])
def test_metadata_that_is_too_large_for_the_broker_is_offered_again_with_a_shorter_map(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, most: int
) -> None:
    bench = Bench(monkeypatch, commit_interval=0.0, ordering="none")
    client, member = bench.client, bench.member
    client.logs[ZERO] = (0, 4_000)

    def judge(offered: ClientPartition) -> int | None:
        return KafkaError.OFFSET_METADATA_TOO_LARGE if len(offered.metadata or "") > most else None

    def leave_holes() -> None:
        client.judge = judge
        outs = []
        while (out := member.take(max_run=1)) is not None:
            outs.append(out)
        for out in outs:  # a pattern that no encoding makes small, and the first record is finished
            if pow(3, out.run.records[0].offset, 10_007) % 3 or out.run.records[0].offset == 0:
                member.finish(out, bench.note)

    quiet: list[Step] = [lambda: None] * 12
    bench.run(lambda: client.assign_now(ZERO), *[lambda: client.fetch(ZERO, 500)] * 8, leave_holes, *quiet)
    sizes = [len(offered.metadata or "") for offers in client.offered for offered in offers]
    assert max(sizes) > most
    assert max(sizes) <= LIMIT
    offset, metadata = client.offsets[ZERO]
    assert offset == min(set(range(4_000)) - set(bench.offsets_of(ZERO)))
    assert offset > 0
    assert len(metadata or "") <= most
    assert sum(size > most for size in sizes) <= 5
    assert caplog.text.count("metadata beside a committed offset") == 1
    cost = bench.runtime.look().metadata
    assert cost is not None
    assert "(offset.metadata.max.bytes)" in cost


@MODES
def test_an_offset_whose_metadata_is_refused_is_committed_alone_before_its_partition_goes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, cooperative: bool
) -> None:
    bench = Bench(monkeypatch, cooperative=cooperative)
    client = bench.client

    def handle_and_lose_one() -> None:
        bench.work()
        client.judge = lambda offered: KafkaError.OFFSET_METADATA_TOO_LARGE if offered.metadata else None
        client.revoke_now(ZERO)

    bench.run(
        lambda: client.assign_now(ZERO, ONE),
        lambda: client.fetch(ZERO),
        lambda: client.fetch(ONE),
        handle_and_lose_one,
    )
    assert client.offsets == {ZERO: (200, None), ONE: (200, None)}
    assert "not committed" not in caplog.text
    assert caplog.text.count("the broker takes no metadata beside committed offsets") <= 1
    assert bench.runtime.look().metadata is not None


def test_a_broker_that_takes_metadata_again_is_noticed_at_the_next_assignment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(monkeypatch, commit_interval=0.0)
    client = bench.client
    client.judge = lambda offered: KafkaError.OFFSET_METADATA_TOO_LARGE if offered.metadata else None

    def alone() -> None:
        assert client.offsets == {ZERO: (0, None)}
        assert bench.runtime.look().metadata is not None
        client.judge = lambda offered: None
        client.assign_now(ONE)

    def told() -> None:
        assert mark_text(client.offsets[ONE][1], TOPIC_ID) == "o"
        assert bench.runtime.look().metadata is None

    quiet: list[Step] = [lambda: None] * 6
    bench.run(lambda: client.assign_now(ZERO), *quiet, alone, *quiet, told)
    assert caplog.text.count("beside committed offsets") == 2
    assert "takes all metadata beside committed offsets again" in caplog.text


# -- fairness --------------------------------------------------------------------------------------


class Room:
    """Stands in for the condition that a poller waits on for room: waiting makes the world go on."""

    def __init__(self, lock: Any, go_on: Callable[[float], None]) -> None:
        self._lock, self._go_on = lock, go_on

    def wait_for(self, room: Callable[[], bool], timeout: float) -> bool:
        if not room():
            self._lock.release()
            try:
                self._go_on(timeout)
            finally:
                self._lock.acquire()
        return room()

    def notify_all(self) -> None:
        pass


def test_with_a_backlog_all_partitions_advance_though_the_client_serves_the_first_before_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch, commit_interval=0.0, limits=Limits(ready=1_000))
    client, member = bench.client, bench.member
    tps = [TopicPartition("orders", n) for n in range(6)]
    client.logs = dict.fromkeys(tps, (0, 1_000_000))

    def handle_for(seconds: float) -> None:
        """A lane at a time, 100 records a second each."""
        bench.clock.advance(seconds)
        outs = []
        while (out := member.take(max_run=max(1, round(100 * seconds)))) is not None:
            outs.append(out)
        for out in outs:
            member.finish(out, bench.note)

    most = 0

    def serve() -> list[Message]:
        nonlocal most
        handle_for(poller._POLL)
        most = max(most, bench.runtime.look().queued)
        ready = (tp for tp in tps if tp not in client.paused and client.held[tp] < client.logs[tp][1])
        first = next(ready, None)
        return [] if first is None else client.fetch(first)

    bench.runtime._changed = Room(bench.runtime._lock, handle_for)  # type: ignore[assignment]
    served: list[Step] = [serve] * 400
    bench.run(lambda: client.assign_now(*tps), *served)
    advanced = Counter(tp for tp, _ in bench.handled[:5_000])
    assert len(bench.handled) >= 5_000
    assert set(advanced) == set(tps), advanced
    assert min(advanced.values()) >= 400, advanced
    assert most <= 1_000 + len(tps) * poller._BATCH


def test_partitions_that_fill_all_the_room_are_paused_at_once_when_workers_have_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch, limits=Limits(ready=100))
    client = bench.client
    paused: list[set[TopicPartition]] = []
    polled: list[float] = []
    last_start: list[float] = []
    started: list[Out] = []

    def start_all(seconds: float) -> None:
        bench.clock.advance(seconds)
        last_start.append(bench.clock.now)
        while (out := bench.member.take(max_run=1)) is not None:
            started.append(out)

    def serve_the_other() -> list[Message]:
        paused.append(set(client.paused))
        polled.append(bench.clock.now - last_start[-1])
        finish_all()
        return client.fetch(ONE)

    def finish_all() -> None:
        while started:
            bench.member.finish(started.pop(), bench.note)

    bench.runtime._changed = Room(bench.runtime._lock, start_all)  # type: ignore[assignment]
    bench.run(
        lambda: client.assign_now(ZERO, ONE),
        lambda: client.fetch(ZERO),
        serve_the_other,
        finish_all,
    )
    assert paused == [{ZERO}], "it had taken all, and its other records come after the one that runs"
    assert polled == [pytest.approx(poller._SHORT_POLL)]
    assert bench.offsets_of(ONE)
    assert bench.poller._intake._found > 200 * RECORD_BYTES, "and it is told what came of it"


def test_what_brought_little_is_tried_at_once_with_other_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.poller._intake._futile_until = bench.clock.now + 100.0
    bench.run(lambda: bench.client.assign_now(ZERO, ONE))
    assert bench.poller._intake._futile_until < bench.clock.now


@MODES
def test_with_latest_nothing_is_read_before_the_broker_knows_where_the_group_began(
    monkeypatch: pytest.MonkeyPatch, cooperative: bool
) -> None:
    bench = Bench(monkeypatch, cooperative=cooperative)
    client = bench.client
    bench.poller._finder._feed = Feed("source", ("orders",), "g", "latest")
    client.offsets[ONE] = (150, f"r1:{TOPIC_ID}:c@here+2:-")
    client.judge = lambda offered: KafkaError.COORDINATOR_NOT_AVAILABLE

    def assign() -> None:
        client.assign_now(ZERO, ONE)
        assert client.paused == {ZERO}

    def still() -> None:
        assert client.paused == {ZERO}
        assert bench.runtime.reading("source") == {ONE: 150}
        client.judge = lambda offered: None

    def begun() -> None:
        assert client.offsets[ZERO][0] == 200
        assert client.paused == set()

    quiet: list[Step] = [lambda: None] * 6
    bench.run(assign, *quiet, still, *quiet, begun)


# -- marks that records wait for -------------------------------------------------------------------


def test_the_word_that_somebody_works_goes_out_with_the_assignment_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch)
    client = bench.client

    def assign() -> None:
        client.assign_now(ZERO, ONE)
        [offers] = client.offered
        assert {(o.partition, o.offset, mark_text(o.metadata, "")) for o in offers} == {
            (0, 0, "o"),
            (1, 0, "o"),
        }

    bench.run(assign, lambda: client.fetch(ZERO), bench.work)
    assert client.offsets[ZERO][0] == 200


def test_that_word_is_offered_again_after_a_refusal_but_not_at_every_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch)
    client = bench.client
    offered_at: list[float] = []

    def refuse(offered: ClientPartition) -> int | None:
        offered_at.append(bench.clock.now)
        return KafkaError.REBALANCE_IN_PROGRESS if len(offered_at) < 4 else None

    client.judge = refuse
    bench.run(lambda: client.assign_now(ZERO), *[lambda: None] * 30)
    waits = [b - a for a, b in pairwise(offered_at[:4])]
    assert len(waits) == 3
    assert all(0.1 <= wait <= 0.3 for wait in waits), waits


def test_suspects_are_named_at_once_and_not_by_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    client = bench.client
    client.offsets[ZERO] = (0, "r1::o1.3:-")
    bench.run(
        lambda: client.assign_now(ZERO), lambda: client.fetch(ZERO), *[bench.work] * 20, leave_within=8.0
    )
    assert bench.offsets_of(ZERO) == list(range(200))
    said = [mark_text(o.metadata, "") for offers in client.offered for o in offers]
    assert [text for text in said if text.startswith("o2.3.")] == ["o2.3.0", "o2.3.1", "o2.3.2"]
    assert bench.clock.now < Time().now + 3.0


# -- found by mutants ----------------------------------------------------------------------------------


@MODES
def test_at_the_log_s_end_the_commit_passes_what_are_markers(
    monkeypatch: pytest.MonkeyPatch, cooperative: bool
) -> None:
    bench = Bench(monkeypatch, cooperative=cooperative)
    client = bench.client
    client.logs[ZERO] = (0, 12)
    bench.run(
        lambda: client.assign_now(ZERO),
        lambda: client.fetch(ZERO, 10),
        lambda: [message(ZERO, 12, KafkaError(KafkaError._PARTITION_EOF))],
        bench.work,
    )
    assert bench.offsets_of(ZERO) == list(range(10))
    assert client.offsets[ZERO][0] == 12


@MODES
def test_a_partition_that_was_paused_when_it_went_is_read_when_it_comes_again(
    monkeypatch: pytest.MonkeyPatch, cooperative: bool
) -> None:
    """The client's pause outlives its assignment, and we take it for gone with that."""
    bench = Bench(monkeypatch, cooperative=cooperative)
    client = bench.client

    paused: list[set[TopicPartition]] = []
    bench.run(
        lambda: client.assign_now(ZERO),
        lambda: client.pause([ClientPartition(*ZERO)]),
        lambda: client.revoke_now(ZERO),
        lambda: client.assign_now(ZERO),
        lambda: paused.append(set(client.paused)),
    )
    assert paused == [set()]


def test_before_what_runs_is_drained_the_committer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can ask for the group's generation while it drains."""
    bench = Bench(monkeypatch)
    told: list[str] = []
    for owner, name in ((bench.poller._committer, "revoking"), (bench.runtime, "revoking")):
        inner = getattr(owner, name)
        kind = type(owner).__name__
        monkeypatch.setattr(
            owner, name, lambda *given, inner=inner, kind=kind: (told.append(kind), inner(*given))[1]
        )
    bench.run(lambda: bench.client.assign_now(ZERO), lambda: bench.client.revoke_now(ZERO))
    assert told[:2] == ["GroupCommitter", "Runtime"]

"""The transactor over a fake transactional client: every way in which a transaction can fail.

The runtime and its engine are the real ones; the test calls the turns, on its own thread and in virtual time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from relance.engine.metadata_room import MetadataRoom
from relance.errors import Reject, TransientError
from relance.kafka import transactional
from relance.kafka.cluster import Committed, KafkaRefusedError
from relance.kafka.limits import ALONE, TopicLimits
from relance.kafka.transactions import Transactor
from relance.record import Outgoing, Record, TopicPartition
from waiting import wait_until
from world import DLT, ORDERS, Broker, FakeClock, Member, a_plan

OTHER = TopicPartition("orders", 1)
RESULTS = "results"


class Time(FakeClock):
    """Stands in for the module, too."""

    sleep = FakeClock.advance


class Cluster:
    """What is committed, what was aborted, the transaction that is open, and what goes wrong next."""

    def __init__(self, broker: Broker, commits: dict[TopicPartition, tuple[int, str]], time: Time) -> None:
        self.time = time
        self.broker = broker
        self.commits = commits
        self.clients = 0
        self.living = WeakSet[Client]()
        self.open = False
        self.records: list[Outgoing] = []
        self.offsets: list[ClientPartition] = []
        self.aborted: list[str] = []
        self.missing: set[str] = set()
        self.failing: dict[str, list[KafkaError]] = {}
        """By the name of a call, the errors of the next ones."""
        self.takes_effect: list[bool] = []
        """For each commit that fails: whether it took effect nevertheless."""
        self.refuses: Callable[[Outgoing], int | None] = lambda outgoing: None
        """The error of a record, as its delivery report tells."""
        self.spoils: Callable[[Outgoing], bool] = lambda outgoing: False
        """Whether a record makes the end of its transaction fail, without a word about which it was."""
        self.fills: Callable[[Outgoing], bool] = lambda outgoing: False
        """Whether the client has no room for a record, for seconds."""

    def connect(self, on_error: Callable[[KafkaError], None], batch: int) -> Client:
        assert not self.living, "two of one name: the older would go on asking for its end"
        self.abort()
        self.clients += 1
        client = Client(self, on_error, batch)
        self.living.add(client)
        return client

    def keys(self, topic: str) -> list[bytes | None]:
        """Of what a reader of committed records sees."""
        return [m.key for m in self.broker.log(TopicPartition(topic, 0)).messages]

    def committed(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, Committed]:
        return {tp: Committed(*self.commits.get(tp, (-1, ""))) for tp in tps}

    def commit(self) -> None:
        for outgoing in self.records:
            self.broker.write(outgoing)
        for entry in self.offsets:
            self.commits[TopicPartition(entry.topic, entry.partition)] = entry.offset, entry.metadata
        self._ended()

    def abort(self) -> None:
        self.aborted += [o.topic for o in self.records]
        self._ended()

    def _ended(self) -> None:
        self.open, self.records, self.offsets = False, [], []


class Client:
    """One transaction at a time, as the real one keeps to it: a call out of turn is an error of the test."""

    def __init__(self, cluster: Cluster, on_error: Callable[[KafkaError], None], batch: int) -> None:
        self.cluster = cluster
        self.batch = batch
        self.on_error = on_error  # the real one keeps it, too: a cycle
        self.answers: list[Callable[[], None]] = []
        self.dead = False
        self.last_words: list[KafkaError] = []
        """A fatal error is raised once more, by the next `poll`."""

    def __len__(self) -> int:
        return len(self.answers) + len(self.last_words)

    def _fail(self, name: str, timeout: float = 0.0) -> None:
        assert not self.dead, f"{name} after a fatal error"
        errors = self.cluster.failing.get(name)
        if errors:
            error = errors.pop(0)
            self.dead = error.fatal()
            if self.dead:
                self.last_words.append(error)
            if error.retriable():
                self.cluster.time.advance(timeout)
            raise KafkaException(error)

    def init_transactions(self, timeout: float) -> None:
        self._fail("init")

    def begin_transaction(self) -> None:
        assert not self.cluster.open
        self._fail("begin")
        self.cluster.open = True

    def list_topics(self, topic: str, timeout: float) -> Any:
        error = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART) if topic in self.cluster.missing else None
        there = SimpleNamespace(error=error, partitions={0: SimpleNamespace(leader=1)})
        return SimpleNamespace(topics={topic: there})

    def produce(
        self, topic: str, value: Any, key: Any, headers: Any, on_delivery: Callable[..., None]
    ) -> None:
        assert self.cluster.open
        self._fail("produce")
        outgoing = Outgoing(topic, key, value, headers or [])
        if self.cluster.fills(outgoing):
            self.cluster.time.advance(2.0)
            raise BufferError
        code = self.cluster.refuses(outgoing)
        error = None if code is None else KafkaError(code)
        self.cluster.records.append(outgoing)
        self.answers.append(lambda: on_delivery(error, None))

    def purge(self) -> None:
        pass  # what is not answered is answered by `poll`

    def poll(self, timeout: float) -> int:
        if self.last_words:
            raise KafkaException(self.last_words.pop())
        answers, self.answers = self.answers, []
        for answer in answers:
            answer()
        return len(answers)

    def flush(self, timeout: float) -> int:
        self._fail("flush")
        self.poll(timeout)
        return 0

    def send_offsets_to_transaction(self, offsets: Any, metadata: Any, timeout: float) -> None:
        assert self.cluster.open
        assert metadata == GENERATION
        self._fail("offsets", timeout)
        self.cluster.offsets = list(offsets)

    def commit_transaction(self, timeout: float) -> None:
        assert self.cluster.open
        if any(map(self.cluster.spoils, self.cluster.records)):
            raise KafkaException(ABORT)
        try:
            self._fail("commit", timeout)
        except KafkaException:
            if self.cluster.takes_effect.pop(0):
                self.cluster.commit()
            raise
        self.cluster.commit()

    def abort_transaction(self, timeout: float) -> None:
        assert self.cluster.open
        self._fail("abort")
        self.cluster.abort()


class World:
    """One member whose hand-offs go through a transactor, and the cluster."""

    def __init__(self, **plan: Any) -> None:
        self.time = Time()
        self.member = Member(Broker(), self.time, a_plan(**plan))
        self.limits = TopicLimits({}, clock=self.time.monotonic)
        self.cluster = Cluster(self.member.broker, self.member.broker.commits, self.time)
        self.begin()

    def begin(self) -> None:
        """A process that owns both partitions; also a new one after a crash."""
        self.cluster.living.clear()
        self.member.restart()
        self.member.assign(ORDERS, OTHER)
        self.transactor = Transactor(
            self.member.runtime,
            "source",
            "g",
            connect=self.cluster.connect,
            committed=self.cluster.committed,
            interval=1.0,
            drain_timeout=5.0,
            limits=self.limits,
            clock=self.time.monotonic,
        )
        self.member.runtime.writer = SimpleNamespace(
            write=self.transactor.submit, hurry=self.transactor.hurry
        )  # type: ignore[assignment]
        self.poll()

    def poll(self) -> None:
        """The polling thread comes round."""
        self.transactor.commit_if_due(GROUP)

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.poll()
            self.transactor.turn()
            self.time.advance(1.0)

    def handle(self, tp: TopicPartition, *keys: bytes) -> None:
        """Records of which `dead...` is rejected, and of every other one result is sent."""
        for key in keys:
            self.member.broker.log(tp).append(key)
        self.member.read(tp)
        self.member.work(answer)

    def offset(self, tp: TopicPartition = ORDERS) -> int | None:
        found = self.cluster.commits.get(tp)
        return None if found is None else found[0]


GENERATION = b"CGMDv2:\x01\x00\x00\x00g\x00m\x00\x01"
OUTSIDE = b"CGMDv2:\xff\xff\xff\xffg\x00\x00\x01"
GROUP: Any = SimpleNamespace(consumer_group_metadata=lambda: GENERATION)
ABORT = KafkaError(KafkaError.INVALID_TXN_STATE, "made up", txn_requires_abort=True)
FATAL = KafkaError(KafkaError._FENCED, "made up", fatal=True)
NO_ANSWER = KafkaError(KafkaError._TIMED_OUT, "made up", retriable=True)


_TIMED_OUT, _LOADING = KafkaError._TIMED_OUT, KafkaError.COORDINATOR_LOAD_IN_PROGRESS


def late(code: int) -> KafkaError:
    """What the client makes of offsets that were not taken in time: its last answer's code."""
    return KafkaError(code, "made up", txn_requires_abort=True)


def answer(record: Record) -> None:
    key = record.key or b""
    if key.startswith(b"dead"):
        raise Reject("asked to")
    record.send(RESULTS, {"of": key.decode()}, key=key)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    found = World()
    monkeypatch.setattr(transactional, "time", found.time)
    return found


def test_a_result_a_dead_letter_and_the_offset_appear_together(world: World) -> None:
    world.handle(ORDERS, b"a", b"dead")
    assert (world.cluster.keys(RESULTS), world.offset()) == ([], None)
    world.turn()
    assert (world.cluster.keys(RESULTS), world.cluster.keys(DLT)) == ([b"a"], [b"dead"])
    assert world.offset() == 2
    assert world.member.at_rest()


def test_offsets_without_hand_offs_are_committed_in_a_transaction_too_and_only_when_they_changed(
    world: World,
) -> None:
    world.member.broker.log(ORDERS).append(b"a")
    world.member.read()
    world.member.work()
    world.turn()
    assert world.offset() == 1
    world.cluster.failing["begin"] = [FATAL]
    world.turn(3)
    assert len(world.cluster.failing["begin"]) == 1, "there was nothing to begin one for"


@pytest.mark.parametrize("call", ["flush", "offsets", "commit"])
def test_an_aborted_transaction_shows_nothing_and_its_hand_offs_come_first_in_the_next(
    world: World, call: str
) -> None:
    world.cluster.failing[call] = [ABORT]
    world.cluster.takes_effect = [False]
    world.handle(ORDERS, b"a", b"b")
    world.turn()
    assert (world.cluster.keys(RESULTS), world.offset()) == ([], None)
    assert world.cluster.aborted == [RESULTS, RESULTS]
    world.handle(ORDERS, b"c")
    world.turn(3)
    assert (world.cluster.keys(RESULTS), world.offset()) == ([b"a", b"b", b"c"], 3)


@pytest.mark.parametrize("took_effect", [True, False])
def test_an_end_without_an_answer_is_found_out_before_anything_else_is_written(
    world: World, took_effect: bool
) -> None:
    world.cluster.failing["commit"] = [FATAL]
    world.cluster.takes_effect = [took_effect]
    world.handle(ORDERS, b"a", b"b")
    world.turn()
    world.handle(ORDERS, b"c")
    world.turn(3)
    assert world.cluster.clients == 2
    assert sorted(world.cluster.keys(RESULTS)) == [b"a", b"b", b"c"]
    assert world.offset() == 3
    assert world.member.at_rest()


@pytest.mark.parametrize("took_effect", [True, False])
def test_an_end_is_asked_for_no_longer_than_a_transaction_may_last(world: World, took_effect: bool) -> None:
    """Later, a broker that knows nothing of the abort for its time might take it."""
    world.cluster.failing["commit"] = [NO_ANSWER] * 4  # of two seconds each; and ten is what it may last
    world.cluster.takes_effect = [False, False, False, took_effect]
    world.handle(ORDERS, b"a", b"b")
    world.turn(3)
    assert world.cluster.failing["commit"] == []
    assert world.cluster.clients == 2
    assert sorted(world.cluster.keys(RESULTS)) == [b"a", b"b"]
    assert world.offset() == 2
    assert world.member.at_rest()


@pytest.mark.parametrize("after", ["write", "offsets"])
def test_what_is_too_old_is_neither_ended_nor_aborted_but_left_to_another_client(
    world: World, after: str
) -> None:
    """A broker that knows nothing of the abort for its time would take this client's, with its old epoch."""

    def refuse(outgoing: Outgoing) -> None:
        if world.cluster.clients == 1:
            world.time.advance(9.0)

    if after == "write":
        world.cluster.refuses = refuse  # type: ignore[assignment]
    else:
        world.cluster.failing["offsets"] = [NO_ANSWER] * 2
    never: dict[str, list[KafkaError]] = {"commit": [NO_ANSWER], "abort": [NO_ANSWER]}
    world.cluster.failing |= never
    world.handle(ORDERS, b"a", b"b")
    world.turn()
    assert [len(errors) for errors in never.values()] == [1, 1], "nobody asked for either"
    assert (world.cluster.keys(RESULTS), world.offset()) == ([], None)
    world.cluster.failing = {}
    world.turn(3)
    assert world.cluster.clients == 2
    assert (world.cluster.keys(RESULTS), world.offset()) == ([b"a", b"b"], 2)


@pytest.mark.parametrize("errors", [[NO_ANSWER] * 10, [late(_TIMED_OUT)] * 5, [late(_LOADING)] * 5])
def test_while_nobody_takes_offsets_it_is_made_again_each_time_smaller_and_no_record_is_blamed(
    world: World, errors: list[KafkaError]
) -> None:
    world.cluster.failing["offsets"] = errors[:]  # of five seconds each: after two of those it is too old
    world.handle(ORDERS, b"a", b"b", b"c", b"d")
    world.turn(6)
    assert world.cluster.aborted == [RESULTS] * (4 + 2 + 1 + 1 + 1)
    assert world.member.runtime.look().stopped == {}
    world.turn(4)
    assert world.cluster.keys(RESULTS) == [b"a", b"b", b"c", b"d"]
    assert world.offset() == 4


def test_more_than_can_be_written_in_time_is_written_in_smaller_transactions(world: World) -> None:
    def refuse(outgoing: Outgoing) -> int | None:
        return KafkaError._MSG_TIMED_OUT if len(world.cluster.records) >= 5 else None

    world.cluster.refuses = refuse
    world.handle(ORDERS, *(b"%d" % n for n in range(16)))
    world.turn(10)
    assert len(world.cluster.keys(RESULTS)) == 16
    assert world.offset() == 16
    assert len(world.cluster.aborted) == 16 + 8 + 8  # four went well, so eight were tried once more


def test_one_that_takes_all_the_time_by_itself_stops_its_partition_and_no_other(world: World) -> None:
    world.cluster.fills = lambda outgoing: outgoing.key == b"huge"
    world.handle(ORDERS, b"huge")
    world.handle(OTHER, b"a")
    world.turn(12)
    assert (world.cluster.keys(RESULTS), world.offset(OTHER)) == ([b"a"], 1)
    [(where, reason)] = world.member.runtime.look().stopped.items()
    assert where == str(ORDERS)
    assert "longer than it may" in reason


def test_an_outage_before_is_no_reason_to_blame_a_record(world: World) -> None:
    world.cluster.failing["offsets"] = [NO_ANSWER] * 6 + [ABORT]
    world.handle(ORDERS, b"a")
    world.turn(4)
    assert world.member.runtime.look().stopped == {}
    world.turn(2)
    assert (world.cluster.keys(RESULTS), world.offset()) == ([b"a"], 1)


def test_whoever_leaves_while_an_end_has_no_answer_takes_the_client_along(world: World) -> None:
    """Left alone it would go on asking for the end, for as long as the process lives."""
    world.cluster.failing["commit"] = [NO_ANSWER]
    world.cluster.takes_effect = [False]
    world.handle(ORDERS, b"a")
    world.poll()
    world.transactor._give_up = True
    world.transactor._run()
    assert (world.cluster.clients, len(world.cluster.living)) == (1, 0)


def test_while_nobody_says_what_is_committed_nothing_is_written(world: World) -> None:
    world.cluster.failing["commit"] = [FATAL]
    world.cluster.takes_effect = [True]
    world.handle(ORDERS, b"a")
    world.turn()
    ask = world.transactor._committed
    refusal = KafkaRefusedError("say", "Kafka", "no", KafkaError._TIMED_OUT)

    def refuse(tps: object) -> Any:
        raise refusal

    world.transactor._committed = refuse
    world.handle(ORDERS, b"b")
    world.turn(3)
    assert (world.cluster.keys(RESULTS), world.offset()) == ([b"a"], 1)
    assert world.transactor.waiting
    world.transactor._committed = ask
    world.turn(2)
    assert (world.cluster.keys(RESULTS), world.offset()) == ([b"a", b"b"], 2)


@pytest.mark.parametrize("call", ["init", "begin", "produce", "flush", "offsets", "abort"])
def test_after_a_fatal_error_another_client_goes_on(world: World, call: str) -> None:
    world.cluster.failing[call] = [FATAL]
    if call == "abort":
        world.cluster.failing["offsets"] = [ABORT]
    world.handle(ORDERS, b"a")
    world.turn(4)
    assert world.cluster.clients == 2
    assert (world.cluster.keys(RESULTS), world.offset()) == ([b"a"], 1)


def test_one_whom_the_group_has_left_behind_commits_nothing_and_writes_nothing(world: World) -> None:
    stale = KafkaError(KafkaError.ILLEGAL_GENERATION, "made up", txn_requires_abort=True)
    world.cluster.failing["offsets"] = [stale]
    world.handle(ORDERS, b"a")
    world.handle(OTHER, b"b")
    world.turn()
    assert (world.cluster.keys(RESULTS), world.cluster.commits) == ([], {})
    world.member.lose(ORDERS)
    world.turn(3)
    assert (world.cluster.keys(RESULTS), world.cluster.commits.keys()) == ([b"b"], {OTHER})


def test_out_of_its_group_a_member_commits_nothing_and_writes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as outside:  # for those a broker checks nothing, so it must be seen here
        outside.setattr(GROUP, "consumer_group_metadata", lambda: OUTSIDE)
        world.time.advance(1.0)  # the generation of before, still held, the broker would refuse
        world.handle(ORDERS, b"a")
        world.turn(3)
        assert (world.cluster.keys(RESULTS), world.cluster.commits) == ([], {})
    world.turn(2)
    assert (world.cluster.keys(RESULTS), world.offset()) == ([b"a"], 1)


def test_a_revocation_of_what_is_committed_already_says_that_it_is(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.handle(ORDERS, b"a")
    world.turn()
    with caplog.at_level("INFO", "relance.rebalance"):
        world.transactor.revoking(GROUP)
        world.transactor.commit_last(GROUP, [])
        assert caplog.messages == []  # a cooperative round in which nothing goes is no news
        world.transactor.commit_last(GROUP, [ORDERS])
    assert caplog.messages == ["[REBALANCE] Offsets committed before revocation"]


def test_a_partition_lost_while_its_hand_off_is_written_is_not_committed(world: World) -> None:
    world.handle(ORDERS, b"a")

    def lose(outgoing: Outgoing) -> None:
        if ORDERS in world.member.runtime.owned():
            world.member.lose(ORDERS)

    world.cluster.refuses = lose  # type: ignore[assignment]
    world.turn(3)
    assert (world.cluster.keys(RESULTS), world.offset()) == ([], None)


def test_a_record_too_large_stands_alone_stops_its_partition_and_goes_on_when_it_is_taken(
    world: World,
) -> None:
    def refuse(outgoing: Outgoing) -> int | None:
        return KafkaError.MSG_SIZE_TOO_LARGE if outgoing.key == b"large" else None

    world.cluster.refuses = refuse
    world.handle(ORDERS, b"large")
    world.handle(OTHER, b"a", b"b")
    world.turn(4)  # a batch with it, cut; it is named; the others
    assert (world.cluster.keys(RESULTS), world.offset(OTHER)) == ([b"a", b"b"], 2)
    assert world.offset() in (None, 0)
    [(where, reason)] = world.member.runtime.look().stopped.items()
    assert where == str(ORDERS)
    assert "MSG_SIZE_TOO_LARGE" in reason
    world.cluster.refuses = lambda outgoing: None
    world.turn(15)
    assert (world.cluster.keys(RESULTS), world.offset()) == ([b"a", b"b", b"large"], 1)
    assert world.member.runtime.look().stopped == {}


def test_a_batch_larger_than_its_topic_takes_is_nobody_s_fault_and_is_cut(world: World) -> None:
    def refuse(outgoing: Outgoing) -> int | None:
        [client] = world.cluster.living
        return KafkaError.MSG_SIZE_TOO_LARGE if client.batch > 5_000 else None

    world.cluster.refuses = refuse
    world.handle(ORDERS, b"a", b"b")
    world.handle(OTHER, b"c")
    world.turn(2)
    assert world.cluster.keys(RESULTS) == [b"a", b"b", b"c"]
    assert (world.offset(), world.offset(OTHER)) == (2, 1)
    assert world.member.runtime.look().stopped == {}
    assert [client.batch for client in world.cluster.living] == [ALONE]
    world.limits._learned(RESULTS, 5_000, world.time.monotonic())
    world.handle(ORDERS, b"d")
    world.turn()
    assert [client.batch for client in world.cluster.living] == [4_096]
    assert world.cluster.keys(RESULTS) == [b"a", b"b", b"c", b"d"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, "(it was not written)"),
        (KafkaError._MSG_TIMED_OUT, "(it may have been written all the same)"),
    ],
)
def test_health_says_of_a_letter_without_an_acknowledgement_that_it_may_have_been_written(
    world: World, code: int, told: str
) -> None:
    world.cluster.refuses = lambda outgoing: code
    world.handle(ORDERS, b"dead")
    world.turn(2)
    assert world.member.runtime.look().stopped[str(ORDERS)].count(told) == 1


def test_one_larger_than_a_batch_is_refused_for_itself_and_another_client_goes_on(world: World) -> None:
    large = b"L" * 1_100_000
    world.cluster.refuses = lambda o: KafkaError.MSG_SIZE_TOO_LARGE if o.key == large else None
    world.handle(ORDERS, large)
    world.handle(OTHER, b"a")
    world.turn()
    [reason] = world.member.runtime.look().stopped.values()
    assert "the record takes 22000" in reason  # its key, and the value that holds it
    world.turn(2)  # it alone, and the other
    assert world.cluster.keys(RESULTS) == [b"a"]
    assert (world.cluster.clients, world.offset(OTHER)) == (3, 1)
    assert [client.batch for client in world.cluster.living] == [1_000_000]


def test_the_record_that_is_refused_is_named_and_not_those_behind_it_nor_its_transaction(
    world: World,
) -> None:
    codes = {b"behind": KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, b"bad": KafkaError.INVALID_RECORD}
    world.cluster.refuses = lambda o: codes.get(o.key or b"")
    world.handle(OTHER, b"behind")
    world.handle(ORDERS, b"bad")
    world.turn()
    assert list(world.member.runtime.look().stopped) == [str(ORDERS)]

    def ended_by_the_first(outgoing: Outgoing) -> bool:
        if outgoing.key == b"c":
            raise KafkaException(ABORT)  # a moment before the answer that says why
        return False

    world.cluster.refuses = lambda o: KafkaError.INVALID_RECORD if o.key == b"b" else None
    world.cluster.fills = ended_by_the_first
    world.handle(OTHER, b"b", b"c")
    world.turn(2)  # the one that was refused, alone, and these
    assert "INVALID_RECORD" in world.member.runtime.look().stopped[str(OTHER)]


def test_a_topic_that_is_missing_holds_up_no_other(world: World) -> None:
    world.cluster.missing = {DLT}
    world.handle(ORDERS, b"dead")
    world.handle(OTHER, b"a")
    world.turn(3)
    assert (world.cluster.keys(RESULTS), world.offset(OTHER)) == ([b"a"], 1)
    assert str(ORDERS) in world.member.runtime.look().stopped
    world.cluster.missing = set()
    world.turn(15)
    assert (world.cluster.keys(DLT), world.offset()) == ([b"dead"], 1)


def revoke(world: World, *tps: TopicPartition) -> None:
    """As the poller does it; the transactor has turns while the drain waits, and before the last commit."""
    left = 20

    def turn(timeout: float) -> None:
        nonlocal left
        left -= 1
        assert left, "the drain waits for something that nobody tries"
        world.transactor.turn()
        world.time.advance(0.01)

    member = world.member
    member.while_waiting = turn
    world.transactor.revoking(GROUP)
    member.runtime.revoking("source", list(tps))
    while world.transactor._anything_left(set(tps)):
        turn(0.0)
    member.runtime.revoked("source", list(tps), lost=False)


def test_a_revocation_commits_the_offset_alone_whose_metadata_is_refused(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.turn()
    world.handle(ORDERS, b"a")
    code = KafkaError.OFFSET_METADATA_TOO_LARGE
    world.cluster.failing["offsets"] = [KafkaError(code, "made up", txn_requires_abort=True)]
    began = world.time.now
    revoke(world, ORDERS)
    assert world.cluster.keys(RESULTS) == [b"a"]
    assert world.cluster.commits[ORDERS] == (1, None)
    assert world.time.now - began < 1.0
    assert "trying again" not in caplog.text
    assert world.member.runtime.look().metadata is not None


@pytest.mark.parametrize("several", [False, True])
def test_a_revocation_tries_once_more_what_a_topic_refused_before_and_would_take_by_now(
    world: World, several: bool
) -> None:
    world.cluster.refuses = lambda outgoing: KafkaError._MSG_TIMED_OUT
    world.handle(ORDERS, b"a", *([b"b", b"dead"] if several else []))
    world.turn(6)  # the pauses between the tries grow
    world.handle(OTHER, b"c")  # has to wait behind it, and was never tried
    assert set(world.member.runtime.look().stopped) == {str(ORDERS), str(OTHER)}
    world.cluster.refuses = lambda outgoing: None
    began = world.time.now
    revoke(world, ORDERS, OTHER)
    assert world.time.now - began < 0.5
    assert sorted(world.cluster.keys(RESULTS)) == ([b"a", b"b", b"c"] if several else [b"a", b"c"])
    assert world.cluster.keys(DLT) == ([b"dead"] if several else [])
    assert (world.offset(), world.offset(OTHER)) == (3 if several else 1, 1)


def test_a_revocation_tries_a_record_that_was_refused_for_what_it_is_once_and_gives_it_up(
    world: World,
) -> None:
    world.cluster.refuses = lambda o: KafkaError.MSG_SIZE_TOO_LARGE if o.key == b"large" else None
    world.handle(ORDERS, b"large", b"b")
    world.turn(6)
    tries = world.cluster.aborted.count(RESULTS)
    began = world.time.now
    revoke(world, ORDERS)
    assert world.time.now - began < 0.5
    assert world.cluster.aborted.count(RESULTS) == tries + 1
    assert world.offset() in (None, 0)


def test_each_of_several_refused_records_gets_its_own_last_try(world: World) -> None:
    world.cluster.refuses = lambda o: KafkaError.MSG_SIZE_TOO_LARGE if o.key != b"z" else None
    world.handle(ORDERS, b"a", b"b", b"c")
    world.turn(12)
    assert world.cluster.keys(RESULTS) == []
    world.cluster.refuses = lambda o: KafkaError.MSG_SIZE_TOO_LARGE if o.key == b"a" else None
    revoke(world, ORDERS)
    assert sorted(world.cluster.keys(RESULTS)) == [b"b", b"c"]
    assert world.offset() == 0


def test_what_may_go_goes_before_the_last_try_of_what_was_refused(world: World) -> None:
    world.cluster.refuses = lambda o: KafkaError._MSG_TIMED_OUT if o.topic == DLT else None
    world.handle(OTHER, b"dead")
    world.turn(4)
    world.handle(ORDERS, b"a")
    world.member.engine.drain([ORDERS, OTHER])
    world.transactor.hurry(list(world.member.engine.assignments.values()))
    world.transactor.turn()
    assert world.cluster.keys(RESULTS) == [b"a"]


def test_what_a_handler_ends_while_its_partition_drains_is_tried_too(world: World) -> None:
    world.cluster.refuses = lambda outgoing: KafkaError._MSG_TIMED_OUT
    world.handle(OTHER, b"a")
    world.turn(4)
    world.member.broker.log(ORDERS).append(b"b")
    world.member.read()
    out = world.member.take()
    assert out is not None
    world.member.begin(out)
    world.member.engine.drain([ORDERS])
    world.cluster.refuses = lambda outgoing: None
    world.member.finish(out, answer)
    assert world.member.engine.assignments[ORDERS].busy()
    revoke(world, ORDERS)
    assert world.offset() == 1
    assert b"b" in world.cluster.keys(RESULTS)


def test_what_spoils_every_transaction_without_being_named_is_found_by_halving(world: World) -> None:
    world.cluster.spoils = lambda outgoing: outgoing.key == b"poison"
    world.handle(ORDERS, *(b"%d" % i for i in range(20)))
    world.handle(OTHER, b"poison")
    world.turn(30)
    assert sorted(world.cluster.keys(RESULTS)) == sorted(b"%d" % i for i in range(20))
    assert world.offset() == 20
    assert world.offset(OTHER) in (None, 0)
    assert list(world.member.runtime.look().stopped) == [str(OTHER)]
    world.handle(ORDERS, b"more")
    world.turn(2)
    assert world.cluster.keys(RESULTS)[-1] == b"more"


@pytest.mark.parametrize("limit", [0, 40, 60, 4095])
def test_what_the_commit_cannot_tell_of_is_not_written_so_a_crash_doubles_nothing(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    world = World(ordering="none")
    monkeypatch.setattr(transactional, "time", world.time)
    keys = [b"%d" % i for i in range(400)]
    waiting = {key for i, key in enumerate(keys) if i % 7 in (0, 1, 3)}
    for key in keys:
        world.member.broker.log(ORDERS).append(key)
    world.member.engine.room = MetadataRoom(limit)
    world.member.read()

    def fail_some(record: Record) -> None:
        if record.key in waiting:
            raise TransientError("later")
        answer(record)

    world.member.work(fail_some)
    world.turn(5)
    before = len(world.cluster.keys(RESULTS))
    assert before < len(keys) - len(waiting) if limit < 4095 else before == len(keys) - len(waiting)

    world.begin()
    world.member.read()
    world.time.advance(60.0)
    for _ in range(3 * len(keys)):  # carefully after a crash: one record a commit
        world.member.work(answer)
        world.turn(1)
        if world.offset() == len(keys):
            break
    assert sorted(world.cluster.keys(RESULTS), key=str) == sorted(keys, key=str)
    assert world.offset() == len(keys)


def test_the_lowest_unfinished_record_is_written_though_no_map_tells_of_what_is_finished_above_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(ordering="none")
    monkeypatch.setattr(transactional, "time", world.time)
    world.member.engine.room = MetadataRoom(0)
    keys = [b"late", b"quiet", b"early"]
    for key in keys:
        world.member.broker.log(ORDERS).append(key)
    world.member.read()

    def handle(record: Record) -> None:
        if record.key == b"early":
            answer(record)

    outs = [world.member.take(1) for _ in keys]
    for out in outs[1:]:
        assert out is not None
        world.member.finish(out, handle)
    world.turn(2)
    assert (world.cluster.keys(RESULTS), world.offset()) == ([], 0), "a crash would repeat the early one"
    assert outs[0] is not None
    world.member.finish(outs[0], answer)
    world.turn(2)
    assert (world.cluster.keys(RESULTS), world.offset()) == ([b"late", b"early"], 3)


def test_what_may_not_be_done_at_all_stops_the_application_with_the_acl_that_is_missing(world: World) -> None:
    code = KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    world.cluster.failing["init"] = [KafkaError(code, "made up", fatal=True)]
    world.turn()
    [failure] = world.member.failures
    assert "the ACL Write on transactional ids with the prefix g:" in str(failure)
    world.handle(ORDERS, b"a")
    world.transactor.commit_now(GROUP)
    assert not world.transactor.waiting, "a stop would wait for it until its deadline"


@pytest.mark.parametrize("calls", [["init", "offsets"], ["commit", "commit", "commit"]])
def test_what_passes_is_asked_again(world: World, calls: list[str]) -> None:
    world.cluster.failing = {name: [NO_ANSWER] * calls.count(name) for name in calls}
    world.cluster.takes_effect = [False] * calls.count("commit")
    world.handle(ORDERS, b"a")
    world.turn()
    assert (world.cluster.keys(RESULTS), world.offset()) == ([b"a"], 1)
    assert world.cluster.clients == 1


def test_a_revocation_returns_when_the_last_transaction_has_ended() -> None:
    member = Member.in_real_time()
    cluster = Cluster(member.broker, member.broker.commits, Time())
    held = threading.Event()
    transactor = Transactor(
        member.runtime,
        "source",
        "g",
        connect=cluster.connect,
        committed=cluster.committed,
        interval=60.0,
        drain_timeout=10.0,
        limits=TopicLimits({}),
    )
    member.runtime.writer = SimpleNamespace(write=transactor.submit, hurry=transactor.hurry)  # type: ignore[assignment]

    def wait(outgoing: Outgoing) -> None:
        held.wait(10.0)

    cluster.refuses = wait  # type: ignore[assignment]
    member.broker.log(ORDERS).append(b"a")
    member.read()
    member.work(answer)
    transactor.start()

    def revoke() -> None:
        transactor.revoking(GROUP)
        transactor.commit_last(GROUP, [ORDERS])

    revocation = threading.Thread(target=revoke, daemon=True)
    revocation.start()
    wait_until(lambda: cluster.open, 5.0, "a transaction")
    assert revocation.is_alive()
    held.set()
    revocation.join(5.0)
    assert not revocation.is_alive()
    assert (cluster.keys(RESULTS), cluster.commits[ORDERS][0]) == ([b"a"], 1)
    transactor.stop(0.0)
    transactor.close()
    assert not transactor._thread.is_alive()

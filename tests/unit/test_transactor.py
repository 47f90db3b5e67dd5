"""The committer in transactions, turn by turn, over a client that fails as it is told to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from relance.engine.offset_map import decode_map
from relance.errors import Reject
from relance.kafka.cluster import Committed, KafkaRefusedError
from relance.kafka.transactions import Transactor
from relance.record import Outgoing, Record, TopicPartition
from world import DLT, ORDERS, Broker, FakeClock, Member, a_plan


def refusal(
    code: int, *, fatal: bool = False, abort: bool = False, retriable: bool = False
) -> KafkaException:
    return KafkaException(KafkaError(code, "as asked", fatal, retriable, abort))


class Brokers:
    """What is committed for good, whichever client wrote it; and what goes wrong next, by call."""

    def __init__(self) -> None:
        self.records: list[Outgoing] = []
        self.offsets: dict[TopicPartition, tuple[int, str]] = {}
        self.transactions = self.aborted = self.clients = 0
        self.fails: dict[str, list[KafkaException]] = {}
        self.after: set[str] = set()
        """Calls that fail only after they have taken effect."""
        self.refuses: Callable[[str, bytes | None], KafkaError | None] = lambda topic, value: None
        self.missing: set[str] = set()

    def fail(self, call: str, *errors: KafkaException) -> None:
        self.fails.setdefault(call, []).extend(errors)

    def connect(self, on_error: Callable[[KafkaError], None]) -> Client:
        self.clients += 1
        return Client(self)


class Client:
    """A transactional producer, as far as it is used."""

    def __init__(self, brokers: Brokers) -> None:
        self.brokers = brokers
        self.open = False
        self._drop()

    def _drop(self) -> None:
        self.written: list[Outgoing] = []
        self.offsets: dict[TopicPartition, tuple[int, str]] = {}
        self.answers: list[Callable[[], None]] = []

    def _maybe_fail(self, call: str) -> None:
        if self.brokers.fails.get(call):
            raise self.brokers.fails[call].pop(0)

    def init_transactions(self, timeout: float) -> None:
        self._maybe_fail("init")

    def begin_transaction(self) -> None:
        self._maybe_fail("begin")
        assert not self.open
        self.open = True
        self._drop()

    def list_topics(self, topic: str, timeout: float) -> Any:
        error = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART) if topic in self.brokers.missing else None
        told = SimpleNamespace(error=error, partitions={0: SimpleNamespace(leader=1)})
        return SimpleNamespace(topics={topic: told})

    def produce(
        self, topic: str, value: bytes | None, key: bytes | None, headers: Any, on_delivery: Any
    ) -> None:
        assert self.open
        self._maybe_fail("produce")
        error = self.brokers.refuses(topic, value)
        if error is None:
            self.written.append(Outgoing(topic, key, value, headers or []))
        self.answers.append(lambda: on_delivery(error, None))

    def poll(self, timeout: float) -> None:
        answers, self.answers = self.answers, []
        for answer in answers:
            answer()

    def flush(self, timeout: float) -> None:
        self._maybe_fail("flush")
        self.poll(0)

    def send_offsets_to_transaction(self, offsets: Sequence[Any], metadata: object, timeout: float) -> None:
        assert self.open
        self._maybe_fail("offsets")
        for entry in offsets:
            self.offsets[TopicPartition(entry.topic, entry.partition)] = entry.offset, entry.metadata

    def commit_transaction(self, timeout: float) -> None:
        assert self.open
        if "commit" not in self.brokers.after:
            self._maybe_fail("commit")
        self.brokers.records += self.written
        self.brokers.offsets |= self.offsets
        self.brokers.transactions += 1
        self.open = False
        self._maybe_fail("commit")

    def abort_transaction(self, timeout: float) -> None:
        self._maybe_fail("abort")
        self.brokers.aborted += 1
        self.open = False


class GroupClient:
    """The consumer that alone may tell the group's generation."""

    def __init__(self) -> None:
        self.asked = 0

    def consumer_group_metadata(self) -> str:
        self.asked += 1
        return f"generation {self.asked}"


class World:
    """A member whose hand-offs go to a transactor; nothing moves but by `turn`."""

    def __init__(self, records: int = 0, **plan: Any) -> None:
        self.clock = FakeClock()
        self.member = Member(Broker(), self.clock, a_plan(**plan))
        self.brokers = Brokers()
        self.failures = self.member.failures
        self.asked: list[TopicPartition] = []
        self.transactor = Transactor(
            self.member.runtime,
            "source",
            connect=self.brokers.connect,
            committed=self._committed,
            interval=1.0,
            drain_timeout=5.0,
            clock=self.clock.monotonic,
        )
        self.member.runtime.writer = SimpleNamespace(write=self.transactor.submit)  # type: ignore[assignment]
        self.group_client = GroupClient()
        self.assignment = self.member.assign(ORDERS)
        for n in range(records):
            self.member.broker.log(ORDERS).append(b"%d" % n, b"%d" % n)
        self.member.read()

    def _committed(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, Committed]:
        self.asked += tps
        return {tp: Committed(*self.brokers.offsets.get(tp, (-1, ""))) for tp in tps}

    def work(self, handler: Callable[[Record], None]) -> None:
        self.member.work(handler)

    def turn(self) -> None:
        self.transactor.commit_if_due(self.group_client)  # type: ignore[arg-type]
        self.transactor.turn()
        self.clock.advance(20.0)

    @property
    def committed(self) -> int:
        return self.brokers.offsets.get(ORDERS, (-1, ""))[0]

    @property
    def letters(self) -> int:
        return sum(o.topic == DLT for o in self.brokers.records)


def reject(record: Record) -> None:
    raise Reject("no")


def reject_even(record: Record) -> None:
    if record.offset % 2 == 0:
        raise Reject("no")


# -- as it should be ---------------------------------------------------------------------------------


def test_hand_offs_and_the_offsets_that_count_them_are_in_one_transaction() -> None:
    world = World(10)
    world.work(reject_even)
    assert (world.committed, world.letters) == (-1, 0)
    world.turn()
    assert (world.committed, world.letters, world.brokers.transactions) == (10, 5, 1)
    assert world.member.runtime.look().settling == 0


def test_offsets_alone_are_a_transaction_too_and_nothing_is_none() -> None:
    world = World(3)
    world.work(lambda record: None)
    world.turn()
    assert (world.committed, world.letters, world.brokers.transactions) == (3, 0, 1)
    world.turn()
    assert world.brokers.transactions == 1


def test_what_a_hand_off_finishes_above_the_frontier_is_in_the_map_of_the_same_commit() -> None:
    world = World(4, ordering="none")
    held = world.member.take(1)
    assert held is not None
    world.member.begin(held)
    world.work(reject)
    world.turn()
    offset, metadata = world.brokers.offsets[ORDERS]
    found = decode_map(metadata, "id-of-orders", offset)
    assert offset == 0
    assert found is not None
    assert found.unfinished == (0,)
    assert found.end == 4
    assert world.letters == 3


def test_what_a_handler_sends_goes_with_its_offset() -> None:
    world = World(2)
    world.work(lambda record: record.send("out", record.raw, key=record.key))
    world.turn()
    assert [(o.topic, o.value) for o in world.brokers.records] == [("out", b"0"), ("out", b"1")]
    assert world.committed == 2


# -- as it should not be -----------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["produce", "flush", "offsets", "commit"])
def test_a_transaction_that_must_be_aborted_is_made_again_whole(call: str) -> None:
    world = World(4)
    world.work(reject_even)
    world.brokers.fail(call, refusal(KafkaError.INVALID_TXN_STATE, abort=True))
    world.turn()
    assert (world.committed, world.letters, world.brokers.aborted) == (-1, 0, 1)
    assert world.member.runtime.look().settling == 2
    world.turn()
    assert (world.committed, world.letters) == (4, 2)
    assert world.failures == []


@pytest.mark.parametrize("call", ["init", "begin", "produce", "flush", "offsets", "commit", "abort"])
def test_after_a_fatal_error_another_client_goes_on_and_each_letter_is_there_once(call: str) -> None:
    world = World(4)
    world.work(reject_even)
    if call == "abort":
        world.brokers.fail("offsets", refusal(KafkaError.INVALID_TXN_STATE, abort=True))
    world.brokers.fail(call, refusal(KafkaError._FATAL, fatal=True))
    for _ in range(3):
        world.turn()
    assert (world.committed, world.letters) == (4, 2)
    assert world.brokers.clients == 2
    assert world.failures == []


def test_an_end_without_an_answer_that_took_effect_is_found_out_and_not_made_again() -> None:
    world = World(4)
    world.work(reject_even)
    world.brokers.after.add("commit")
    world.brokers.fail("commit", refusal(KafkaError._FATAL, fatal=True))
    world.turn()
    assert world.member.runtime.look().settling == 0  # it is counted as finished until more is known
    world.turn()
    assert world.asked == [ORDERS]
    assert (world.committed, world.letters, world.brokers.transactions) == (4, 2, 1)
    world.turn()
    assert world.letters == 2


def test_an_end_without_an_answer_that_took_no_effect_is_made_again() -> None:
    world = World(4)
    world.work(reject_even)
    world.brokers.fail("commit", refusal(KafkaError._FATAL, fatal=True))
    world.turn()
    assert world.letters == 0
    world.turn()
    assert world.asked == [ORDERS]
    assert (world.committed, world.letters, world.brokers.transactions) == (4, 2, 1)


def test_what_may_pass_is_asked_again_within_the_turn() -> None:
    world = World(2)
    world.work(reject)
    for call in ("init", "offsets", "commit"):
        world.brokers.fail(call, refusal(KafkaError._TIMED_OUT, retriable=True))
    world.turn()
    assert (world.committed, world.letters) == (2, 2)
    assert world.brokers.clients == 1


def test_a_generation_that_is_over_is_asked_for_anew() -> None:
    world = World(2)
    world.work(reject)
    world.brokers.fail("offsets", refusal(KafkaError.ILLEGAL_GENERATION, abort=True))
    world.turn()
    before = world.group_client.asked
    world.turn()
    assert world.group_client.asked > before
    assert (world.committed, world.letters) == (2, 2)


def test_a_hand_off_of_a_partition_that_is_gone_is_never_written() -> None:
    world = World(2)
    world.work(reject)
    world.member.lose(ORDERS)
    world.turn()
    assert (world.letters, world.brokers.offsets) == (0, {})


def test_a_partition_lost_between_the_write_and_the_commit_aborts_the_transaction() -> None:
    world = World(2)
    world.work(reject)

    def lose_meanwhile(topic: str, value: bytes | None) -> None:
        world.member.lose(ORDERS)

    world.brokers.refuses = lose_meanwhile  # type: ignore[assignment]
    world.turn()
    assert (world.letters, world.brokers.offsets, world.brokers.aborted) == (0, {}, 1)


def test_a_letter_that_is_refused_stops_its_partition_and_holds_up_no_other() -> None:
    other = TopicPartition("orders", 1)
    world = World(3)
    world.member.assign(other)
    for _ in range(3):
        world.member.broker.log(other).append(b"o", b"good")
    world.member.read(other)

    def refuse(topic: str, value: bytes | None) -> KafkaError | None:
        poison = topic == DLT and b'"originalPartition":0,"originalOffset":1' in (value or b"")
        return KafkaError(KafkaError.MSG_SIZE_TOO_LARGE) if poison else None

    world.brokers.refuses = refuse
    world.work(lambda record: reject(record) if record.partition == 0 else record.send("out", b""))
    for _ in range(6):
        world.turn()
    stopped = world.member.runtime.look().stopped
    assert list(stopped) == ["orders-0"]
    assert "MSG_SIZE_TOO_LARGE" in stopped["orders-0"]
    assert world.brokers.offsets[other][0] == 3
    assert world.committed == 1
    assert world.letters == 2
    world.brokers.refuses = lambda topic, value: None
    for _ in range(3):
        world.turn()
    assert (world.committed, world.letters) == (3, 3)
    assert world.member.runtime.look().stopped == {}


def test_a_topic_that_is_not_there_aborts_nothing_and_is_waited_for() -> None:
    world = World(3)
    world.brokers.missing.add(DLT)
    world.work(lambda record: reject(record) if record.offset == 1 else None)
    for _ in range(3):
        world.turn()
    assert (world.committed, world.letters, world.brokers.aborted) == (1, 0, 0)
    assert "orders-0" in world.member.runtime.look().stopped
    world.brokers.missing.clear()
    for _ in range(3):
        world.turn()
    assert (world.committed, world.letters) == (3, 1)


def test_metadata_that_the_broker_finds_too_large_is_made_shorter() -> None:
    world = World(2)
    world.work(lambda record: None)
    before = world.assignment.map_limit
    world.brokers.fail("offsets", refusal(KafkaError.OFFSET_METADATA_TOO_LARGE, abort=True))
    world.turn()
    assert world.assignment.map_limit < before
    world.turn()
    assert world.committed == 2


def test_a_missing_acl_is_told_with_what_to_allow() -> None:
    world = World(1)
    world.work(reject)
    world.brokers.fail("init", refusal(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, fatal=True))
    world.turn()
    (failure,) = world.failures
    assert isinstance(failure, KafkaRefusedError)
    assert "ACLs Write and Describe" in str(failure)


# -- leaving -----------------------------------------------------------------------------------------


def test_without_anything_left_a_revocation_waits_for_nothing() -> None:
    world = World(0)
    world.turn()
    world.transactor.revoking(world.group_client)  # type: ignore[arg-type]
    before = world.clock.now
    world.transactor.commit_last(world.group_client, [ORDERS])  # type: ignore[arg-type]
    assert world.clock.now == before


def test_what_is_left_at_a_revocation_is_written_before_it_returns() -> None:
    world = World(4)
    world.transactor._clock = __import__("time").monotonic
    world.transactor.start()
    try:
        world.transactor.commit_if_due(world.group_client)  # type: ignore[arg-type]
        world.work(reject_even)
        world.transactor.revoking(world.group_client)  # type: ignore[arg-type]
        world.transactor.commit_last(world.group_client, [ORDERS])  # type: ignore[arg-type]
        assert (world.committed, world.letters) == (4, 2)
    finally:
        world.transactor.close()
    assert not world.transactor._thread.is_alive()

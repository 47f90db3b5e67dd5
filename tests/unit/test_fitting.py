"""Batches that topics take, over clients that do as the test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError

from relance.delivery import Sent
from relance.errors import SendError
from relance.kafka import fitting
from relance.kafka.fitting import FittingProducer
from relance.kafka.limits import ALONE, TopicLimits
from world import FakeClock

ORDINARY = 1_000_000
REFUSED = SendError("refused", maybe_written=False, code=KafkaError.MSG_SIZE_TOO_LARGE)
AWAY = SendError("timed out", maybe_written=True, code=KafkaError._MSG_TIMED_OUT)


class Client:
    """What was sent waits until the test answers it."""

    def __init__(self, common: object, *, name: str, batch: int = ORDINARY, **_: object) -> None:
        self.batch = batch
        self.on_tick: list[Callable[[], None]] = []
        self.out: list[tuple[bytes, Callable[..., None]]] = []
        self.full = False
        self.closed = False

    def check(self, topic: str, value: bytes | None, key: bytes | None, headers: object) -> None:
        if value is not None and len(value) > ORDINARY:
            raise REFUSED

    def send(self, topic: str, value: bytes, *, answer: Callable[..., None], **_: Any) -> None:
        if self.closed or self.full:
            raise SendError("closed or full", maybe_written=False)
        self.out.append((value, answer))

    def write(self, count: int | None = None) -> list[bytes]:
        """The oldest are acknowledged."""
        return self._answer(count, None)

    def refuse(self, count: int | None = None, error: SendError = REFUSED) -> list[bytes]:
        return self._answer(count, error)

    def _answer(self, count: int | None, error: SendError | None) -> list[bytes]:
        count = len(self.out) if count is None else count
        some, self.out = self.out[:count], self.out[count:]
        for _, answer in some:
            answer(error, None if error else Sent("t", 0, 0))
        return [value for value, _ in some]

    def flush(self, timeout: float) -> int:
        self.write()
        return 0

    def close(self, timeout: float) -> int:
        self.closed = True
        return 0


class World:
    """A producer whose topic `t` is known to take everything, until it refuses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, ordered: bool = True) -> None:
        self.clients: dict[int, Client] = {}
        self.clock = FakeClock()
        monkeypatch.setattr(fitting, "time", self.clock)
        self.limits = TopicLimits({}, clock=self.clock.monotonic)
        self.limits._known["t"] = ORDINARY
        self.producer = FittingProducer(
            {}, name="n", timeout=1.0, limits=self.limits, ordered=ordered, connect=self.connect
        )
        self.answers: dict[bytes, SendError | None] = {}

    def connect(self, common: object, **given: Any) -> Any:
        client = Client(common, **{k: v for k, v in given.items() if k != "timeout"})
        self.clients[client.batch] = client
        return client

    def send(self, *values: bytes, topic: str = "t") -> None:
        for value in values:

            def answer(error: SendError | None, sent: Sent | None, value: bytes = value) -> None:
                assert value not in self.answers, "answered twice"
                self.answers[value] = error

            self.producer.send(topic, value, key=value[:1], answer=answer)

    def written(self) -> list[bytes]:
        return [value for value, error in self.answers.items() if error is None]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_refused_batch_is_cut_when_all_is_answered_and_what_came_meanwhile_follows(world: World) -> None:
    world.send(b"a1", b"b1", b"c1")
    world.clients[ORDINARY].refuse(2)
    world.send(b"a2")
    assert world.answers == {}
    assert list(world.clients) == [ORDINARY]
    world.clients[ORDINARY].write(1)  # c1 was in a batch of its own
    assert world.clients[ALONE].write() == [b"a1", b"b1", b"a2"]
    assert world.written() == [b"c1", b"a1", b"b1", b"a2"]
    world.clock.advance(301.0)
    world.send(b"a3")
    assert world.clients[ORDINARY].write() == [b"a3"]


def test_one_that_is_refused_alone_is_too_large_itself_and_no_other_waits_for_it(world: World) -> None:
    world.send(b"a1")
    world.clients[ORDINARY].refuse()
    world.send(b"b1")
    world.clients[ALONE].refuse(1)
    assert "max.message.bytes" in str(world.answers[b"a1"])
    assert world.clients[ALONE].write() == [b"b1"]
    world.limits._refused.clear()
    world.limits._known["t"] = 5_000
    large = b"l" * 4_500
    world.send(large, b"b2")
    world.clients[4_096].refuse(1)  # it had a batch of its own, being larger than one
    assert "4501 bytes" in str(world.answers[large])
    assert world.clients[4_096].write() == [b"b2"]


def test_one_whose_successor_is_written_already_is_refused_where_the_order_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for ordered in (True, False):
        world = World(monkeypatch, ordered=ordered)
        world.send(b"a1", b"b1", b"a2")
        world.clients[ORDINARY].refuse(2)
        world.clients[ORDINARY].write()
        world.clients[ALONE].write()
        assert world.written() == ([b"a2", b"b1"] if ordered else [b"a2", b"a1", b"b1"])
        if ordered:
            problem = world.answers[b"a1"]
            assert problem is not None
            assert not problem.maybe_written
            assert "a later record of its key" in str(problem)


def test_other_failures_are_nobody_s_batch(world: World) -> None:
    world.send(b"a1")
    world.clients[ORDINARY].refuse(error=AWAY)
    assert world.answers == {b"a1": AWAY}
    assert list(world.clients) == [ORDINARY]


def test_the_first_records_of_a_topic_wait_until_it_is_known_what_it_takes(world: World) -> None:
    world.send(b"a1", b"a2", topic="new")
    assert world.limits.wanted.is_set()
    assert world.clients[ORDINARY].out == []
    with pytest.raises(SendError):
        world.send(b"x" * 2_000_000, topic="new")
    world.limits._known["new"] = 5_000
    world.clients[ORDINARY].on_tick[0]()
    world.send(b"a3", topic="new")
    assert world.clients[4_096].write() == [b"a1", b"a2", b"a3"]
    world.send(b"b1", topic="unsaid")
    world.clock.advance(1.0)
    world.clients[ORDINARY].on_tick[0]()
    assert world.clients[ORDINARY].write() == [b"b1"]


def test_a_topic_changes_its_client_only_while_none_of_it_is_out(world: World) -> None:
    world.send(b"a1")
    world.limits._known["t"] = 5_000
    world.send(b"a2")
    assert world.clients[ORDINARY].write() == [b"a1", b"a2"]
    world.send(b"a3")
    assert world.clients[4_096].write() == [b"a3"]


def test_a_flush_and_a_close_leave_none_that_waits(world: World) -> None:
    world.send(b"a1", topic="new")
    assert world.producer.flush(1.0) == 0
    assert world.written() == [b"a1"]
    world.send(b"b1", topic="other")
    assert world.producer.close(1.0) == 0
    assert world.written() == [b"a1", b"b1"]
    for topic in ("new", "newest"):
        with pytest.raises(SendError):
            world.send(b"c1", topic=topic)


def test_what_the_next_client_does_not_take_is_answered_and_holds_up_no_other(world: World) -> None:
    world.send(b"a1", b"b1")
    world.clients[ORDINARY].refuse(2)
    world.clients[ALONE].write(1)
    world.clients[ALONE].refuse(1, AWAY)
    world.send(b"c1")
    world.clients[ALONE].full = True
    with pytest.raises(SendError):
        world.send(b"c2")
    world.clients[ALONE].full = False
    world.clients[ALONE].write()
    assert world.written() == [b"a1", b"c1"]

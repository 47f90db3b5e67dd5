"""Whatever is refused when: each record has one answer, and a key's written records stay in their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError
from hypothesis import given
from hypothesis import strategies as st

from relance.delivery import Sent
from relance.errors import SendError
from relance.kafka import fitting
from relance.kafka.fitting import FittingProducer
from relance.kafka.limits import ALONE, TopicLimits
from world import FakeClock

ORDINARY = 1_000_000


class Client:
    """Batches wait until they are answered, in their order; a batch of one record is never refused."""

    def __init__(self, batch: int, log: list[int]) -> None:
        self.batch = batch
        self.on_tick: list[Callable[[], None]] = []
        self.out: list[tuple[int, Callable[..., None]]] = []
        self._log = log

    def send(self, topic: str, value: bytes, *, answer: Callable[..., None], **_: Any) -> None:
        self.out.append((int(value), answer))

    def check(self, *_: object) -> None:
        """All may be sent."""

    def flush(self, timeout: float) -> int:
        self.answer(len(self.out), takes=True)
        return 0

    def close(self, timeout: float) -> int:
        return 0

    def answer(self, count: int, *, takes: bool) -> None:
        batch, self.out = self.out[:count], self.out[count:]
        takes = takes or self.batch == ALONE
        refused = SendError("refused", maybe_written=False, code=KafkaError.MSG_SIZE_TOO_LARGE)
        for number, answer in batch:
            if takes:
                self._log.append(number)
            answer(*((None, Sent("t", 0, 0)) if takes else (refused, None)))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 2)),
        st.tuples(st.sampled_from(["write", "refuse"]), st.integers(1, 4)),
        st.tuples(st.just("learn"), st.sampled_from([500, 5_000, 50_000, 5_000_000])),
        st.tuples(st.just("wait"), st.integers(1, 400)),
    ),
    max_size=60,
)


@given(steps=STEPS, ordered=st.booleans(), known=st.booleans())
def test_each_has_one_answer_and_a_key_keeps_its_order(
    steps: list[tuple[str, int]], ordered: bool, known: bool
) -> None:
    clock, log = FakeClock(), list[int]()
    clients: list[Client] = []

    def connect(common: object, *, batch: int = ORDINARY, **_: object) -> Any:
        clients.append(Client(batch, log))
        return clients[-1]

    before, fitting.time = fitting.time, clock  # type: ignore[assignment]
    try:
        limits = TopicLimits({}, clock=clock.monotonic)
        if known:
            limits._learned("t", ORDINARY, 0.0)
        producer = FittingProducer({}, name="n", timeout=1.0, limits=limits, ordered=ordered, connect=connect)
        answers: dict[int, list[bool]] = {}
        keys: dict[int, int] = {}
        for step, number in steps:
            if step == "send":
                record = len(keys)
                keys[record] = number
                told = answers.setdefault(record, [])
                producer.send(
                    "t",
                    b"%d" % record,
                    key=b"%d" % number,
                    answer=lambda error, sent, told=told: told.append(error is None),  # type: ignore[misc]
                )
            elif step == "learn":
                limits._learned("t", number, clock.monotonic())
            elif step == "wait":
                clock.advance(float(number))
                producer.on_tick[0]()
            else:
                for client in [client for client in clients if client.out][:1]:
                    client.answer(number, takes=step == "write")
        producer.flush(1.0)
    finally:
        fitting.time = before
    assert all(len(told) == 1 for told in answers.values()), "answered once"
    assert sorted(log) == [record for record, told in answers.items() if told == [True]]
    if ordered:
        for key in set(keys.values()):
            written = [record for record in log if keys[record] == key]
            assert written == sorted(written)
    else:
        assert len(log) == len(keys), "all are written"

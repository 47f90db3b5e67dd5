"""What the producer says of its client, from statistics made by hand; its broker is away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError

from relance import burst
from relance.delivery import Sent
from relance.errors import SendError
from relance.kafka import producer as module
from relance.kafka.producer import KafkaProducer

NOBODY = "127.0.0.1:1"


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch) -> Iterator[KafkaProducer]:
    monkeypatch.setattr(module, "_STATS_MS", 0)  # none but ours
    found = KafkaProducer({"bootstrap.servers": NOBODY}, name="away", timeout=60.0)
    yield found
    found.close(0.0)


def write_and_be_answered(producer: KafkaProducer) -> None:
    producer.send("t", b"x", answer=lambda error, sent: None)
    for ticket in list(producer._out):
        producer._answer(ticket, None, None)


def test_a_new_epoch_is_told_if_anything_was_on_its_way_since_the_last_look(
    producer: KafkaProducer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(burst, "_TELL_AGAIN", 0.0)
    epochs: set[tuple[int, int]] = set()

    def look(epoch: int) -> int:
        caplog.clear()
        text = json.dumps({"eos": {"producer_id": 7 if epoch >= 0 else -1, "producer_epoch": epoch}})
        producer._on_statistics(0, epochs, text)
        return caplog.text.count("took a new epoch")

    write_and_be_answered(producer)
    assert look(-1) == 0
    write_and_be_answered(producer)
    assert look(0) == 0  # the first one is no news
    write_and_be_answered(producer)
    assert look(0) == 0
    write_and_be_answered(producer)
    assert look(1) == 1
    assert look(2) == 0  # nothing was on its way
    producer.send("t", b"x", answer=lambda error, sent: None)
    assert look(3) == 1
    assert look(4) == 1  # it still is


def test_new_epochs_of_an_outage_are_one_line_in_half_a_minute(
    producer: KafkaProducer, caplog: pytest.LogCaptureFixture
) -> None:
    epochs: set[tuple[int, int]] = set()
    producer.send("t", b"x", answer=lambda error, sent: None)
    for epoch in range(20):
        text = json.dumps({"eos": {"producer_id": 7, "producer_epoch": epoch}})
        producer._on_statistics(0, epochs, text)
    assert caplog.text.count("took a new epoch") == 1


def test_the_new_epoch_of_a_batch_that_was_too_large_doubles_nothing_and_is_not_told(
    producer: KafkaProducer, caplog: pytest.LogCaptureFixture
) -> None:
    epochs = {(7, 0)}
    producer.send("t", b"x", answer=lambda error, sent: None)
    message: Any = SimpleNamespace(topic=lambda: "t")
    [ticket] = producer._out
    producer._delivered(0, ticket, KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), message)
    producer.send("t", b"x", answer=lambda error, sent: None)
    producer._on_statistics(0, epochs, json.dumps({"eos": {"producer_id": 7, "producer_epoch": 1}}))
    assert caplog.text == ""


def test_what_the_client_itself_does_not_send_names_the_client_s_setting_and_the_size(
    producer: KafkaProducer,
) -> None:
    for refuse in (producer.send, producer.check):
        more: Any = {"answer": lambda error, sent: None} if refuse == producer.send else {"headers": ()}
        with pytest.raises(SendError, match=r"2000001 bytes, and this client sends .* 1000000") as caught:
            refuse("t", b"x" * 2_000_000, key=b"k", **more)
        assert "message.max.bytes" in str(caught.value)
        assert not caught.value.maybe_written


@pytest.mark.parametrize(("told", "offset"), [(0, 0), (16, 16), (None, -1)])
def test_a_repeated_write_that_the_broker_has_already_is_acknowledged_without_an_offset(
    producer: KafkaProducer, told: int | None, offset: int
) -> None:
    """librdkafka: DUPLICATE_SEQUENCE_NUMBER is a success whose offset is not known."""
    answers: list[Any] = []
    producer.send("t", b"x", answer=lambda error, sent: answers.append(error or sent))
    message: Any = SimpleNamespace(topic=lambda: "t", partition=lambda: 2, offset=lambda: told)
    [ticket] = producer._out
    producer._delivered(0, ticket, None, message)
    assert answers == [Sent("t", 2, offset)]


def test_one_record_that_has_left_since_is_enough_for_a_doubt(
    producer: KafkaProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []

    def answer(error: SendError | None, sent: Sent | None) -> None:
        assert error is not None
        told.append(error.maybe_written)

    message: Any = SimpleNamespace(topic=lambda: "t")
    timed_out = KafkaError(KafkaError._MSG_TIMED_OUT)
    for left in (0, 1):
        producer.send("t", b"x", answer=answer)
        *_, ticket = producer._out
        producer._transmitted = left
        producer._delivered(0, ticket, timed_out, message)
        producer._statistics_at = 1e18
        producer._resolve_doubts(final=True)
    assert told == [False, True]

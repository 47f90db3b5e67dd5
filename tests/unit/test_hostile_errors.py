"""Errors that hit back when they are looked at: each costs its own record, never the consumer."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from relance.dead_letters.envelope import decode
from relance.decoding import decoder_for, handler_shape
from relance.errors import BatchError
from relance.policies.classify import VerdictKind, classify
from relance.policies.retry import RetryPolicy
from relance.record import Record
from relance.text import said
from relance.workers.batch import BatchCall
from relance.workers.travel import packed, unpacked
from world import ORDERS, RETRY, a_member


class AnswersLikeADictionary(Exception):
    def __getattr__(self, name: str) -> object:
        raise KeyError(name)


class HasNoAnswerYet(Exception):
    @property
    def next_retry_delay(self) -> float:
        raise RuntimeError("there was no response")


class DoesNotKnowWhetherToRetry(Exception):
    @property
    def non_retryable(self) -> bool:
        raise LookupError("not set")


class HasNoText(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class TextIsNone(Exception):
    def __str__(self) -> str:
        return None  # type: ignore[return-value]


class Box:
    """What a library puts into its error."""

    def __getattr__(self, name: str) -> object:
        raise KeyError(name)


def in_a_circle() -> Exception:
    error, cause = ValueError("a"), ValueError("b")
    error.__cause__, cause.__cause__ = cause, error
    return error


def at_the_end_of_a_long_chain() -> Exception:
    error = ValueError("0")
    for n in range(3_000):
        later = ValueError(str(n))
        later.__cause__, error = error, later
    return error


HOSTILE: list[Callable[[], Exception]] = [
    AnswersLikeADictionary,
    HasNoAnswerYet,
    DoesNotKnowWhetherToRetry,
    HasNoText,
    TextIsNone,
    lambda: ValueError("\ud800"),
    lambda: ValueError(b"\xff"),
    lambda: ValueError("x" * 2_000_000),
    in_a_circle,
    at_the_end_of_a_long_chain,
]


def its_name(make: Callable[[], Exception]) -> str:
    return make.__name__


@pytest.mark.parametrize("make", HOSTILE, ids=its_name)
def test_a_hostile_error_dead_letters_its_record_and_the_next_one_is_handled(
    make: Callable[[], Exception],
) -> None:
    member = a_member()
    check_it_costs_one_record(member, make)
    assert decode(member.writes[0].outgoing.value).original_offset == 0
    member.ack()
    assert member.commit() == 2


@pytest.mark.parametrize("make", HOSTILE, ids=its_name)
def test_a_hostile_error_is_written_into_a_retry_record_too(make: Callable[[], Exception]) -> None:
    everything = RetryPolicy.fixed(60.0, max_attempts=3, retry_on=Exception)
    member = a_member(retry_topic=RETRY, retry=everything, max_in_memory_wait=1.0)
    check_it_costs_one_record(member, make)
    assert member.writes[0].outgoing.topic == RETRY
    member.ack()
    assert member.commit() == 2


def check_it_costs_one_record(member: Any, make: Callable[[], Exception]) -> None:
    for _ in range(2):
        member.broker.log(ORDERS).append()
    member.read()
    handled = []

    def handle(record: Record) -> None:
        handled.append(record.offset)
        if record.offset == 0:
            raise make()

    escaped = None
    try:
        member.work(handle)
    except Exception as error:  # shown by its class: pytest, too, looks at errors
        escaped = type(error)
    assert escaped is None
    assert handled == [0, 1]
    assert member.failures == []
    assert len(member.writes) == 1


@pytest.mark.parametrize("kind", [AnswersLikeADictionary, HasNoAnswerYet, DoesNotKnowWhetherToRetry])
def test_an_attribute_that_cannot_be_read_says_nothing_and_the_policy_is_asked(
    kind: type[Exception],
) -> None:
    assert judge(kind(), RetryPolicy()) == (VerdictKind.NON_RETRYABLE, None)
    assert judge(kind(), RetryPolicy(retry_on=(Exception,))) == (VerdictKind.RETRYABLE, None)


def test_an_error_that_carries_something_hostile_is_judged_by_its_type() -> None:
    assert judge(ValueError(Box()), RetryPolicy()) == (VerdictKind.NON_RETRYABLE, None)
    assert judge(ValueError(Box()), RetryPolicy(retry_on=(ValueError,))) == (VerdictKind.RETRYABLE, None)


def judge(error: Exception, policy: RetryPolicy) -> object:
    """Its kind and delay; what comes out of it only by its class, because pytest, too, looks at errors."""
    try:
        verdict = classify(error, policy)
    except Exception as escaped:
        return type(escaped)
    return verdict.kind, verdict.delay


class Unspeakable:
    """What has no repr."""

    def __repr__(self) -> str:
        raise ValueError("no repr")


class EndsWhenShown(BaseException):
    def __repr__(self) -> str:
        raise ValueError("no repr")

    __str__ = __repr__


@pytest.mark.parametrize("make", HOSTILE, ids=its_name)
def test_a_factory_that_fails_hostilely_is_told_as_a_decode_error(make: Callable[[], Exception]) -> None:
    def wrong() -> str:
        raise make()

    @dataclasses.dataclass
    class Order:
        note: str = dataclasses.field(default_factory=wrong)

    decoding = decoder_for(Order)
    with pytest.raises(decoding.errors) as caught:
        decoding.decode(b"{}")
    told = str(decoding.as_error(caught.value, b"{}"))
    assert told.endswith("(the handler takes Order)")
    assert len(told) < 2_000


NAMED: list[dict[Any, Any]] = [{0: Unspeakable()}, {Unspeakable(): ValueError("x")}, {0: EndsWhenShown()}]


@pytest.mark.parametrize("named", NAMED)
def test_a_batch_error_that_names_what_cannot_be_shown_costs_the_batch_not_the_consumer(
    named: dict[Any, Any],
) -> None:
    def handle(values: list[Any]) -> None:
        raise BatchError(named)

    member = a_member(batch=10)
    for _ in range(2):
        member.broker.log(ORDERS).append()
    member.read()
    call = BatchCall(member.runtime, handle, handler_shape(handle, batch=True), decoder_for(Any))
    while (out := member.take()) is not None:
        if call.handle(out.run, float("inf")):
            member.give_back(out)
    assert member.failures == []
    assert member.writes


def test_an_error_that_cannot_be_shown_comes_home_from_a_child_process() -> None:
    error = ValueError("of the record")
    error.__cause__ = EndsWhenShown()
    home = unpacked(pickle.loads(pickle.dumps(packed(error))))
    assert str(home) == "of the record"
    home = unpacked(pickle.loads(pickle.dumps(packed(ValueError(Unspeakable())))))
    assert said(home) == "ValueError: <no text: its __str__ raised ValueError>"


def test_a_long_value_that_cannot_travel_is_seen_to_be_cut() -> None:
    class Local:
        def __repr__(self) -> str:
            return "x" * 5_000

    home = unpacked(packed(ValueError(Local())))
    assert str(home).rstrip("')").endswith("x…")

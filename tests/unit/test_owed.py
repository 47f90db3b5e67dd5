"""What a record of the retry topic is owed: paid once, to it alone, and never more than it has tried."""

from __future__ import annotations

from relance.engine.deferral import Deferral, Failure, defer
from relance.engine.owed import Owed, origin_of
from relance.record import Record
from world import record


def retried(offset: int, attempt: int) -> Record:
    found = record(offset)
    found.attempt = attempt
    found.history = tuple(Failure(i, "TransientError: 503", 0.0) for i in range(1, attempt))
    found.deferral = a_deferral(offset, attempt)
    return found


def a_deferral(offset: int, attempt: int) -> Deferral:
    return defer(
        group="g",
        topic="orders",
        partition=0,
        offset=offset,
        timestamp=5,
        attempt=attempt,
        delay=1.0,
        now=0.0,
        error="TransientError: 503",
    )


def test_what_is_owed_is_paid_once_and_the_last_tries_are_forgotten() -> None:
    owed = Owed()
    for _ in range(2):
        owed.owe(("orders", 0, 7))
    found = retried(7, attempt=4)
    owed.pay(found)
    assert (found.attempt, [past.attempt for past in found.history]) == (2, [1])
    assert not owed
    owed.pay(found)
    assert found.attempt == 2


def test_no_other_record_is_paid() -> None:
    owed = Owed()
    owed.owe(("orders", 0, 7))
    other, source = retried(8, attempt=3), record(7)
    for found in (other, source):
        owed.pay(found)
    assert (other.attempt, source.attempt, bool(owed)) == (3, 1, True)
    assert origin_of(source) == ("orders", 0, 7)


def test_never_more_than_was_tried() -> None:
    owed = Owed()
    for _ in range(5):
        owed.owe(("orders", 0, 7))
    found = retried(7, attempt=2)
    owed.pay(found)
    assert (found.attempt, found.history) == (1, ())


def test_the_oldest_are_forgotten_first() -> None:
    owed = Owed(limit=2)
    for offset in (1, 2, 1, 3):  # 1 was owed again after 2
        owed.owe(("orders", 0, offset))
    found = [retried(offset, attempt=4) for offset in (1, 2, 3)]
    for one in found:
        owed.pay(one)
    assert [one.attempt for one in found] == [2, 4, 3]

"""Records that have failed: one record's failures are news once, unless nothing has succeeded since."""

from relance.policies import doubts as module
from relance.policies.doubts import Doubts


def test_who_has_not_failed_is_at_fault_only_by_what_succeeded_since_a_given_time() -> None:
    doubts: Doubts[str] = Doubts()
    assert not doubts.own_fault("a")
    doubts.successes = 5
    assert doubts.own_fault("a", since=4)
    assert not doubts.own_fault("a", since=5)


def test_who_fails_again_is_at_fault_once_another_has_succeeded() -> None:
    doubts: Doubts[str] = Doubts()
    doubts.successes = 5
    doubts.note("a", 0, refunded=False)
    assert not doubts.own_fault("a")
    doubts.successes += 1
    assert doubts.own_fault("a")
    assert not doubts.own_fault("a", since=6)
    doubts.note("a", 0, refunded=False)
    assert not doubts.own_fault("a"), "nobody has since"


def test_a_refund_is_remembered_through_later_failures() -> None:
    doubts: Doubts[str] = Doubts()
    doubts.note("a", 0, refunded=False)
    doubts.note("b", 0, refunded=True)
    doubts.refund("a")
    doubts.refund("stranger")
    for who in ("a", "b"):
        doubts.note(who, 3, refunded=False)
        known = doubts.get(who)
        assert known is not None
        assert (known.refunded, known.opening) == (True, 3)
    assert doubts.get("stranger") is None


def test_failures_that_were_left_out_are_taken_once_and_only_if_nothing_succeeded_since() -> None:
    doubts: Doubts[str] = Doubts()
    doubts.note("old", 0, refunded=False, left_out="old 1")
    doubts.successes += 1
    doubts.note("a", 0, refunded=False, left_out="a 1")
    doubts.note("counted", 0, refunded=False)
    doubts.note("b", 0, refunded=False, left_out="b 1")
    assert doubts.take_left_out() == ["a 1", "b 1"]
    assert doubts.take_left_out() == []
    a = doubts.get("a")
    assert a is not None
    assert a.refunded


def test_those_that_failed_longest_ago_are_forgotten() -> None:
    doubts: Doubts[int] = Doubts()
    for who in range(module._LIMIT):
        doubts.note(who, 0, refunded=False)
    doubts.note(0, 0, refunded=False)
    doubts.note("new", 0, refunded=False)
    assert doubts.get(0) is not None
    assert doubts.get(1) is None
    assert doubts.get("new") is not None

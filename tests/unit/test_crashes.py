"""The mark beside a commit, and how an owner goes on that finds one."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from relance.engine.crashes import CALM, WINDOW, Careful, Mark, careful_after, read_mark, with_deaths
from relance.engine.offset_map import mark_text
from relance.errors import CrashLoopError, Reject, Retry, TransientError
from relance.record import Record, TopicPartition
from world import DLT, ORDERS, RETRY, TOPIC_ID, FakeClock, Member, Start, a_member, a_plan

OTHER = TopicPartition("orders", 1)

MARKS = [
    (Mark(True), "o"),
    (Mark(False), "c"),
    (Mark(True, 1, 812), "o1.812"),
    (Mark(True, 2, 812, 307, {307: 1, 12: 3}), "o2.812.307~12x3~307x1"),
    (Mark(False, 2, 812, None, {307: 1}), "c2.812~307x1"),
    (Mark(True, owner="5f01c3a9"), "o=5f01c3a9"),
    (Mark(True, 2, 812, 307, {307: 1}, "5f01c3a9"), "o2.812.307~307x1=5f01c3a9"),
    (Mark(False, 1, 812, owner="5f01c3a9", dead="e42b0077"), "c1.812=5f01c3a9-e42b0077"),
]


@pytest.mark.parametrize(("mark", "text"), MARKS)
def test_a_mark_survives_its_text(mark: Mark, text: str) -> None:
    assert mark.text() == text
    assert read_mark(text) == mark


@pytest.mark.parametrize(
    "text",
    ["", "x", "o3.5", "o1", "o2.", "o1.-5", "o ", "o\n", "o~5", "o~5x1234567", "o1.99999999999999999999",
     "o1.٣", "o" + "~1x1" * 17, "c2.5.6.7", "o=", "o=xyz", "o=" + "a" * 17, "o=a=b", "=a", "o=A", "o-a",
     "o=a-", "o=a-b-c"],
)  # fmt: skip
def test_a_text_that_no_owner_writes_is_no_mark(text: str) -> None:
    assert read_mark(text) is None


def test_a_mark_of_another_incarnation_of_the_topic_is_none() -> None:
    assert mark_text("r1:T1:o:-", "T0") == ""
    assert mark_text("another program's", "T0") == ""
    assert mark_text("r1:T0:o2.5.3:-", "T0") == "o2.5.3"


def test_of_many_counts_the_highest_are_written() -> None:
    crashes = dict.fromkeys(range(40), 1) | {77: 5}
    found = read_mark(Mark(True, 1, 812, None, crashes).text())
    assert found is not None
    assert len(found.crashes) == 16
    assert found.crashes[77] == 5


@pytest.mark.parametrize(
    ("mark", "level", "crashes"),
    [
        (None, None, None),
        (Mark(False), None, None),
        (Mark(True), 1, {}),
        (Mark(False, 1, 600), 1, {}),
        (Mark(True, 1, 600), 2, {}),
        (Mark(True, 1, 100), 1, {}),
        (Mark(False, 2, 600, None, {120: 1}), 2, {120: 1}),
        (Mark(True, 2, 600, 120, {120: 1, 130: 1}), 2, {120: 2, 130: 1}),
        (Mark(True, 2, 600, 99, {99: 1}), 2, {}),
    ],
)
def test_how_to_go_on_follows_from_the_mark(mark: Mark | None, level: int | None, crashes: Any) -> None:
    found = careful_after(mark, 100, 2)
    assert (None if found is None else found.level) == level
    assert found is None or found.crashes == crashes


@pytest.mark.parametrize(
    ("mark", "offsets", "text"),
    [
        (Mark(True), {7}, "o2.8~7x1"),
        (Mark(False), {7, 3}, "o2.8~3x1~7x1"),
        (Mark(True, 1, 512, None, {7: 1}), {7}, "o2.8~7x2"),
        (Mark(True, 2, 512, 9, {9: 1, 4: 2}), {9}, "o2.512~4x2~9x2"),
    ],
)
def test_deaths_that_are_certain_are_counted_by_who_dies(mark: Mark, offsets: set[int], text: str) -> None:
    assert with_deaths(mark, offsets).text() == text


def test_none_is_condemned_where_that_is_not_wanted() -> None:
    assert Careful(0, None, {5: 9}, 0).condemned == set()
    assert Careful(0, None, {5: 9, 6: 1}, 2).condemned == {5}


# -- at work ------------------------------------------------------------------------------------------


def offsets(member: Member) -> list[int]:
    """Work as far as it goes; what was handled."""
    found: list[int] = []
    member.work(lambda record: found.append(record.log_offset))
    return found


def mark_at(member: Member, tp: TopicPartition = ORDERS) -> str:
    return mark_text(member.broker.commits[tp][1], TOPIC_ID)


def a_member_after(mark: str, count: int, **given: Any) -> Member:
    """Of a world in which `count` records lie above the offset 0 that an owner committed with `mark`."""
    member = a_member(**given)
    member.restart()
    for _ in range(count):
        member.broker.log(ORDERS).append(None if given.get("ordering") == "key" else b"k")
    member.broker.commits[ORDERS] = (0, f"r1:{TOPIC_ID}:{mark}:-")
    member.assign(ORDERS)
    return member


def test_a_clean_life_says_open_at_once_and_closed_at_its_end_and_waits_for_nothing() -> None:
    member = a_member()
    assert member.runtime.urgent("source")
    for _ in range(3):
        member.broker.log(ORDERS).append()
    member.read()
    assert offsets(member) == [0, 1, 2]
    member.commit()
    assert mark_at(member) == "o"
    assert not member.runtime.urgent("source")
    assert not member.runtime.careful("source")
    member.revoke(ORDERS)
    assert mark_at(member) == "c"


def test_after_a_death_nothing_starts_beyond_the_window_that_the_broker_knows() -> None:
    member = a_member_after("o", 2 * WINDOW)
    member.read(count=5000)
    assert offsets(member) == []
    assert member.runtime.urgent("source")
    member.commit()
    assert mark_at(member) == f"o1.{WINDOW}"
    assert offsets(member) == list(range(WINDOW))
    assert member.runtime.urgent("source")
    member.commit()
    assert offsets(member) == list(range(WINDOW, 2 * WINDOW))


def test_a_minute_without_a_death_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "relance.crashes")
    member = a_member_after("o", 5)
    assert "orders-0: careful" in caplog.text
    assert "its last owner died (or lost it)" in caplog.text
    assert member.runtime.look().careful.keys() == {"orders-0"}
    member.commit()
    assert isinstance(member.clock, FakeClock)
    member.clock.advance(CALM)
    member.commit()
    assert "careful no more" in caplog.text
    assert member.runtime.look().careful == {}
    assert mark_at(member) == "o"


@pytest.mark.parametrize("ordering", ["partition", "key"])
def test_after_a_death_in_a_window_each_record_starts_alone_and_named(ordering: str) -> None:
    member = a_member_after("o1.3", 5, ordering=ordering)
    member.read()
    seen = []
    for _ in range(3):
        assert offsets(member) == []
        member.commit()
        seen.append(mark_at(member))
        done = offsets(member)
        assert len(done) == 1
    assert seen == ["o2.3.0", "o2.3.1", "o2.3.2"]
    member.commit()  # the window is done
    assert mark_at(member).startswith("o1.")
    assert offsets(member) == [3, 4]


def test_the_log_that_ends_within_the_window_ends_it_too() -> None:
    member = a_member_after("o1.512", 1)
    member.read()
    offsets(member)
    member.commit()
    assert offsets(member) == [0]
    member.commit()
    assert mark_at(member).startswith("o1.")


def test_a_record_that_waits_for_a_long_retry_holds_the_window_only_for_seconds() -> None:
    member = a_member_after("o1.1", 3, ordering="key")
    member.read()

    def wait_long(record: Record) -> None:
        raise Retry(after=600.0)

    assert offsets(member) == []
    member.commit()
    member.work(wait_long)
    member.commit()
    assert offsets(member) == []
    assert mark_at(member) == "o2.1"
    assert isinstance(member.clock, FakeClock)
    member.clock.advance(6.0)
    member.commit()
    assert mark_at(member).startswith("o1.")
    assert offsets(member) == [1, 2]


def test_the_only_suspect_of_too_many_deaths_is_dead_lettered_unhandled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    member = a_member_after("o2.3.1~1x1", 3, ordering="key")
    assert "the process died 2x at offset 1" in caplog.text
    member.read()
    [write] = member.writes
    assert (write.offset, write.outgoing.topic) == (1, DLT)
    assert b"CrashLoopError" in (write.outgoing.value or b"")
    assert b'"retryCount":1' in (write.outgoing.value or b"").replace(b" ", b"")
    assert "[DLT] P0:O1 -> orders.DLT (CrashLoopError after 2 attempts)" in caplog.text
    member.ack()
    found: list[int] = []
    for _ in range(4):
        found += offsets(member)
        member.commit()
    assert found == [0, 2]
    assert member.broker.commits[ORDERS][0] == 3


def test_without_a_dead_letter_topic_its_partition_stops_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    member = a_member_after("o2.3.1~1x1", 3, dead_letter_topic=None, ordering="key")
    member.read()
    member.commit()
    assert offsets(member) == []
    assert "orders-0 stops at offset 1" in caplog.text
    assert "died 2 times" in member.runtime.look().stopped["orders-0"]
    assert member.failures == []
    assert member.commit() == 0


def test_what_may_be_the_last_death_of_a_record_is_nobody_elses() -> None:
    member = a_member_after("o2.3.0", 3)
    member.broker.log(OTHER).append()
    member.broker.log(OTHER).append()
    member.assign(OTHER)
    member.read(OTHER)
    busy = member.take(1)
    assert busy is not None
    assert busy.run.lane.assignment.tp == OTHER
    member.begin(busy)
    member.read()
    assert member.take() is None
    member.commit()
    assert mark_at(member) == "o2.3~0x1"  # not named yet, something else runs
    member.end(busy)
    member.give_back(busy)
    assert member.take() is None
    member.commit()
    assert mark_at(member) == "o2.3.0~0x1"
    alone = member.take()
    assert alone is not None
    assert member.begin(alone).log_offset == 0  # type: ignore[union-attr]
    assert member.take() is None
    member.end(alone)
    member.give_back(alone)
    assert member.take() is None  # until the broker does not name it any more
    member.commit()
    other = member.take()
    assert other is not None


def test_a_partition_that_stops_while_its_suspect_waits_to_be_alone_forgets_no_lane() -> None:
    member = a_member_after("o2.3.1", 3, ordering="key")
    member.read()
    assert offsets(member) == []
    member.commit()

    def reject(record: Record) -> None:
        raise Reject("no")

    member.work(reject)  # then 1 is to be alone, and 2 comes after it
    member.refuse()
    assert member.take() is None
    member.ack()
    found: list[int] = []
    for _ in range(6):
        member.commit()
        found += offsets(member)
    assert found == [1, 2]
    assert member.commit() == 3


def test_a_record_of_the_retry_topic_is_condemned_as_well() -> None:
    member = a_member(retry_topic=RETRY, max_in_memory_wait=0.0)
    member.broker.log(ORDERS).append()
    member.read()

    def fail(record: Record) -> None:
        raise TransientError

    member.work(fail)
    member.ack()
    retries = TopicPartition(RETRY, 0)
    member.broker.commits[retries] = (0, f"r1:{TOPIC_ID}:o2.1.0~0x1:-")
    member.assign(retries)
    member.read(retries)
    [write] = member.writes
    assert write.outgoing.topic == DLT
    assert b"CrashLoopError" in (write.outgoing.value or b"")
    assert b'"retryCount":2' in (write.outgoing.value or b"").replace(b" ", b"")  # one failure, two deaths


def test_the_error_says_how_often_and_what_to_do() -> None:
    assert str(CrashLoopError(1)).startswith("the process died once while it handled this record")
    assert "replay it" in str(CrashLoopError(3))


def test_a_plan_gives_up_after_two_deaths_if_nobody_says() -> None:
    assert a_plan().max_crashes == 2


def test_the_one_that_must_be_alone_starts_first_also_where_a_breaker_would_rather_probe_another() -> None:
    member = a_member_after("o2.3.0~0x1", 3, max_crashes=3)
    member.broker.log(OTHER).append()
    member.assign(OTHER)
    member.read()
    rank = {ORDERS.partition: 1.0, OTHER.partition: 0.0}
    assert member.engine.take(1, lambda record: rank[record.partition]) is None  # it is not named yet
    member.read(OTHER)
    member.commit()
    run = member.engine.take(1, lambda record: rank[record.partition])
    assert run is not None
    assert run.records[0].partition == ORDERS.partition
    assert member.engine.take(1, lambda record: rank[record.partition]) is None


# -- who the owner was ------------------------------------------------------------------------------------


OWNER = "0a0b0c0d"


def a_named_member_after(marks: dict[TopicPartition, str], **given: Any) -> Member:
    """A member that is `OWNER`, to which partitions come that owners committed with these marks."""
    member = a_member(owner=OWNER, **given)
    member.lose(ORDERS)
    for tp, mark in marks.items():
        for _ in range(3):
            member.broker.log(tp).append()
        member.broker.commits[tp] = (0, f"r1:{TOPIC_ID}:{mark}:-")
    starts = [Start(tp, 0, member.broker.commits[tp][1]) for tp in marks]
    member.position.update(dict.fromkeys(marks, 0))
    member.runtime.assigned("source", starts)
    return member


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "relance.crashes"]


def see(member: Member, *client_ids: str, feed: str = "source") -> None:
    member.runtime.members_seen(feed, client_ids, member.clock.monotonic())


def test_its_commits_name_it() -> None:
    member = a_member(owner=OWNER)
    member.commit()
    assert mark_at(member) == f"o={OWNER}"
    member.revoke(ORDERS)
    assert mark_at(member) == f"c={OWNER}"


def test_a_partition_that_comes_back_to_the_same_process_is_no_death(
    caplog: pytest.LogCaptureFixture,
) -> None:
    member = a_member(owner=OWNER)
    for _ in range(3):
        member.broker.log(ORDERS).append()
    member.commit()
    member.lose(ORDERS)
    member.assign(ORDERS)
    member.read()
    assert offsets(member) == [0, 1, 2]
    assert member.runtime.look().careful == {}
    see(member)
    assert told(caplog) == []


def test_a_suspect_of_the_same_process_has_not_died_again(caplog: pytest.LogCaptureFixture) -> None:
    member = a_named_member_after({ORDERS: f"o2.3.1~1x1={OWNER}"}, max_crashes=2)
    assert "an owner before the last one died; the process died 1x at offset 1" in told(caplog)[0]
    member.read()
    assert member.writes == []


def test_an_owner_that_is_a_member_still_has_not_died(caplog: pytest.LogCaptureFixture) -> None:
    member = a_named_member_after({ORDERS: "o=11aa", OTHER: "o=22bb"})
    assert member.runtime.look().careful.keys() == {"orders-0", "orders-1"}
    member.read()
    assert offsets(member) == []
    see(member, "relance-host-7-11aa-source", "relance-host-8-22bb-source-2")
    assert member.runtime.look().careful == {}
    assert offsets(member) == [0, 1, 2]
    member.commit()
    assert mark_at(member) == f"o={OWNER}"
    assert told(caplog) == []


def test_one_death_is_told_in_one_line_when_the_members_are_known(caplog: pytest.LogCaptureFixture) -> None:
    member = a_named_member_after({ORDERS: "o=11aa", OTHER: "o=11aa"})
    member.clock.advance(1.0)
    member.runtime.members_seen("source", ["relance-host-7-11aa-source"], member.clock.monotonic() - 2.0)
    see(member, "relance-host-7-11aa-source", feed="retry")
    assert told(caplog) == [], "asked before they came, and about another group"
    see(member, "relance-host-7-33cc-source", f"relance-host-7-{OWNER}-source")
    [line] = told(caplog)
    assert line == (
        "orders-0, orders-1: careful, no more than 512 records beyond the last commit at a time"
        " from offsets 0, 0 on: their last owner died (or lost them)"
    )
    see(member)
    assert len(told(caplog)) == 1
    assert member.runtime.look().careful.keys() == {"orders-0", "orders-1"}


def test_where_the_members_cannot_be_asked_the_owner_counts_as_dead(caplog: pytest.LogCaptureFixture) -> None:
    member = a_named_member_after({ORDERS: "o=11aa"})
    member.runtime.members_seen("source", None, member.clock.monotonic())
    assert "its last owner died (or lost it)" in told(caplog)[0]


def test_who_does_not_own_it_any_more_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    member = a_named_member_after({ORDERS: "o=11aa"})
    member.revoke(ORDERS)
    see(member)
    assert told(caplog) == []


@pytest.mark.parametrize("mark", ["o1.3=11aa-22bb", "c1.3=11aa-22bb"])
@pytest.mark.parametrize("steps", range(4))
def test_who_takes_over_before_the_members_were_known_asks_for_the_same_owner(
    mark: str, steps: int, caplog: pytest.LogCaptureFixture
) -> None:
    member = a_named_member_after({ORDERS: mark}, max_crashes=1)
    member.read()
    running = None
    for _ in range(steps):  # one is chosen, named, and runs
        running = running or member.take()
        member.commit()
    see(member, "relance-host-7-11aa-source", "relance-host-7-22bb-source")
    assert member.runtime.look().careful == {}
    if running is not None:
        member.finish(running, lambda record: None)
    assert len(offsets(member)) + (0 if running is None else len(running.run.records)) == 3
    member.commit()
    assert (mark_at(member), told(caplog)) == (f"o={OWNER}", [])


@pytest.mark.parametrize(
    ("mark", "why"),
    [
        ("o1.3=11aa-22bb", "its last owner died (or lost it)"),
        ("c1.3=11aa-22bb", "an owner before the last one died"),
    ],
)
def test_of_two_owners_one_that_is_no_member_is_dead(
    mark: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    member = a_named_member_after({ORDERS: mark})
    see(member, "relance-host-7-11aa-source")
    [line] = told(caplog)
    assert why in line
    member.revoke(ORDERS)
    assert mark_at(member).endswith(f"={OWNER}-22bb"), "the next owner asks for it, too"


@pytest.mark.parametrize("mark", ["o", "c1.3", "o1.3=11aa", "o2.3.1~1x1=11aa", "o2.3.1=11aa-22bb"])
def test_an_old_mark_and_one_with_a_suspect_are_told_at_once(
    mark: str, caplog: pytest.LogCaptureFixture
) -> None:
    member = a_named_member_after({ORDERS: mark})
    assert "died" in told(caplog)[0]
    see(member, "relance-host-7-11aa-source", "relance-host-7-22bb-source")
    assert member.runtime.look().careful.keys() == {"orders-0"}

"""What watches the topics: a defect in it is told, not lost with its thread."""

from __future__ import annotations

import threading
from typing import cast

import pytest

from relance.errors import BrokerUnavailableError, TopicMissingError
from relance.kafka import watch as module
from relance.kafka.admin import Admin, Identity
from relance.kafka.watch import TopicWatch
from world import FakeClock


class Broken:
    def identity(self, topic: str) -> Identity:
        raise LookupError(f"no way to ask for {topic}")


class Slow:
    def __init__(self) -> None:
        self.asked, self.answers = threading.Event(), threading.Event()

    def identity(self, topic: str) -> Identity:
        self.asked.set()
        assert self.answers.wait(10.0)
        raise TopicMissingError(topic, bootstrap_servers="localhost:1")


def test_a_question_on_its_way_is_waited_for_and_none_is_asked_after_it() -> None:
    slow = Slow()
    looks: list[object] = []
    watch = TopicWatch(
        cast("Admin", slow), ["a", "b"], lambda topic, id: None, looks.append, looks.append, interval=0.001
    )
    watch.start()
    assert slow.asked.wait(10.0)
    watch.stop()
    assert not watch.join(0.0)
    slow.answers.set()
    assert watch.join(10.0)
    assert looks == []


def test_one_that_never_began_has_nothing_to_wait_for() -> None:
    watch = TopicWatch(
        cast("Admin", Broken()), [], lambda topic, id: None, lambda admin: None, lambda error: None
    )
    watch.stop()
    assert watch.join(0.0)


def test_a_defect_of_the_watch_is_told() -> None:
    told: list[Exception] = []
    heard = threading.Event()

    def failed(error: Exception) -> None:
        told.append(error)
        heard.set()

    watch = TopicWatch(
        cast("Admin", Broken()),
        ["orders"],
        lambda topic, id: None,
        lambda admin: None,
        failed,
        interval=0.001,
    )
    watch.start()
    assert heard.wait(10.0)
    assert [str(error) for error in told] == ["no way to ask for orders"]


class Growing:
    """Each look finds one partition more."""

    def __init__(self) -> None:
        self.partitions = 0

    def identities(self, topics: list[str]) -> tuple[str, dict[str, Identity]]:
        self.partitions += 1
        return "here", {topic: Identity("id", self.partitions) for topic in topics}


def test_what_there_was_when_the_process_began_is_remembered_though_more_has_appeared() -> None:
    watch = TopicWatch(
        cast("Admin", Growing()), ["t"], lambda topic, id: None, lambda admin: None, lambda error: None
    )
    watch.remember()
    for there in (2, 3):
        seen = watch.seen(["t"])
        assert (seen.first["t"].partitions, seen.now["t"].partitions) == (1, there)


def test_nobody_is_away_before_a_look_has_found_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = TopicWatch(
        cast("Admin", Growing()), [], lambda topic, id: None, lambda admin: None, lambda error: None
    )
    clock = FakeClock()
    monkeypatch.setattr(module, "time", clock)
    watch._last_answer = clock.monotonic() - 60.0
    assert watch.away() == 0.0
    watch._away(BrokerUnavailableError("nobody"))
    assert watch.away() == 60.0

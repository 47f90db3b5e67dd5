"""What a coordinator says of a group, as plain data: what can be no partition is left out and told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from relance.kafka import groups
from relance.kafka.asking import Asker
from relance.record import TopicPartition


class Answers(Asker):
    """A coordinator that answers each group with what is in `held`."""

    def __init__(self, held: dict[str, list[tuple[str, int]]]) -> None:
        self._held = held

    def ask_coordinators(self, what: str, groups: Any, start: Any, deadline: float) -> Any:
        return {name: _description(self._held[name]) for name in groups if name in self._held}, {
            "other": "no"
        }


def _description(held: list[tuple[str, int]]) -> SimpleNamespace:
    assignment = SimpleNamespace(topic_partitions=[SimpleNamespace(topic=t, partition=p) for t, p in held])
    member = SimpleNamespace(
        member_id="m-1", client_id="c", host="/10.0.0.1", group_instance_id=None, assignment=assignment
    )
    return SimpleNamespace(
        members=[member],
        state=SimpleNamespace(name="PREPARING_REBALANCING"),
        type=SimpleNamespace(name="CLASSIC"),
        partition_assignor="range",
        coordinator=SimpleNamespace(host="k", port=9092),
    )


def test_a_group_is_told_in_kafkas_words() -> None:
    found, problems = groups.described(Answers({"g": [("t", 1), ("t", 0), ("t", 0)]}), ["g"], 0.0)
    told = found["g"]
    assert (told.state, told.protocol, told.coordinator) == ("preparing rebalance", "classic", "k:9092")
    assert told.members[0].assignment == (TopicPartition("t", 0), TopicPartition("t", 1))
    assert (told.members[0].host, told.problem) == ("10.0.0.1", "")
    assert problems == {"other": "no"}


@pytest.mark.parametrize("wrong", [("t", -16), ("", 0), ("a b", 0)])
def test_what_can_be_no_partition_is_left_out_and_told(wrong: tuple[str, int]) -> None:
    found, _ = groups.described(Answers({"g": [("t", 0), wrong]}), ["g"], 0.0)
    assert found["g"].members[0].assignment == (TopicPartition("t", 0),)
    assert found["g"].problem == "member m-1 holds what can be no partition"


def test_more_partitions_than_anybody_can_look_at_are_cut_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "MOST_HELD", 2)
    found, _ = groups.described(Answers({"g": [("t", p) for p in range(3)]}), ["g"], 0.0)
    assert len(found["g"].members[0].assignment) == 2
    assert found["g"].problem == "member m-1 holds 3 partitions; 2 of them are shown"

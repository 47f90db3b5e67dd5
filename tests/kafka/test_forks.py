"""Handlers that fork: the child is its own, and the application never notices."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from members import Member

from waiting import wait_until

HERE = Path(__file__).parent

EXPECTED: dict[str, Any] = {
    "terminate": -signal.SIGTERM,
    "pool": [1, 2],
    "process": 0,
    "return": 0,
    "exit": 3,
    "raise": 1,
    "send": 0,
    "atexit": 0,
    "last": True,
}


@pytest.fixture
def start(tmp_path: Path, bootstrap: str, make_topic: Callable[..., str]) -> Iterator[Callable[..., Member]]:
    made: list[Member] = []

    def start(partitions: int, hows: list[str], **config: Any) -> Member:
        topic = make_topic("fork", partitions)
        producer = Producer({"bootstrap.servers": bootstrap})
        for i, how in enumerate(hows):
            producer.produce(topic, json.dumps({"how": how}).encode(), partition=i % partitions)
        assert producer.flush(10) == 0
        config = {"topic": topic, "group": f"g-{topic}", "bootstrap": bootstrap, **config}
        made.append(Member(config, tmp_path, f"forker-{len(made)}", program="forker.py"))
        return made[-1]

    yield start
    for member in made:
        if member.process.poll() is None:
            member.process.kill()
        member.ended()
        for pipe in (member.process.stdout, member.process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.mark.parametrize("workers", ["inline", "threads", "loop", "processes"])
def test_a_handler_may_fork_and_end_its_child_and_the_application_never_notices(
    start: Callable[..., Member], workers: str
) -> None:
    expected: dict[str, Any] = {**EXPECTED, "hook": 0}
    hows = list(EXPECTED)
    if workers == "loop":
        expected["await"] = 1  # the loop is its parent's, so it ends there
        hows.insert(0, "await")
    member = start(1, hows, workers=workers, hook=True)
    found: dict[str, Any] = {}

    def is_done() -> bool:
        found.update((event["how"], event["told"]) for event in list(member.events))
        return {"last", "hook"} <= found.keys() or member.process.poll() is not None

    wait_until(is_done, 60.0, lambda: f"{found}\n{member.log}")
    says = found.pop("says", None)
    assert found == expected, member.log
    assert says == ["SendError", "RelanceError", "DOWN"]
    assert len(member.events) == len(expected) + 1  # each once
    assert member.process.poll() is None
    assert member.stop() == 0
    assert "ValueError: in the child" in member.log


def test_a_child_that_is_forked_beside_the_application_ends_with_its_interpreter(
    start: Callable[..., Member],
) -> None:
    member = start(1, ["last"], workers="threads", beside=True)
    assert member.ended(30.0) == 0, member.log
    assert {event["how"]: event["told"] for event in member.events}["beside"] == 4, member.log


def test_an_application_that_is_made_before_a_fork_runs_in_each_child(start: Callable[..., Member]) -> None:
    member = start(2, ["last", "last"], workers="inline", prefork=True)
    wait_until(lambda: len([e for e in member.events if e["how"] == "last"]) == 2, 30.0, lambda: member.log)
    [children] = [event["told"] for event in member.events if event["how"] == "children"]
    for pid in children:
        os.kill(pid, signal.SIGTERM)
    assert member.ended() == 0
    assert member.events[-1]["told"] == [0, 0], member.log

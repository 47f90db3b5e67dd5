"""Questions about groups: the group that ends the process that reads it is found, the others are answered."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from relance.errors import BrokerUnavailableError
from relance.kafka import group_process
from relance.kafka.group_process import GroupProcess, _DiedError
from relance.kafka.groups import GroupAnswers


class FakeChild:
    """Ends when it is asked about a group of `deadly`."""

    deadly: frozenset[str] = frozenset()
    asked: list[list[str]] = []  # noqa: RUF012 - the fixture gives each test its own
    started = 0

    def __init__(self, setup: object) -> None:
        type(self).started += 1

    def ask(self, what: tuple[str, list[str], float], timeout: float) -> Any:
        _, groups, _ = what
        self.asked.append(groups)
        if self.deadly & set(groups):
            raise _DiedError("SIGABRT")
        return GroupAnswers({name: name.upper() for name in groups if name != "none"}, {})


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> type[FakeChild]:
    class Child(FakeChild):
        asked: list[list[str]] = []  # noqa: RUF012 - this test's own

    monkeypatch.setattr(group_process, "_Child", Child)
    return Child


def ask(process: GroupProcess, *groups: str, timeout: float = 10.0) -> GroupAnswers[Any]:
    return process.ask("described", groups, time.monotonic() + timeout)


def test_all_groups_are_asked_about_at_once(child: type[FakeChild]) -> None:
    process = GroupProcess("b:1", None, 1.0)
    assert ask(process, "a", "b", "none") == ({"a": "A", "b": "B"}, {})
    ask(process, "a")
    assert (child.asked, child.started) == ([["a", "b", "none"], ["a"]], 1)


def test_the_one_that_ends_the_process_is_found_told_once_and_left_out(
    child: type[FakeChild], caplog: pytest.LogCaptureFixture
) -> None:
    child.deadly = frozenset({"bad"})
    process = GroupProcess("b:1", None, 1.0)
    with caplog.at_level(logging.WARNING):
        found, problems = ask(process, "a", "bad", "c")
        assert found == {"a": "A", "c": "C"}
        assert list(problems) == ["bad"]
        assert "SIGABRT" in problems["bad"]
        deaths = child.started
        assert ask(process, "a", "bad", "c") == (found, problems)
    assert child.asked[-1] == ["a", "c"]
    assert child.started == deaths, "nothing died again"
    assert len(caplog.records) == 1
    assert "'bad'" in caplog.text


def test_it_is_asked_about_again_later_alone_and_less_and_less_often(child: type[FakeChild]) -> None:
    child.deadly = frozenset({"bad"})
    process = GroupProcess("b:1", None, 1.0)
    ask(process, "a", "bad")
    deadly = process._deadly["described", "bad"]
    assert (deadly.wait, deadly.until > time.monotonic() + 50) == (60.0, True)
    deadly.until = 0.0  # a minute later
    ask(process, "a", "bad")
    assert child.asked[-2:] == [["a"], ["bad"]]
    assert process._deadly["described", "bad"].wait == 120.0
    child.deadly, process._deadly["described", "bad"].until = frozenset(), 0.0
    assert ask(process, "a", "bad") == ({"a": "A", "bad": "BAD"}, {})
    ask(process, "a", "bad")
    assert child.asked[-1] == ["a", "bad"], "it is one like the others again"


def test_no_more_than_so_many_of_them_are_remembered(
    child: type[FakeChild], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_process, "_MOST_DEADLY", 2)
    child.deadly = frozenset({"a", "b", "c"})
    process = GroupProcess("b:1", None, 1.0)
    for name in ("a", "b", "c"):
        ask(process, name)
    assert [name for _, name in process._deadly] == ["b", "c"]
    process._deadly["described", "b"].until = 0.0  # a minute later it ends the process again
    ask(process, "b")
    ask(process, "a")
    assert [name for _, name in process._deadly] == ["b", "a"]


def test_without_time_left_the_rest_is_told_as_not_asked(child: type[FakeChild]) -> None:
    child.deadly = frozenset({"bad"})
    found, problems = ask(GroupProcess("b:1", None, 1.0), "bad", "z", timeout=-1.0)
    assert not found
    assert "look again" in problems["z"]


def test_settings_that_cannot_travel_are_named_as_the_reason() -> None:
    process = GroupProcess("b:1", {"oauth_cb": lambda _: ("", 0.0)}, 1.0)
    found, problems = ask(process, "a")
    assert not found
    assert "a function of a module that can be imported" in problems["a"]


def test_a_callback_of_the_main_program_is_named_as_the_reason_and_no_process_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def token(_config: str) -> tuple[str, float]:
        return "", 0.0

    token.__module__, token.__qualname__ = "__main__", "token"
    monkeypatch.setattr(sys.modules["__main__"], "token", token, raising=False)
    monkeypatch.setattr(subprocess, "Popen", None)
    found, problems = ask(GroupProcess("b:1", {"oauth_cb": token}, 1.0), "a")
    assert not found
    assert "the main program" in problems["a"]
    assert "a module that can be imported" in problems["a"]


def test_a_process_that_died_meanwhile_is_started_again_and_ends_with_its_owner() -> None:
    process = GroupProcess("127.0.0.1:1", None, 0.2)
    with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1"):
        ask(process, "a", timeout=0.2)
    assert process._child is not None
    first = process._child._process
    os.kill(first.pid, signal.SIGKILL)
    with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1"):
        ask(process, "a", timeout=0.2)
    second = process._child._process
    assert second.pid != first.pid
    del process
    gc.collect()  # the errors above hold on to their frames
    assert second.wait(10) == 0

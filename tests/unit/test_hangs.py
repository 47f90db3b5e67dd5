"""What takes very long is told once, with its name, its place and its age."""

from __future__ import annotations

import logging
import os
from types import SimpleNamespace

import pytest

from relance.hangs import Hangs, HookCall
from relance.hooks import Hooks
from relance.runner import Runner
from relance.settings import Settings
from relance.testing.clock import VirtualClock
from world import DLT, ORDERS, Member, a_member


def clock_of(member: Member) -> VirtualClock:
    assert isinstance(member.clock, VirtualClock)
    return member.clock


def a_member_at_work(**plan: object) -> Member:
    member = a_member(handler="shop.place", ordering="key", **plan)
    for key in (b"a", b"b"):
        member.broker.log(ORDERS).append(key)
    member.read()
    return member


def test_the_oldest_record_in_flight_is_told_with_its_age() -> None:
    member = a_member_at_work()
    assert member.runtime.look().oldest is None
    first = member.take(1)
    assert first is not None
    clock_of(member).advance(3.0)
    second = member.take(1)
    assert second is not None
    clock_of(member).advance(2.0)
    oldest = member.runtime.look().oldest
    assert oldest is not None
    assert oldest.details() == {
        "handler": "shop.place",
        "topic": "orders",
        "partition": 0,
        "offset": 0,
        "attempt": 1,
        "seconds": 5.0,
    }
    assert member.runtime.look().overdue == []
    first.run.done = 1
    member.give_back(first)
    oldest = member.runtime.look().oldest
    assert oldest is not None
    assert (oldest.offset, oldest.seconds) == (1, 2.0)


def test_a_record_that_takes_very_long_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    member = a_member_at_work()
    clock = clock_of(member)
    hangs = Hangs(clock, 60.0)

    def look() -> list[str]:
        caplog.clear()
        hangs.look(member.runtime.held_for(hangs.after), None)
        return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]

    assert member.take(1) is not None
    clock.advance(59.0)
    assert look() == []
    assert member.take(1) is not None
    clock.advance(1.0)
    [line] = look()
    assert line.startswith("handler shop.place has been at orders-0, offset 0, for 60 s (attempt 1)")
    assert "no timeout=" in line
    assert look() == []
    clock.advance(59.0)
    [line] = look()
    assert "offset 1, for 60 s" in line
    clock.advance(600.0)
    assert look() == []


def test_past_its_timeout_a_record_is_overdue_and_the_warning_names_the_timeout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    member = a_member_at_work(timeout=30.0)
    clock = clock_of(member)
    assert member.take(1) is not None
    clock.advance(61.0)
    assert member.runtime.look().overdue == [
        "a handler has been at orders-0, offset 0, for 61 s (timeout 30 s)"
    ]
    Hangs(clock, 60.0).look(member.runtime.held_for(60.0), 30.0)
    assert "its timeout is 30 s" in caplog.text


def test_what_is_left_behind_at_a_stop_is_named_before_the_process_ends(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = a_member_at_work()
    clock = clock_of(member)
    assert member.take(1) is not None
    clock.advance(3.0)
    assert member.take(1) is not None
    runner = Runner(Settings(), [], [], Hooks(), owns_process=True)
    monkeypatch.setattr(runner, "consumers", [SimpleNamespace(runtime=member.runtime)])
    monkeypatch.setattr(runner, "_shut_down", lambda: member.runtime.drain(clock.monotonic()))
    monkeypatch.setattr("relance.runner._LAST_WAIT", 0.0)
    ends: list[int] = []

    def end(status: int) -> None:
        ends.append(status)
        raise SystemExit(status)  # as os._exit, it does not return

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    runner._working = True
    runner._start_ended.set()
    with pytest.raises(SystemExit):
        runner._stop()
    assert ends == [70]
    assert caplog.messages[-1] == (
        "a handler is still running after the drain deadline: exiting without it (at the deadline:"
        " shop.place at orders-0, offset 0, for 3 s; shop.place at orders-0, offset 1, for 0 s)"
    )
    assert "stopped" not in caplog.messages


def test_a_hook_that_takes_very_long_is_one_warning_too(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock()
    hangs = Hangs(clock, 60.0)
    call = HookCall(7, "shop.came", clock.monotonic())
    clock.advance(61.0)
    hangs.look_at_hook(None)
    hangs.look_at_hook(call)
    hangs.look_at_hook(call)
    assert caplog.text.count("hook shop.came has been at one event for 61 s") == 1
    hangs.look_at_hook(HookCall(8, "shop.came", clock.monotonic()))
    assert caplog.text.count("hook shop.came") == 1


def test_zero_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    member = a_member_at_work(dead_letter_topic=DLT)
    hangs = Hangs(member.clock, 0.0)
    assert member.take(1) is not None
    clock_of(member).advance(3600.0)
    hangs.look(member.runtime.held_for(0.0), None)
    hangs.look_at_hook(HookCall(1, "shop.came", 0.0))
    assert caplog.text == ""

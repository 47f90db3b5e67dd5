"""The users' rebalance hooks: where they run, in which order, and that none can break or hold a poller."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from relance import App
from relance.errors import SettingsError
from relance.hooks import Hooks, checked_hook
from relance.record import TopicPartition
from relance.stats import CircuitBreakerOpen
from waiting import wait_until

ONE, TWO = TopicPartition("orders", 0), TopicPartition("orders", 1)


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    found = Hooks()
    yield found
    found.close()


def test_each_event_is_a_line_that_names_the_partitions_in_order(
    hooks: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "relance.rebalance")
    hooks.assigned([TWO, ONE])
    hooks.revoked([ONE], 0.0)
    hooks.lost([TWO])
    hooks.assigned([])
    assert caplog.messages == [
        "[REBALANCE] Partitions assigned: orders-0, orders-1",
        "[REBALANCE] Partitions revoked: orders-0",
        "[REBALANCE] Partitions lost: orders-1",
        "[REBALANCE] Partitions assigned: none",
    ]


def test_hooks_run_in_order_on_one_thread_that_is_not_the_caller_s(hooks: Hooks) -> None:
    calls: list[tuple[str, list[TopicPartition], str]] = []

    def note(name: str) -> None:
        def hook(tps: list[TopicPartition]) -> None:
            calls.append((name, tps, threading.current_thread().name))

        getattr(hooks, f"on_{name}").append(hook)

    for name in ("assigned", "assigned", "revoked", "lost"):
        note(name)
    hooks.assigned([TWO, ONE])
    hooks.lost([TWO])
    hooks.revoked([ONE], 5.0)
    assert [(name, tps) for name, tps, _ in calls] == [
        ("assigned", [ONE, TWO]),
        ("assigned", [ONE, TWO]),
        ("lost", [TWO]),
        ("revoked", [ONE]),
    ]
    assert {thread for _, _, thread in calls} == {"relance-hooks"}


def test_without_hooks_no_thread_is_made(hooks: Hooks) -> None:
    hooks.assigned([ONE])
    hooks.revoked([ONE], 5.0)
    assert hooks._thread is None


def test_revoked_is_waited_for(hooks: Hooks) -> None:
    entered, let_go, seen = threading.Event(), threading.Event(), []

    def hook(tps: list[TopicPartition]) -> None:
        entered.set()
        let_go.wait(5)
        seen.append(tps)

    hooks.on_revoked.append(hook)
    thread = threading.Thread(target=hooks.revoked, args=([ONE], 5.0))
    thread.start()
    assert entered.wait(5)
    assert thread.is_alive()
    let_go.set()
    thread.join(5)
    assert seen == [[ONE]]


def test_revoked_is_waited_for_only_until_the_deadline(
    hooks: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    let_go = threading.Event()
    hooks.on_revoked.append(lambda tps: let_go.wait(5) and None)
    hooks.revoked([ONE], 0.01)
    let_go.set()
    assert "on_revoked still runs after 0.0 s: going on without it" in caplog.text


@pytest.mark.parametrize("error", [ValueError("a bug"), SystemExit(3), KeyboardInterrupt()])
def test_a_hook_that_raises_is_logged_and_counted_and_holds_up_nobody(
    hooks: Hooks, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    seen = []

    def bad(tps: list[TopicPartition]) -> None:
        tps.clear()
        raise error

    hooks.on_revoked += [bad, seen.append]
    hooks.revoked([ONE], 5.0)
    hooks.revoked([TWO], 5.0)
    assert seen == [[ONE], [TWO]]
    assert hooks.failures == 2
    assert "test_a_hook_that_raises" in caplog.text


def test_after_closing_nothing_is_called_and_nobody_waits(hooks: Hooks) -> None:
    seen: list[object] = []
    for kind in (hooks.on_assigned, hooks.on_revoked, hooks.on_lost):
        kind.append(seen.append)
    hooks.close()
    hooks.assigned([ONE])
    hooks.revoked([ONE], 60.0)
    hooks.lost([ONE])
    hooks.close()
    assert seen == []


def test_closing_frees_who_waits_for_a_hook_that_did_not_have_its_turn(hooks: Hooks) -> None:
    entered, let_go, seen = threading.Event(), threading.Event(), []

    def hang(tps: list[TopicPartition]) -> None:
        entered.set()
        let_go.wait(5)

    hooks.on_assigned.append(hang)
    hooks.on_revoked.append(seen.append)
    hooks.assigned([ONE])
    assert entered.wait(5)
    waiting = threading.Thread(target=hooks.revoked, args=([ONE], 60.0))
    waiting.start()
    wait_until(lambda: hooks._calls.qsize())
    hooks.close()
    let_go.set()
    waiting.join(5)
    assert not waiting.is_alive()
    assert seen == []


def test_a_hook_that_hangs_cannot_keep_the_process_from_ending(hooks: Hooks) -> None:
    let_go = threading.Event()
    hooks.on_assigned.append(lambda tps: let_go.wait(5) and None)
    hooks.assigned([ONE])
    assert hooks._thread is not None
    assert hooks._thread.daemon
    let_go.set()


def test_a_breaker_s_hooks_are_called_beside_the_others_and_cannot_break_them(
    hooks: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[object] = []

    def broken(opened: CircuitBreakerOpen) -> None:
        raise RuntimeError("no network")

    hooks.on_breaker_open += [broken, calls.append]
    hooks.on_revoked.append(calls.append)
    now = datetime.now(UTC)
    opened = CircuitBreakerOpen("bank", now, now, 5, 5, 0, 1, "5 of 5 calls failed", None)
    hooks.breaker_opened(opened)
    hooks.revoked([ONE], 5.0)
    assert calls == [opened, [ONE]]
    assert hooks.failures == 1
    assert "hook test_a_breaker_s_hooks_are_called" in caplog.text


# -- what is no hook -----------------------------------------------------------------------------------


async def asynchronous(tps: list[TopicPartition]) -> None:
    pass


async def with_loop(loop: object, tps: list[TopicPartition]) -> None:
    pass


def lazy(tps: list[TopicPartition]) -> Any:
    yield tps


async def lazy_too(tps: list[TopicPartition]) -> Any:
    yield tps


def takes_nothing() -> None:
    pass


def takes_two(tps: list[TopicPartition], more: object) -> None:
    pass


class AsyncCallable:
    async def __call__(self, tps: list[TopicPartition]) -> None:
        pass

    async def method(self, tps: list[TopicPartition]) -> None:
        pass


@pytest.mark.parametrize("event", ["on_assigned", "on_revoked", "on_lost", "on_breaker_open"])
@pytest.mark.parametrize(
    ("hook", "problem"),
    [
        (asynchronous, "asynchronous is async, and nobody would await it"),
        (functools.partial(with_loop, None), "is async"),
        (AsyncCallable(), "is async"),
        (AsyncCallable().method, "AsyncCallable.method is async"),
        (functools.wraps(asynchronous)(lambda tps: asynchronous(tps)), "is async"),
        (lazy, "lazy has a yield"),
        (lazy_too, "has a yield"),
        (takes_nothing, "called with one argument"),
        (takes_two, "called with one argument, and missing a required argument: 'more'"),
        (3, "3 is no function"),
    ],
)
def test_what_could_never_be_called_as_a_hook_is_refused_by_name(event: str, hook: Any, problem: str) -> None:
    app = App("g", bootstrap_servers="localhost:1")
    with pytest.raises(SettingsError, match=problem) as caught:
        getattr(app, event)(hook)
    assert caught.value.key == event


@pytest.mark.parametrize(
    "hook",
    [
        lambda tps: None,
        [].append,
        print,
        functools.partial(takes_two, more=1),
        max,
        lambda *given: None,
        lambda tps, more=1: None,
    ],
)
def test_whatever_takes_one_argument_is_a_hook_and_stays_what_it_was(hook: Any) -> None:
    assert checked_hook("on_lost", hook) is hook


def test_a_hook_that_returns_a_coroutine_has_done_nothing_and_that_is_told(
    hooks: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    hooks.on_revoked.append(lambda tps: asynchronous(tps))  # type: ignore[arg-type, return-value]  # that is it
    hooks.revoked([ONE], 5.0)
    assert hooks.failures == 1
    assert "it returned what has to be awaited (coroutine), so it has done nothing" in caplog.text

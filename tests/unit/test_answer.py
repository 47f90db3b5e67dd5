"""What a handler returns: nothing; a value is told once, and what has not run yet counts as no handling."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from relance import App, Fatal, Settings
from relance.decoding import decoder_for, handler_shape
from relance.errors import RelanceError
from relance.spec import ConsumerSpec
from relance.testing import World
from relance.workers.answer import Returned, refuse_unrun
from relance.workers.make import make_worker
from waiting import wait_until
from world import Member, record


def an_app(handler: Callable[..., Any], **options: Any) -> App:
    app = App("g", settings=Settings(bootstrap_servers="localhost:1"))
    app.consumer("t", dead_letter_topic="d", **options)(handler)
    return app


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "relance" and r.levelno >= logging.WARNING]


def returns(value: int) -> int:
    return value


async def returns_later(value: int) -> int:
    return value


def returns_all(values: list[int]) -> int:
    return len(values)


async def returns_all_later(values: list[int]) -> int:
    return len(values)


@functools.wraps(returns_later)
def wrapper(value: int) -> Any:
    return returns_later(value)


@pytest.mark.parametrize(
    ("handler", "options"),
    [
        (returns, {}),
        (returns_later, {}),
        (returns_later, {"timeout": 5.0}),
        (wrapper, {}),
        (returns_all, {"batch": 2}),
        (returns_all_later, {"batch": 2}),
    ],
    ids=["inline", "loop", "with a timeout", "wrapped", "batch", "async batch"],
)
def test_a_handler_that_returns_a_value_is_told_once_and_its_records_are_handled(
    handler: Any, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with World(an_app(handler, **options)) as world:
        for value in range(5):
            world.produce("t", value + 1)
        world.finish()
    [warning] = warnings(caplog)
    assert f"{handler.__name__} returned a value (int), and nobody gets it" in warning


def test_a_handler_that_returns_nothing_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with World(an_app(lambda value: None)) as world:
        world.produce("t", 1)
        world.finish()
    assert warnings(caplog) == []


def test_all_threads_of_a_handler_tell_it_once(caplog: pytest.LogCaptureFixture) -> None:
    member = Member.in_real_time(ordering="none")
    app = an_app(returns, concurrency=4)
    spec: ConsumerSpec = app._specs[0]
    worker = make_worker(spec, member.runtime)
    thread = threading.Thread(target=worker.run, daemon=True)  # type: ignore[arg-type]  # no loop's worker
    thread.start()
    member.runtime.received(
        "source", next(iter(member.runtime.owned())), [record(i, b"k", b"1") for i in range(200)]
    )
    wait_until(lambda: member.runtime.counters.handled == 200)
    member.runtime.drain(0.0)
    thread.join(5)
    assert len(warnings(caplog)) == 1


def yields(value: int) -> Iterator[int]:
    yield value


async def yields_later(value: int) -> AsyncIterator[int]:
    yield value


async def never(value: int) -> None:
    raise AssertionError("nobody awaits it")


async def returns_coroutine(value: int) -> Any:
    return never(value)


async def returns_generator(value: int) -> Any:
    return yields(value)


@pytest.mark.parametrize(
    ("handler", "options", "said"),
    [
        (lambda value: yields(value), {}, r"returned a generator \(yields\), so it has done nothing"),
        (lambda value: yields_later(value), {}, "returned a generator"),
        (lambda value: never(value), {}, r"returned what has to be awaited \(coroutine\)"),
        (lambda values: yields(values[0]), {"batch": 2}, "returned a generator"),
        (lambda values: never(values[0]), {"batch": 2}, "has to be awaited"),
        (returns_coroutine, {}, "has to be awaited"),
        (returns_generator, {}, "returned a generator"),
        (returns_coroutine, {"timeout": 5.0}, "has to be awaited"),
    ],
)
def test_a_record_whose_handler_returned_what_has_not_run_is_not_handled(
    handler: Any, options: dict[str, Any], said: str
) -> None:
    with World(an_app(handler, **options)) as world:
        world.produce("t", 1)
        with pytest.raises((Fatal, RelanceError), match=said):
            world.finish()


def test_what_has_run_is_no_such_thing() -> None:
    for answer in (None, 0, "text", [], iter([]), map(str, [])):
        refuse_unrun(answer)


def test_each_handler_has_a_word_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    one, two = Returned("m.one"), Returned("m.two")
    for returned in (one, one, two, one):
        returned.look(1)
    assert [text.partition(" returned")[0] for text in warnings(caplog)] == ["handler m.one", "handler m.two"]


def test_an_unannotated_handler_gets_none_for_a_tombstone_and_for_jsons_null() -> None:
    given: list[object] = []

    def handler(value) -> None:  # type: ignore[no-untyped-def]  # that is it
        given.append(value)

    assert handler_shape(handler).annotation is not None
    assert decoder_for(handler_shape(handler).annotation).expects == "any JSON"
    with World(an_app(handler)) as world:
        world.produce("t", None)
        world.produce("t", b"null")
        world.finish()
    assert given == [None, None]

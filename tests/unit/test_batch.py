"""Calls with many records: what a BatchError names, and what it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from relance import App, BatchError, Record, RetryPolicy, TransientError
from relance.engine.engine import Ordering
from relance.testing import World

Failing = Callable[[list[Record]], Mapping[Any, Exception]]


def world_of(failing: Failing, *, is_async: bool, **options: Any) -> World:
    """A handler of batches whose BatchError has what `failing` says."""

    def handle(values: list[int], records: list[Record]) -> None:
        raise BatchError(failing(records))

    async def handle_async(values: list[int], records: list[Record]) -> None:
        await asyncio.sleep(0)
        raise BatchError(failing(records))

    app = App("g", bootstrap_servers="localhost:1")
    options = {"dead_letter_topic": "t.DLT", "ordering": "none", "batch": 4, **options}
    app.consumer("t", **options)(handle_async if is_async else handle)
    return World(app)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_batch_error_by_offset_says_that_its_keys_are_places_in_the_list(is_async: bool) -> None:
    def failing(records: list[Record]) -> dict[int, Exception]:
        return {record.offset: TransientError("busy") for record in records if record.offset == 5}

    with world_of(failing, is_async=is_async) as world:
        for value in range(8):
            world.produce("t", value)
        world.finish()
        [letter] = world.dead_letters()
        assert letter.original_offset == 5
        assert letter.error_message.startswith(
            "RuntimeError: the handler's BatchError names 5, but its keys are"
        )
        assert "TransientError: busy" in (letter.stack_trace or ""), "what it wanted to say is kept"
        assert world.committed("t") == 8


@pytest.mark.parametrize("key", ["a", -1, 0.0, None])
def test_a_key_that_is_no_place_costs_nobody_but_its_own_record(key: object) -> None:
    with world_of(lambda records: {key: ValueError("no")}, is_async=False) as world:
        for value in range(3):
            world.produce("t", value)
        world.finish()
        assert len(world.dead_letters()) == 3
        assert world.failure is None


@pytest.mark.parametrize("batch", [1, 4])
def test_a_batch_error_that_names_nobody_has_failed_nobody(batch: int) -> None:
    with world_of(lambda records: {}, is_async=False, batch=batch) as world:
        for value in range(4):
            world.produce("t", value)
        world.finish()
        assert world.committed("t") == 4
        assert world.dead_letters() == []
        world.assert_no_commit_past_unfinished()


def test_what_a_batch_error_names_is_tried_again_alone() -> None:
    def failing(records: list[Record]) -> dict[int, Exception]:
        return {i: TransientError("busy") for i, record in enumerate(records) if record.attempt < 3}

    with world_of(failing, is_async=False, retry=RetryPolicy.fixed(1.0, max_attempts=3)) as world:
        for value in range(4):
            world.produce("t", value)
        world.finish()
        assert [call.attempt for call in world.calls] == [1] * 4 + [2] * 4 + [3] * 4
        assert world.dead_letters() == []


def one_of_them_is_busy_twice(
    ordering: Ordering, *, is_async: bool, batch: int = 3
) -> tuple[World, list[int]]:
    """Of 0, 1, 2 … the 1 fails twice, which says nothing of who is to blame. What was handled, in order."""
    app, ended = App("g", bootstrap_servers="localhost:1"), []
    retry = RetryPolicy.fixed(1.0, max_attempts=3)

    def handle(values: list[int], records: list[Record]) -> None:
        if any(record.offset == 1 and record.attempt < 3 for record in records):
            raise ConnectionError("busy")
        ended.extend(values)

    async def handle_async(values: list[int], records: list[Record]) -> None:
        await asyncio.sleep(0)
        handle(values, records)

    app.consumer("t", ordering=ordering, batch=batch, retry=retry, dead_letter_topic="t.DLT")(
        handle_async if is_async else handle
    )
    return World(app), ended


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("ordering", ["partition", "key"])
def test_where_there_is_order_nobody_is_handled_before_one_that_is_to_be_tried_again(
    ordering: Ordering, is_async: bool
) -> None:
    world, ended = one_of_them_is_busy_twice(ordering, is_async=is_async)
    with world:
        for value in range(5):
            world.produce("t", value, key="k")
        world.run()
        assert ended == [0]
        world.finish()
        assert ended == [0, 1, 2, 3, 4]
        assert world.dead_letters() == []
        world.assert_no_commit_past_unfinished()


@pytest.mark.parametrize("is_async", [False, True])
def test_where_there_is_none_the_others_of_its_batch_are_handled_at_once(is_async: bool) -> None:
    world, ended = one_of_them_is_busy_twice("none", is_async=is_async)
    with world:
        for value in range(5):
            world.produce("t", value)
        world.run()
        assert sorted(ended) == [0, 2, 3, 4]
        world.finish()
        assert ended[-1] == 1


def test_who_stands_behind_a_poison_record_is_handled_once_it_is_dead_lettered() -> None:
    app, ended = App("g", bootstrap_servers="localhost:1"), []

    @app.consumer("t", batch=10, dead_letter_topic="t.DLT")
    def handle(values: list[int]) -> None:
        if 2 in values or 5 in values:
            raise ValueError("poison")
        ended.extend(values)

    with World(app) as world:
        for value in range(8):
            world.produce("t", value)
        world.finish()
        assert ended == [0, 1, 3, 4, 6, 7]
        assert [letter.original_offset for letter in world.dead_letters()] == [2, 5]
        assert world.committed("t") == 8

"""Calls with many records: what a BatchError names, and what it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from relance import App, BatchError, Record, RetryPolicy, TransientError
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

"""The pytest fixture `relance_world`, which every test has once relance is installed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from relance.testing import World

__all__ = ["relance_world"]


@pytest.fixture
def relance_world() -> Iterator[Callable[..., World]]:
    """Make worlds: `relance_world(app, **options)`, as `World(app, **options)` and entered.

    At the end of the test each is left, and has to hold `assert_no_commit_past_unfinished`.
    """
    from relance.testing import World  # not before a test asks for it

    with contextlib.ExitStack() as worlds:
        made: list[World] = []

        def make(app: Any, **options: Any) -> World:
            made.append(worlds.enter_context(World(app, **options)))
            return made[-1]

        yield make
        for world in made:
            world.assert_no_commit_past_unfinished()

import gc
from collections.abc import Iterator

import pytest

from relance.collector import startup_set_aside


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()
    gc.enable()


def test_what_was_there_before_is_not_walked_through_while_it_is_open() -> None:
    before = [object() for _ in range(3)]
    with startup_set_aside():
        assert gc.get_freeze_count() > 1000
        assert not any(found is before for found in gc.get_objects())
    assert gc.get_freeze_count() == 0
    assert any(found is before for found in gc.get_objects())


def test_cycles_made_while_it_is_open_are_still_collected() -> None:
    with startup_set_aside():
        cycle: list[object] = []
        cycle.append(cycle)
        del cycle
        assert gc.collect() >= 1


def test_a_program_that_froze_or_disabled_the_collector_itself_is_left_alone() -> None:
    gc.freeze()
    mine = gc.get_freeze_count()
    with startup_set_aside():
        assert gc.get_freeze_count() == mine
    assert gc.get_freeze_count() == mine
    gc.unfreeze()
    gc.disable()
    with startup_set_aside():
        assert gc.get_freeze_count() == 0

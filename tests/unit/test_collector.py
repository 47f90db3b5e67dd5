import gc
from collections.abc import Iterator

import pytest

from relance.collector import startup_set_aside
from relance.engine.flow import Limits


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    gc.unfreeze()
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
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


def test_what_is_on_its_way_to_a_handler_starts_no_collection_and_all_is_as_before_at_the_end() -> None:
    gc.set_threshold(700, 11, 12)
    with startup_set_aside():
        assert gc.get_threshold()[0] > Limits().ready
        assert gc.get_threshold()[1] == 11
    assert gc.get_threshold()[:2] == (700, 11)


@pytest.mark.parametrize("youngest", [0, 1_000_000])
def test_a_program_that_wants_still_fewer_collections_has_its_way(youngest: int) -> None:
    gc.set_threshold(youngest, 10, 10)
    with startup_set_aside():
        assert gc.get_threshold()[0] == youngest
    assert gc.get_threshold()[0] == youngest

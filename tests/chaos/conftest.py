"""Starts what takes long and mostly waits when the session starts, so that it runs beside the other tests."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from history import History
from runs import HANDOFFS, Started, crash_points, matrix, mutant, ninety_seconds

from chaos.mutants import MUTANTS

AT_ONCE = 2  # each mostly waits, but its brokers take both cores while they start


@pytest.fixture(scope="session", autouse=True)
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """The runs under way, by kind and name: those that a chosen test asks for."""
    wanted = {item.path.stem for item in request.session.items}
    folder = tmp_path_factory.mktemp("runs")
    found: Started = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        if "test_matrix" in wanted:
            found["matrix", ""] = pool.submit(matrix, folder / "matrix")
        if "test_run" in wanted:
            found["ninety seconds", ""] = pool.submit(ninety_seconds, folder / "run")
        if "test_crash_points" in wanted:
            for handoff in HANDOFFS:
                found["crash points", handoff] = pool.submit(crash_points, handoff, folder / handoff)
        if "test_mutants" in wanted:
            for name in ("", *MUTANTS):
                found["mutant", name] = pool.submit(mutant, name, folder / (name or "none"))
        yield found
        for future in found.values():
            future.cancel()


@pytest.fixture
def history() -> History:
    """A member owns partition 0."""
    found = History()
    found.assigned()
    return found

"""Kill -9 at each crash point of a record, one after the other, while records flow; the checker judges.

The injection is real: the member kills itself by SIGKILL at the named point of the running engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chaos.cluster import Cluster
from chaos.failpoints import POINTS
from chaos.rig import HandOff, Plan, Report, Rig

HANDOFFS: tuple[HandOff, ...] = ("acknowledged", "transactional")
CASES = [(h, name) for h in HANDOFFS for name, point in POINTS.items() if point.handoff in ("", h)]


def run(handoff: HandOff, folder: Path) -> Report:
    points = tuple(f"die-at:{name}" for case, name in CASES if case == handoff)
    plan = Plan(
        5.0, 1, points, handoff, "classic", nodes=1, members=2, rate=60.0, feeders=1, quiet=60.0, each=True
    )
    cluster = Cluster(folder / "cluster", nodes=1)
    try:
        cluster.start()
        return Rig(plan, cluster, folder, print).run()
    finally:
        cluster.purge()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Report]]:
    folder = tmp_path_factory.mktemp("crash-points")
    with ThreadPoolExecutor() as pool:
        yield dict(zip(HANDOFFS, pool.map(lambda h: run(h, folder / h), HANDOFFS), strict=True))


@pytest.mark.parametrize("handoff", HANDOFFS)
def test_a_kill_anywhere_loses_nothing_and_repeats_only_what_it_may(
    handoff: HandOff, reports: dict[str, Report]
) -> None:
    found = reports[handoff]
    assert found.passed, [*found.problems, *found.verdict.problems]


@pytest.mark.parametrize(("handoff", "point"), CASES)
def test_somebody_died_at(handoff: HandOff, point: str, reports: dict[str, Report]) -> None:
    deaths = [e for e in reports[handoff].events if e["event"] == "died" and e["failpoint"] == point]
    assert len(deaths) == 1

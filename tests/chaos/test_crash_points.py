"""Kill -9 at each crash point of a record: one member dies there, another takes over, the checker judges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from chaos.cluster import Cluster
from chaos.failpoints import POINTS
from chaos.rig import Plan, Rig
from chaos.workload import PARTITIONS

HandOff = Literal["acknowledged", "transactional"]
CASES = [
    (name, handoff)
    for handoff in ("acknowledged", "transactional")
    for name, point in POINTS.items()
    if point.handoff in ("", handoff)
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("cluster"), nodes=1)
    try:
        found.start()
        yield found
    finally:
        found.purge()


@pytest.mark.parametrize(("point", "handoff"), CASES, ids=[f"{p}-{h}" for p, h in CASES])
def test_a_kill_there_loses_nothing_and_repeats_only_what_it_may(
    point: str, handoff: HandOff, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.renew_topics()
    plan = Plan(
        6.0, 1, (), handoff, "classic", nodes=1, members=2, rate=60.0, feeders=1, quiet=40.0, doomed=point
    )
    found = Rig(plan, cluster, tmp_path, print).run()
    assert found.passed, [*found.problems, *found.verdict.problems]
    deaths = [e for e in found.events if e["event"] == "died" and e["failpoint"] == point]
    assert len(deaths) == 1
    owned = {tuple(p) for e in found.events if e["event"] == "assigned" for p in e["partitions"]}
    assert len(owned) == PARTITIONS["orders"] + PARTITIONS["orders.retry"]

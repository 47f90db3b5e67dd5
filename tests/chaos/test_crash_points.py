"""Kill -9 at each crash point of a record, one after the other, while records flow; the checker judges.

The injection is real: the member kills itself by SIGKILL at the named point of the running engine.
"""

from __future__ import annotations

import pytest
from runs import CRASH_POINTS, HANDOFFS, Started

from chaos.rig import HandOff, Report


@pytest.mark.parametrize("handoff", HANDOFFS)
def test_a_kill_anywhere_loses_nothing_and_repeats_only_what_it_may(
    handoff: HandOff, started: Started
) -> None:
    found: Report = started["crash points", handoff].result()
    assert found.passed, [*found.problems, *found.verdict.problems]


@pytest.mark.parametrize(("handoff", "point"), CRASH_POINTS)
def test_somebody_died_at(handoff: HandOff, point: str, started: Started) -> None:
    found: Report = started["crash points", handoff].result()
    assert len([e for e in found.events if e["event"] == "died" and e["failpoint"] == point]) == 1

"""The smaller runs of the rig, which mostly wait: started together, before the tests that need them."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from chaos.cluster import Cluster
from chaos.failpoints import POINTS
from chaos.rig import HandOff, Plan, Report, Rig

ROOT = Path(__file__).resolve().parents[2]
HANDOFFS: tuple[HandOff, ...] = ("acknowledged", "transactional")
CRASH_POINTS = [(h, name) for h in HANDOFFS for name, point in POINTS.items() if point.handoff in ("", h)]


OTHERWISE = {
    # Its harm is done by an owner that dies before it has read on.
    "unread-forgotten": "--faults die-at:polled",
    # Only with transactions, and by one that dies between a write and the commit.
    "retry-feed-outside": "--handoff transactional --members 1 --rate 150 --faults die-at:transaction-ended",
}
"""What those take that the usual run cannot catch. The engine as it is passes these in `crash_points`."""

Started = dict[tuple[str, str], Future[Any]]
"""Runs under way, by kind and name."""


class Said(NamedTuple):
    """What a command left."""

    status: int
    told: dict[str, Any]
    """Its last line."""
    text: str
    folder: Path


def command(
    *words: str, folder: Path, timeout: float, program: tuple[str, ...] = (sys.executable, "-m", "chaos")
) -> Said:
    done = subprocess.run(
        [*program, *words, "--keep", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    text = done.stdout + done.stderr
    lines = done.stdout.splitlines()
    return Said(done.returncode, json.loads(lines[-1]) if lines else {}, text, folder)


def ninety_seconds(folder: Path) -> Said:
    """By the command that people use."""
    words = ("--seconds", "90", "--seed", "4")
    return command(*words, folder=folder, timeout=600, program=("scripts/chaos.sh",))


def matrix(folder: Path) -> Said:
    """Each fault once. Seed 1 is transactional: it has all faults."""
    return command("--each", "--seed", "1", folder=folder, timeout=900)


def mutant(name: str, folder: Path) -> Said:
    """A short run of a mutant, or with "" of the engine as it is."""
    words = ["--nodes", "1", "--members", "2", "--rate", "60", "--seconds", "14", "--quiet", "15"]
    words += ["--faults", "stop,slow", "--seed", "8", *(["--mutant", name] if name else [])]
    words += OTHERWISE.get(name, "").split()
    return command(*words, folder=folder, timeout=300)


def crash_points(handoff: HandOff, folder: Path) -> Report:
    """A member dies at each crash point that this hand-off passes, one after the other."""
    points = tuple(f"die-at:{name}" for case, name in CRASH_POINTS if case == handoff)
    plan = Plan(
        5.0, 1, points, handoff, "classic", nodes=1, members=2, rate=60.0, feeders=1, quiet=60.0, each=True
    )
    cluster = Cluster(folder / "cluster", nodes=1)
    try:
        cluster.start()
        return Rig(plan, cluster, folder, print).run()
    finally:
        cluster.purge()

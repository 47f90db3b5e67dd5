"""The checker fails on each mutant of the engine, and names the right promise."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chaos.mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[2]
AT_ONCE = 4  # they mostly wait

# Which of the checker's rules have to find it, any of them.
FOUND_BY = {
    "commit-off-by-one": {"commits_past_frontier"},
    "drain-skipped": {"beyond_allowed"},
    "handoff-not-awaited": {"commits_past_frontier", "lost"},
    "key-lock-removed": {"order_violations"},
    "due-time-ignored": {"early"},
    "errors-swallowed": {"lost", "commits_past_frontier"},
    "acknowledged-early": {"commits_past_frontier", "lost"},
    "unlimited-retries": {"unscheduled"},
}


def run(mutant: str, folder: Path) -> tuple[int, dict[str, Any], str]:
    """Exit status, last line, everything said."""
    words = ["--nodes", "1", "--members", "2", "--rate", "60", "--seconds", "14", "--quiet", "15"]
    words += ["--faults", "stop,slow", "--seed", "8", "--keep", str(folder)]
    words += ["--mutant", mutant] if mutant else []
    done = subprocess.run(
        [sys.executable, "-m", "chaos", *words], cwd=ROOT, capture_output=True, text=True, timeout=180
    )
    said = done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines, said
    return done.returncode, json.loads(lines[-1]), said


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, dict[str, Any], str]]:
    """All of them, and one of the engine as it is."""
    folder = tmp_path_factory.mktemp("mutants")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        names = ["", *MUTANTS]
        return dict(
            zip(names, pool.map(lambda name: run(name, folder / (name or "none")), names), strict=True)
        )


def test_each_mutant_has_its_test() -> None:
    assert FOUND_BY.keys() == MUTANTS.keys()


def test_the_engine_as_it_is_passes(runs: dict[str, tuple[int, dict[str, Any], str]]) -> None:
    status, told, said = runs[""]
    assert (status, told["passed"]) == (0, True), said


@pytest.mark.parametrize("mutant", FOUND_BY)
def test_the_checker_fails_on(mutant: str, runs: dict[str, tuple[int, dict[str, Any], str]]) -> None:
    status, told, said = runs[mutant]
    assert (status, told["passed"]) == (1, False), said
    assert any(told[rule] for rule in FOUND_BY[mutant]), said

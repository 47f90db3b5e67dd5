"""The checker fails on each mutant of the engine, and names the right promise."""

from __future__ import annotations

import pytest
from runs import Said, Started

from chaos.mutants import MUTANTS

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
    "unread-forgotten": {"lost"},
    "failed-sends-kept": {"wrong"},
    "retry-feed-outside": {"beyond_allowed"},
}


def test_each_mutant_has_its_test() -> None:
    assert FOUND_BY.keys() == MUTANTS.keys()


def test_the_engine_as_it_is_passes(started: Started) -> None:
    found: Said = started["mutant", ""].result()
    assert (found.status, found.told.get("passed")) == (0, True), found.text


@pytest.mark.parametrize("name", FOUND_BY)
def test_the_checker_fails_on(name: str, started: Started) -> None:
    found: Said = started["mutant", name].result()
    assert (found.status, found.told.get("passed")) == (1, False), found.text
    assert any(found.told[rule] for rule in FOUND_BY[name]), found.text

"""Each test that docs/guarantees.md and docs/chaos.md name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def named(page: str) -> list[tuple[str, str]]:
    return re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", (ROOT / "docs" / page).read_text())


NAMED = named("guarantees.md")


def test_each_promise_names_its_test() -> None:
    rows = [line for line in (ROOT / "docs/guarantees.md").read_text().splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith("| Promise")]
    assert len(promises) == len(NAMED) >= 20


@pytest.mark.parametrize(("file", "name"), sorted({*NAMED, *named("chaos.md")}))
def test_the_test_is_there(file: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)

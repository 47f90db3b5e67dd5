"""Each test that docs/guarantees.md, docs/bad-inputs.md and docs/chaos.md name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def named(page: str) -> list[tuple[str, str]]:
    return re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", (ROOT / "docs" / page).read_text())


def table_rows(page: str) -> list[str]:
    """Without the heads, which stand above a line of dashes."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    return [
        line
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
        if line.startswith("| ") and not following.startswith("|---")
    ]


NAMED = named("guarantees.md")


def test_each_promise_names_its_test() -> None:
    assert len(table_rows("guarantees.md")) == len(NAMED) >= 20


def test_each_bad_input_names_its_test() -> None:
    without = [
        row for row in table_rows("bad-inputs.md") if not re.search(r"`tests/[\w/]+\.py::test_\w+`", row)
    ]
    assert without == []
    assert len(named("bad-inputs.md")) >= 60


@pytest.mark.parametrize(("file", "name"), sorted({*NAMED, *named("bad-inputs.md"), *named("chaos.md")}))
def test_the_test_is_there(file: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)

"""Files that are written whole, and locked while one is at work."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from relance.broker.files import locked, write_whole


def test_a_file_is_written_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "new" / "state.json"
    for text in ("one", "two"):
        write_whole(file, text)
        assert file.read_text() == text
    assert [path.name for path in file.parent.iterdir()] == ["state.json"]


def test_whoever_finds_the_lock_taken_is_told_and_waits(tmp_path: Path) -> None:
    ready, go = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(tmp_path / "lock"):
            ready.set()
            go.wait(30)

    other = threading.Thread(target=hold)
    other.start()
    assert ready.wait(30)
    with locked(tmp_path / "lock", go.set):
        assert go.is_set()
    other.join(30)


def test_a_lock_is_free_again_when_its_holder_failed(tmp_path):
    with pytest.raises(ValueError, match="oh"), locked(tmp_path / "lock"):
        raise ValueError("oh")
    with locked(tmp_path / "lock", lambda: pytest.fail("somebody holds it")):
        pass

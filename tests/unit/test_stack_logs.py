"""Following a log: no line is missed, whatever happens to the file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts"))

from stack.logs import Follower, show
from stack.settings import UsageError, from_environment


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "order-api.log"


@pytest.fixture
def follower(log: Path) -> Iterator[Follower]:
    follower = Follower(log, "")
    yield follower
    follower.close()


def append(path: Path, text: str) -> None:
    with path.open("a") as stream:
        stream.write(text)


def test_a_tail_is_the_last_lines_and_what_comes_later_follows(log: Path, follower: Follower) -> None:
    append(log, "a\nb\nc\n")
    assert follower.first(2) == ["b", "c"]
    append(log, "d\n")
    assert follower.more() == ["d"]
    assert follower.more() == []


def test_half_a_line_waits_for_its_other_half(log: Path, follower: Follower) -> None:
    append(log, "a\nhal")
    assert follower.first(None) == ["a"]
    append(log, "f\n")
    assert follower.more() == ["half"]


def test_a_log_that_appears_later_is_read_from_its_start(log: Path, follower: Follower) -> None:
    assert follower.first(10) == []
    append(log, "a\n")
    assert follower.more() == ["a"]


def test_a_rotated_log_is_read_to_its_end_and_then_the_new_one(log: Path, follower: Follower) -> None:
    append(log, "a\n")
    assert follower.first(None) == ["a"]
    append(log, "last of the old\n")
    log.replace(log.with_suffix(".log.1"))
    append(log, "first of the new\n")
    assert follower.more() == ["last of the old", "first of the new"]


def test_a_log_that_was_cut_is_read_from_its_start(log: Path, follower: Follower) -> None:
    append(log, "a long first line\n")
    assert follower.first(None) == ["a long first line"]
    log.write_text("new\n")
    assert follower.more() == ["new"]


def test_bytes_that_are_not_utf_8_are_shown_all_the_same(log: Path, follower: Follower) -> None:
    log.write_bytes(b"\xff\n")
    assert follower.first(None) == ["\ufffd"]


def test_all_logs_have_their_name_before_each_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = from_environment({"RELANCE_RUN_DIR": str(tmp_path)})
    settings.logs_dir.mkdir()
    append(settings.logs_dir / "order-api.log", "one\ntwo\n")
    append(settings.logs_dir / "order-consumer-7.log", "old\n")
    show(settings, None, tail=1, follow=False)
    assert capsys.readouterr().out.splitlines() == ["order-api        | two", "order-consumer-7 | old"]


def test_the_lines_of_all_logs_come_in_the_order_of_their_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = from_environment({"RELANCE_RUN_DIR": str(tmp_path)})
    settings.logs_dir.mkdir()
    at = "2026-01-31T10:30:0"
    append(settings.logs_dir / "order-api.log", f"{at}1.000Z a\n{at}3.000Z c\nTraceback\n{at}2.900Z late\n")
    append(settings.logs_dir / "order-consumer-1.log", f"no time\n{at}2.000Z b\n{at}3.000Z d\n{at}4.000Z e\n")
    show(settings, None, tail=None, follow=False)
    said = [line.split()[-1] for line in capsys.readouterr().out.splitlines()]
    assert said == ["time", "a", "b", "c", "Traceback", "late", "d", "e"]


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    settings = from_environment({"RELANCE_RUN_DIR": str(tmp_path)})
    with pytest.raises(UsageError, match="order-api, order-consumer-1, console, broker"):
        show(settings, "kafka", tail=None, follow=False)

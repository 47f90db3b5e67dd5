"""The test runner itself: it must not look green when nothing ran, something was skipped, or hangs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts"))

import run_tests

PASSES = "def test_passes(): pass\n"
FAILS = "def test_fails(): assert False\n"
SKIPS = "import pytest\ndef test_skips(): pytest.skip('no Kafka')\n"
SLOW = "import pytest\n@pytest.mark.slow\ndef test_slow(): pass\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run_tests, "ROOT", tmp_path)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # a second less for each run
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow: takes long\n")
    return tmp_path


def suite(project: Path, name: str, text: str) -> None:
    folder = project / "tests" / name
    folder.mkdir(parents=True)
    (folder / "test_it.py").write_text(text)


def run(name: str, *, everything: bool = False) -> run_tests.Outcome:
    return run_tests.run_suite(name, sys.executable, everything=everything)


def test_what_ran_is_counted(project: Path) -> None:
    suite(project, "unit", PASSES + FAILS)
    outcome = run("unit")
    assert (outcome.passed, outcome.failed, outcome.ok) == (1, 1, False)


def test_a_suite_without_a_test_fails(project: Path) -> None:
    (project / "tests").mkdir()
    assert run("kafka").problems == ["has no tests"]


def test_a_suite_whose_tests_are_all_left_out_fails(project: Path) -> None:
    suite(project, "unit", SLOW)
    assert run("unit").problems == ["ran no test"]
    assert run("unit", everything=True).ok


def test_a_file_that_can_not_be_imported_fails(project: Path) -> None:
    suite(project, "unit", "import nothing_of_that_name\n")
    assert not run("unit").ok


def test_a_skip_is_a_failure_in_ci_where_the_world_must_be_there(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite(project, "kafka", PASSES + SKIPS)
    assert run("kafka").ok
    monkeypatch.setenv("CI", "true")
    (problem,) = run("kafka").problems
    assert "skipped 1" in problem


def test_a_suite_that_hangs_is_stopped(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite(project, "unit", "import time\ndef test_hangs(): time.sleep(60)\n")
    monkeypatch.setitem(run_tests.BUDGETS, "unit", 1.0)
    (problem,) = [p for p in run("unit").problems if "hangs" in p]
    assert "was stopped after 2 s" in problem


def test_a_new_folder_of_tests_joins_by_being_there(project: Path) -> None:
    suite(project, "chaos", PASSES)
    assert run_tests.known_suites() == ["unit", "property", "kafka", "stack", "chaos"]


def test_an_unknown_suite_ends_with_status_2_and_the_known_ones(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite(project, "unit", PASSES)
    with pytest.raises(SystemExit) as end:
        run_tests.main(["nothing"])
    assert end.value.code == 2
    assert "unit, property, kafka, stack" in capsys.readouterr().err


def test_the_last_line_is_the_count_and_the_status_is_1_if_anything_failed(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite(project, "unit", PASSES + FAILS + SKIPS)
    assert run_tests.main(["unit"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 passed, 1 failed, 1 skipped"
    assert lines[-2].startswith("FAILED: unit")

"""The test runner itself: it must not look green when nothing ran, something was skipped, or hangs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import run_tests  # noqa: E402 (found only after the line above)

PASSES = "def test_passes(): pass\n"
FAILS = "def test_fails(): assert False\n"
SKIPS = "import pytest\ndef test_skips(): pytest.skip('no Kafka')\n"
XFAILS = "import pytest\n@pytest.mark.xfail(strict=True)\ndef test_xfails(): assert False\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run_tests, "ROOT", tmp_path)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # a second less for each run
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def suite(project: Path, name: str, text: str) -> None:
    folder = project / "tests" / name
    folder.mkdir(parents=True)
    (folder / "test_it.py").write_text(text)


def run(name: str) -> run_tests.Outcome:
    return run_tests.run_suite(run_tests.Job(name), run_tests.Budgets())


def test_what_ran_is_counted(project: Path) -> None:
    suite(project, "unit", PASSES + FAILS)
    outcome = run("unit")
    assert (outcome.passed, outcome.failed, outcome.ok) == (1, 1, False)


def test_a_suite_without_a_test_fails(project: Path) -> None:
    (project / "tests").mkdir()
    assert run("kafka").problems == ["has no tests"]


def test_a_suite_that_collects_nothing_fails(project: Path) -> None:
    suite(project, "unit", "def helper(): pass\n")
    assert run("unit").problems == ["ran no test"]


def test_what_fails_as_expected_is_not_counted_as_passed(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite(project, "unit", PASSES + XFAILS)
    assert run_tests.main(["unit"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 0 failed, 1 xfailed"


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


def test_suites_that_share_a_budget_are_judged_together(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"unit": 180.0, "kafka": 600.0, "chaos": 420.0, run_tests.REST: 720.0}
    monkeypatch.setattr(run_tests, "BUDGETS", own)
    for name in ("unit", "property", "kafka", "stack", "browser"):
        suite(project, name, PASSES)
    budgets = run_tests.Budgets()
    assert budgets.spend("unit", 100.0) == ""
    assert budgets.left("property") == 80.0
    assert budgets.spend("property", 90.0) == (
        "unit and property have 180 s together, 10 s less than they took"
    )
    assert budgets.left("kafka") == 600.0
    budgets.spend("stack", 700.0)
    assert budgets.left("browser") == budgets.left("a later one") == 20.0
    assert budgets.limit("browser") == 360.0, "what is left must not stop a suite that does well"


@pytest.mark.parametrize("ci", [False, True])
def test_a_python_that_is_missing_fails_in_ci_and_is_said_elsewhere(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ci: bool
) -> None:
    suite(project, "unit", PASSES)
    monkeypatch.setenv("CI", "true" if ci else "false")
    monkeypatch.setattr(run_tests, "find_python", lambda version: None)
    jobs, found = run_tests.unit_on_other_pythons()
    assert jobs == []
    assert "the unit tests did NOT run on it" in capsys.readouterr().out
    assert [outcome.ok for outcome in found] == ([False, False] if ci else [])


@pytest.mark.parametrize("ci", [False, True])
def test_a_missing_shellcheck_fails_in_ci(project: Path, monkeypatch: pytest.MonkeyPatch, ci: bool) -> None:
    monkeypatch.setenv("CI", "true" if ci else "false")
    monkeypatch.setattr(run_tests.shutil, "which", lambda name, path=None: None)
    monkeypatch.setattr(run_tests.subprocess, "run", lambda *args, **kw: subprocess.CompletedProcess(args, 0))
    assert run_tests.lint().ok is not ci


def test_the_python_of_a_version_is_one_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert run_tests.main(["--find-python", version]) == 0
    found = capsys.readouterr().out.strip()
    asked = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
    assert asked.stdout.startswith(f"Python {version}.")
    assert run_tests.main(["--find-python", "3.2"]) == 1


def test_ci_fetches_the_pythons_and_finds_the_browsers_that_the_tests_look_for() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    conftest = (ROOT / "tests" / "browser" / "conftest.py").read_text()
    browsers = re.search(r"BROWSERS = \((.*)\)", conftest)
    assert browsers is not None
    assert f"for name in {browsers[1].replace(chr(34), '').replace(',', '')}; do" in script
    assert f"for version in {' '.join(run_tests.PYTHONS)}; do" in script


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


def test_where_all_are_asked_for_each_runs_and_is_counted_and_shows_what_it_said(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_tests, "lint", lambda: run_tests.Outcome("lint", 0.0))
    monkeypatch.setattr(run_tests, "PYTHONS", ())
    for name in ("property", "kafka", "stack", "chaos", "workers"):
        suite(project, name, PASSES)
    suite(project, "unit", "def test_speaks():\n    print(1000 * 4242)\n    assert False\n")
    assert run_tests.main([]) == 1
    out = capfd.readouterr().out
    lines = out.splitlines()
    assert lines[-1] == "5 passed, 1 failed"
    assert lines[-2].startswith("FAILED: unit, in ")
    assert out.count("4242000") == 1
    assert out.index("── unit ") < out.index("4242000")
    for name in ("kafka", "stack", "unit", "property", "workers", "chaos"):
        assert out.count(f"── {name} ") == 1
    assert out.index("── chaos ") > max(out.index(f"── {name} ") for name in ("kafka", "stack", "workers"))


def test_where_all_are_asked_for_a_suite_that_is_missing_fails(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_tests, "lint", lambda: run_tests.Outcome("lint", 0.0))
    monkeypatch.setattr(run_tests, "PYTHONS", ())
    for name in ("unit", "property", "kafka", "stack"):
        suite(project, name, PASSES)
    assert run_tests.main([]) == 1
    assert "FAILED: chaos, in " in capfd.readouterr().out

"""What the lint says of the packages: a bill of all that are locked, and each known weakness."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def script() -> ModuleType:
    return load("supply_chain")


def answering(monkeypatch: pytest.MonkeyPatch, **ended: Any) -> None:
    """Whatever is run ends so."""
    done = SimpleNamespace(**({"returncode": 0, "stdout": "", "stderr": ""} | ended))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)


def test_every_package_is_pinned_with_hashes(script: ModuleType) -> None:
    lines = script.LOCK.read_text().splitlines()
    pinned = [at for at, line in enumerate(lines) if "==" in line and not line.startswith((" ", "#"))]
    assert len(pinned) == len(script.locked()) > 50
    assert all(lines[at + 1].strip().startswith("--hash=sha256:") for at in pinned)


def test_a_bill_of_all_that_is_locked_is_no_problem(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sbom.json"
    parts = [{"name": name, "version": version} for name, version in script.locked()]
    file.write_text(json.dumps({"components": parts}))
    answering(monkeypatch)  # each lint makes a real one, which takes seconds
    assert script.bill_of_materials(file) == []
    assert f"{len(parts)} packages" in capsys.readouterr().out


def test_a_bill_that_lacks_a_package_is_a_problem(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sbom.json"
    file.write_text('{"components": []}')
    answering(monkeypatch)
    (problem,) = script.bill_of_materials(file)
    assert "differ" in problem


def test_a_known_weakness_is_a_problem_with_its_name_and_its_end(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    weak = {"name": "x", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}
    answering(monkeypatch, returncode=1, stdout=json.dumps({"dependencies": [weak]}))
    assert script.audit() == ["x 1: PYSEC-1, mended in ['2']"]


def test_advisories_that_cannot_be_asked_are_said_not_to_have_been(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answering(monkeypatch, returncode=1, stderr="no route to host\n")
    assert script.audit() == []
    assert "NOT AUDITED, the advisories can't be asked: no route to host" in capsys.readouterr().out
    unknown = {"name": "x", "version": "1", "skip_reason": "unknown there"}
    answering(monkeypatch, stdout=json.dumps({"dependencies": [unknown]}))
    assert script.audit() == []
    assert "NOT AUDITED: 1 of 1 packages" in capsys.readouterr().out


def test_each_lint_asks_and_fails_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    run_tests = load("run_tests")
    ran: list[str] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        ran.append(" ".join(command))
        return SimpleNamespace(returncode="supply_chain.py" in ran[-1])

    monkeypatch.setattr(subprocess, "run", run)
    outcome = run_tests.lint()
    assert ran[-1].endswith("scripts/supply_chain.py")
    assert outcome.problems == ["the supply chain has a problem"]

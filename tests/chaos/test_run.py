"""The rig for ninety seconds, by the command that people use."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {
    *("lost", "unseen", "duplicates", "duplicates_allowed", "order_violations", "commits_past_frontier"),
    *("early", "handled", "faults"),
}


@pytest.mark.parametrize("seed", [4])
def test_ninety_seconds_of_faults_break_no_promise(seed: int, tmp_path: Path) -> None:
    words = ["--seconds", "90", "--seed", str(seed), "--keep", str(tmp_path / "run")]
    done = subprocess.run(["scripts/chaos.sh", *words], cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told.keys() >= FIELDS
    zero = ("lost", "unseen", "order_violations", "commits_past_frontier", "early")
    assert {name: told[name] for name in zero} == dict.fromkeys(zero, 0)
    assert told["duplicates"] <= told["duplicates_allowed"]
    assert told["handled"] > 5000
    assert told["faults"] >= 4
    assert json.loads((tmp_path / "run/report.json").read_text())["handled"] == told["handled"]
    picture = ElementTree.parse(tmp_path / "run/timeline.svg").getroot()
    assert picture.tag.endswith("svg")
    assert len(picture.findall(".//{*}rect[@class='fault']")) == told["faults"]
